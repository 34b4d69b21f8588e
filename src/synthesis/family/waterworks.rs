//! Water works: reservoirs, pumps, households, meter readings.

use super::{Family, Measure, Naming, choice, date, flag, link, number, status, things};

pub(super) const WATERWORKS: Family = Family {
    name: "waterworks",
    settings: &[
        "I work at the municipal water works.",
        "I handle the billing of a water supplier.",
        "We have to write a drought plan for the town.",
    ],
    tables: &[
        things(
            ["reservoir", "reservoirs"],
            &["reservoir", "reservoir_name"],
            Naming::Pair(&["Heron", "Stone", "Willow", "Eagle", "Mill", "Castle"], &["Lake", "Basin", "Tank", "Dam"]),
            (9, 14),
            &[
                number(
                    &["capacity", "capacity_m3"],
                    "capacity",
                    (400, 90_000, 100),
                    Measure::Sum("cubic metres"),
                    ["with a capacity of at least {} cubic metres", "with a capacity of at most {} cubic metres"],
                    ["the {} with the highest capacity", "the {} with the lowest capacity"],
                ),
                number(
                    &["level", "fill_percent"],
                    "fill level",
                    (12, 99, 1),
                    Measure::Level("percent"),
                    ["with a fill level of at least {} percent", "with a fill level of at most {} percent"],
                    ["the {} with the highest fill level", "the {} with the lowest fill level"],
                ),
            ],
        ),
        things(
            ["pump", "pumps"],
            &["pump", "pump_code"],
            Naming::Code("PU"),
            (18, 28),
            &[
                link(&["reservoir", "fed_by"], "reservoir", 0, "drawing from {}"),
                number(
                    &["power", "power_kw"],
                    "power",
                    (3, 160, 1),
                    Measure::Sum("kilowatts"),
                    ["with a power of at least {} kilowatts", "with a power of at most {} kilowatts"],
                    ["the {} with the highest power", "the {} with the lowest power"],
                ),
                date(
                    &["serviced", "last_service"],
                    "date of the last service",
                    (19_900, 540),
                    ["last serviced on or after {}", "last serviced on or before {}"],
                    ["the most recently serviced {}", "the {} that has not been serviced for longest"],
                ),
                status(
                    &["status", "state"],
                    &["running", "standby", "broken"],
                    "with the status {}",
                    ("broken", "standby"),
                    "Put {} on standby (set the status to standby)",
                ),
            ],
        ),
        things(
            ["household", "households"],
            &["household", "address"],
            Naming::Street,
            (30, 46),
            &[
                link(&["pump", "supplied_by"], "pump", 1, "supplied by {}"),
                number(
                    &["people", "residents"],
                    "number of residents",
                    (1, 8, 1),
                    Measure::Sum("residents"),
                    ["with at least {} residents", "with at most {} residents"],
                    ["the {} with the most residents", "the {} with the fewest residents"],
                ),
                flag(&["garden", "has_garden"], "garden", ["with a garden", "without a garden"]),
            ],
        ),
        things(
            ["meter reading", "meter readings"],
            &["reading_id", "reading", "id"],
            Naming::Code("MR"),
            (60, 96),
            &[
                link(&["household", "address"], "household", 2, "of {}"),
                date(
                    &["day", "read_on"],
                    "date",
                    (20_200, 240),
                    ["taken on or after {}", "taken on or before {}"],
                    ["the latest {}", "the earliest {}"],
                ),
                number(
                    &["usage", "usage_m3"],
                    "consumption",
                    (2, 190, 1),
                    Measure::Sum("cubic metres"),
                    ["of at least {} cubic metres", "of at most {} cubic metres"],
                    ["the {} with the highest consumption", "the {} with the lowest consumption"],
                ),
                choice(&["method", "read_by"], "method", &["by radio", "by post", "on site"], "taken {}"),
            ],
        ),
    ],
};
