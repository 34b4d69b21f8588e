//! A museum: galleries, artists, works, loans to other houses.

use super::{Entity, Family, Measure, Naming, choice, date, flag, link, number, status};

pub(super) const MUSEUM: Family = Family {
    name: "museum",
    settings: &[
        "I'm a curator and we are rehanging the collection.",
        "I look after the collection database of a museum.",
        "The insurer of our museum has sent a few questions.",
    ],
    tables: &[
        Entity {
            noun: "gallery",
            plural: "galleries",
            who: false,
            keys: &["gallery", "hall", "gallery_name"],
            naming: Naming::Pair(
                &["East", "West", "Upper", "Lower", "Garden", "Marble", "Long"],
                &["Gallery", "Hall", "Cabinet", "Rotunda"],
            ),
            rows: (12, 18),
            fields: &[
                number(
                    &["area", "floor_area"],
                    "area",
                    (30, 420, 1),
                    Measure::Sum("square metres"),
                    ["of at least {} square metres", "of at most {} square metres"],
                    ["the largest {}", "the smallest {}"],
                ),
                flag(
                    &["climate_control", "air_conditioned"],
                    "climate control",
                    ["with climate control", "without climate control"],
                ),
            ],
        },
        Entity {
            noun: "artist",
            plural: "artists",
            who: true,
            keys: &["artist", "artist_name", "maker"],
            naming: Naming::Person,
            rows: (16, 26),
            fields: &[
                choice(
                    &["movement", "school"],
                    "movement",
                    &["realism", "cubism", "baroque", "romanticism"],
                    "associated with {}",
                ),
                number(
                    &["born", "birth_year"],
                    "year of birth",
                    (1590, 1960, 1),
                    Measure::Level("year"),
                    ["born in {} or later", "born in {} or earlier"],
                    ["the {} born last", "the {} born first"],
                ),
            ],
        },
        Entity {
            noun: "work",
            plural: "works",
            who: false,
            keys: &["work", "work_title", "title"],
            naming: Naming::Pair(
                &["Woman with", "Still Life with", "Study of", "Landscape with", "Boy and", "Night with"],
                &["Lemons", "a Mill", "Horses", "Blue Jug", "Ferry", "Snow", "Lute", "Poppies", "Ruins", "Lantern"],
            ),
            rows: (34, 52),
            fields: &[
                link(&["artist", "made_by", "artist_name"], "artist", 1, "by {}"),
                link(&["gallery", "shown_in", "hall"], "gallery", 0, "hanging in {}"),
                choice(
                    &["technique", "medium"],
                    "technique",
                    &["oil", "etching", "watercolour", "chalk"],
                    "in the technique \"{}\"",
                ),
                number(
                    &["value", "insured_value"],
                    "insured value",
                    (500, 90_000, 500),
                    Measure::Money("€"),
                    ["insured for at least {}", "insured for at most {}"],
                    ["the {} with the highest insured value", "the {} with the lowest insured value"],
                ),
                date(
                    &["acquired", "acquired_on"],
                    "date of acquisition",
                    (3_600, 16_000),
                    ["acquired on or after {}", "acquired on or before {}"],
                    ["the most recently acquired {}", "the {} that was acquired first"],
                ),
            ],
        },
        Entity {
            noun: "loan request",
            plural: "loan requests",
            who: false,
            keys: &["request_id", "request", "id"],
            naming: Naming::Code("LR"),
            rows: (40, 64),
            fields: &[
                link(&["work", "work_title"], "work", 2, "for {}"),
                date(
                    &["begins", "from_date"],
                    "first day",
                    (20_450, 400),
                    ["beginning on or after {}", "beginning on or before {}"],
                    ["the {} that begins last", "the {} that begins first"],
                ),
                number(
                    &["weeks", "duration"],
                    "duration in weeks",
                    (2, 52, 1),
                    Measure::Sum("weeks"),
                    ["for at least {} weeks", "for at most {} weeks"],
                    ["the longest {}", "the shortest {}"],
                ),
                status(
                    &["status", "state"],
                    &["received", "approved", "declined"],
                    "with the status {}",
                    ("received", "approved"),
                    "Approve {} (set the status to approved)",
                ),
            ],
        },
    ],
};
