//! A botanical garden: greenhouses, gardeners, species, plantings, chores.

use super::{Family, Measure, Naming, choice, date, flag, link, number, people, status, things};

pub(super) const GARDEN: Family = Family {
    name: "garden",
    settings: &[
        "I work at a botanical garden.",
        "I'm preparing the spring plan of our botanical garden.",
        "I answer visitors' letters to the botanical garden.",
    ],
    tables: &[
        things(
            ["greenhouse", "greenhouses"],
            &["greenhouse", "house", "greenhouse_name"],
            Naming::Pair(&["Palm", "Orchid", "Cactus", "Fern", "Alpine", "Tropical"], &["House", "Pavilion", "Wing"]),
            (9, 14),
            &[
                number(
                    &["humidity", "humidity_percent"],
                    "humidity",
                    (20, 95, 1),
                    Measure::Level("percent"),
                    ["with a humidity of at least {} percent", "with a humidity of at most {} percent"],
                    ["the {} with the highest humidity", "the {} with the lowest humidity"],
                ),
                number(
                    &["visitors", "daily_visitors"],
                    "number of daily visitors",
                    (20, 1_400, 10),
                    Measure::Sum("daily visitors"),
                    ["with at least {} daily visitors", "with at most {} daily visitors"],
                    ["the {} with the most daily visitors", "the {} with the fewest daily visitors"],
                ),
            ],
        ),
        people(
            ["gardener", "gardeners"],
            &["gardener", "gardener_name"],
            (12, 18),
            &[
                choice(
                    &["specialty", "focus"],
                    "specialty",
                    &["succulents", "trees", "aquatics", "herbs"],
                    "specialised in {}",
                ),
                number(
                    &["hours", "weekly_hours"],
                    "number of weekly hours",
                    (8, 40, 1),
                    Measure::Sum("weekly hours"),
                    ["with at least {} weekly hours", "with at most {} weekly hours"],
                    ["the {} with the most weekly hours", "the {} with the fewest weekly hours"],
                ),
            ],
        ),
        things(
            ["species", "species"],
            &["species", "species_name"],
            Naming::Pair(
                &["Salvia", "Ficus", "Acer", "Iris", "Aloe", "Begonia", "Quercus", "Viola"],
                &["montana", "alba", "japonica", "gigantea", "aurea", "minor", "rubra"],
            ),
            (30, 44),
            &[
                choice(
                    &["origin", "continent"],
                    "origin",
                    &["Africa", "Asia", "Europe", "South America"],
                    "native to {}",
                ),
                flag(
                    &["protected", "is_protected"],
                    "whether it is protected",
                    ["that are protected", "that are not protected"],
                ),
                number(
                    &["height", "height_cm"],
                    "typical height",
                    (5, 2_400, 5),
                    Measure::Level("centimetres"),
                    ["growing to at least {} centimetres", "growing to at most {} centimetres"],
                    ["the tallest {}", "the smallest {}"],
                )
                .optional(),
            ],
        ),
        things(
            ["planting", "plantings"],
            &["planting_id", "planting", "id"],
            Naming::Code("PL"),
            (50, 78),
            &[
                link(&["species", "species_name"], "species", 2, "of {}"),
                link(&["greenhouse", "located_in"], "greenhouse", 0, "in {}"),
                date(
                    &["planted", "planted_on"],
                    "planting date",
                    (17_500, 2_800),
                    ["planted on or after {}", "planted on or before {}"],
                    ["the most recent {}", "the oldest {}"],
                ),
                number(
                    &["plants", "plant_count"],
                    "number of plants",
                    (2, 60, 1),
                    Measure::Sum("plants"),
                    ["with at least {} plants", "with at most {} plants"],
                    ["the {} with the most plants", "the {} with the fewest plants"],
                ),
            ],
        ),
        things(
            ["chore", "chores"],
            &["chore_id", "chore", "id"],
            Naming::Code("CH"),
            (44, 70),
            &[
                link(&["planting", "planting_id"], "planting", 3, "concerning {}"),
                link(&["gardener", "assigned_to"], "gardener", 1, "assigned to {}"),
                number(
                    &["minutes", "minutes_needed"],
                    "time needed",
                    (10, 240, 5),
                    Measure::Sum("minutes"),
                    ["needing at least {} minutes", "needing at most {} minutes"],
                    ["the longest {}", "the shortest {}"],
                ),
                status(
                    &["status", "state"],
                    &["open", "started", "finished"],
                    "that are {}",
                    ("started", "finished"),
                    "Mark {} as finished (set the status to finished)",
                ),
            ],
        ),
    ],
};
