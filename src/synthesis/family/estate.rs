//! An estate agency: districts, agents, homes, viewings.

use super::{Family, Measure, Naming, date, flag, link, number, people, status, things};

pub(super) const ESTATE: Family = Family {
    name: "estate",
    settings: &[
        "I run an estate agency.",
        "My partner and I are looking for a new home with the help of an agency.",
        "I train new agents and need some examples.",
    ],
    tables: &[
        things(
            ["district", "districts"],
            &["district", "quarter", "district_name"],
            Naming::Listed(&[
                "Old Town",
                "Harbour Side",
                "University Quarter",
                "Garden Suburb",
                "Station Quarter",
                "Hillside",
                "Riverside",
                "Mill Quarter",
                "Castle Hill",
                "West End",
                "East Gate",
                "Northfields",
            ]),
            (9, 12),
            &[
                number(
                    &["distance", "km_to_centre"],
                    "distance to the centre",
                    (4, 140, 1),
                    Measure::Tenths("kilometre"),
                    [
                        "with a distance to the centre of at least {} kilometres",
                        "with a distance to the centre of at most {} kilometres",
                    ],
                    ["the {} with the highest distance to the centre", "the {} with the lowest distance to the centre"],
                ),
                number(
                    &["schools", "school_count"],
                    "number of schools",
                    (0, 9, 1),
                    Measure::Sum("schools"),
                    ["with at least {} schools", "with at most {} schools"],
                    ["the {} with the most schools", "the {} with the fewest schools"],
                ),
            ],
        ),
        people(
            ["agent", "agents"],
            &["agent", "broker", "agent_name"],
            (12, 18),
            &[
                number(
                    &["commission", "commission_rate"],
                    "commission",
                    (10, 45, 1),
                    Measure::Tenths("percent"),
                    ["with a commission of at least {} percent", "with a commission of at most {} percent"],
                    ["the {} with the highest commission", "the {} with the lowest commission"],
                ),
                number(
                    &["sales", "homes_sold"],
                    "number of sales",
                    (2, 90, 1),
                    Measure::Sum("sales"),
                    ["with at least {} sales", "with at most {} sales"],
                    ["the {} with the most sales", "the {} with the fewest sales"],
                ),
            ],
        ),
        things(
            ["home", "homes"],
            &["home", "address"],
            Naming::Street,
            (36, 56),
            &[
                link(&["district", "located_in"], "district", 0, "in {}"),
                link(&["agent", "offered_by"], "agent", 1, "offered by {}"),
                number(
                    &["price", "asking_price"],
                    "asking price",
                    (90_000, 1_900_000, 1_000),
                    Measure::Money("€"),
                    ["with an asking price of at least {}", "with an asking price of at most {}"],
                    ["the {} with the highest asking price", "the {} with the lowest asking price"],
                ),
                number(
                    &["rooms", "room_count"],
                    "number of rooms",
                    (2, 11, 1),
                    Measure::Sum("rooms"),
                    ["with at least {} rooms", "with at most {} rooms"],
                    ["the {} with the most rooms", "the {} with the fewest rooms"],
                ),
                number(
                    &["built", "year_built"],
                    "year of construction",
                    (1_880, 2_025, 1),
                    Measure::Level("year"),
                    ["built in {} or later", "built in {} or earlier"],
                    ["the newest {}", "the oldest {}"],
                )
                .optional(),
                flag(&["lift", "has_lift"], "lift", ["with a lift", "without a lift"]),
            ],
        ),
        things(
            ["viewing", "viewings"],
            &["viewing_id", "viewing", "id"],
            Naming::Code("VW"),
            (50, 80),
            &[
                link(&["home", "address"], "home", 2, "of {}"),
                date(
                    &["day", "viewing_date"],
                    "date",
                    (20_430, 50),
                    ["on or after {}", "on or before {}"],
                    ["the latest {}", "the earliest {}"],
                ),
                number(
                    &["visitors", "visitor_count"],
                    "number of visitors",
                    (1, 18, 1),
                    Measure::Sum("visitors"),
                    ["with at least {} visitors", "with at most {} visitors"],
                    ["the {} with the most visitors", "the {} with the fewest visitors"],
                ),
                status(
                    &["status", "state"],
                    &["requested", "confirmed", "cancelled"],
                    "with the status {}",
                    ("requested", "confirmed"),
                    "Confirm {} (set the status to confirmed)",
                ),
            ],
        ),
    ],
};
