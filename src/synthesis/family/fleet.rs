//! A haulier: depots, drivers, vehicles, runs.

use super::{Entity, Family, Measure, Naming, choice, date, flag, link, number, status};

pub(super) const FLEET: Family = Family {
    name: "fleet",
    settings: &[
        "I'm the dispatcher of a haulage company.",
        "Our fleet is being audited and I need some figures and corrections.",
        "I plan the runs of our vans and lorries.",
    ],
    tables: &[
        Entity {
            noun: "depot",
            plural: "depots",
            who: false,
            keys: &["depot", "site", "depot_name"],
            naming: Naming::Place,
            rows: (12, 18),
            fields: &[
                choice(
                    &["region", "district"],
                    "region",
                    &["coast", "highlands", "lowlands", "capital"],
                    "in the region \"{}\"",
                ),
                number(
                    &["bays", "loading_bays"],
                    "number of loading bays",
                    (2, 30, 1),
                    Measure::Sum("bays"),
                    ["with at least {} loading bays", "with at most {} loading bays"],
                    ["the {} with the most loading bays", "the {} with the fewest loading bays"],
                ),
            ],
        },
        Entity {
            noun: "driver",
            plural: "drivers",
            who: true,
            keys: &["driver", "driver_name"],
            naming: Naming::Person,
            rows: (18, 30),
            fields: &[
                link(&["depot", "home_depot", "based_at"], "depot", 0, "based at {}"),
                number(
                    &["hours", "hours_this_month"],
                    "hours driven this month",
                    (10, 190, 1),
                    Measure::Sum("hours"),
                    ["who drove at least {} hours this month", "who drove at most {} hours this month"],
                    ["the {} with the most hours this month", "the {} with the fewest hours this month"],
                ),
                date(
                    &["licence_until", "licence_expiry"],
                    "licence expiry date",
                    (20_300, 1_400),
                    ["whose licence runs until {} or longer", "whose licence expires on or before {}"],
                    ["the {} whose licence is valid longest", "the {} whose licence expires first"],
                ),
            ],
        },
        Entity {
            noun: "vehicle",
            plural: "vehicles",
            who: false,
            keys: &["plate", "vehicle", "registration"],
            naming: Naming::Code("VX"),
            rows: (26, 44),
            fields: &[
                link(&["depot", "stationed_at", "site"], "depot", 0, "stationed at {}"),
                choice(&["type", "body"], "type", &["van", "box truck", "flatbed", "tanker"], "of the type {}"),
                number(
                    &["payload", "max_load"],
                    "payload",
                    (400, 18_000, 100),
                    Measure::Sum("kilograms"),
                    ["with a payload of at least {} kg", "with a payload of at most {} kg"],
                    ["the {} with the largest payload", "the {} with the smallest payload"],
                ),
                number(
                    &["mileage", "odometer"],
                    "mileage",
                    (5_000, 390_000, 500),
                    Measure::Sum("kilometres"),
                    ["with at least {} km on the clock", "with at most {} km on the clock"],
                    ["the {} with the highest mileage", "the {} with the lowest mileage"],
                ),
                flag(
                    &["electric", "is_electric"],
                    "whether it is electric",
                    ["with an electric motor", "without an electric motor"],
                ),
                status(
                    &["status", "condition"],
                    &["ready", "in repair", "due for service"],
                    "with the status \"{}\"",
                    ("due for service", "in repair"),
                    "Send {} to the workshop (set the status to in repair)",
                ),
            ],
        },
        Entity {
            noun: "run",
            plural: "runs",
            who: false,
            keys: &["run_id", "run", "id"],
            naming: Naming::Code("RUN"),
            rows: (48, 80),
            fields: &[
                link(&["driver", "driven_by"], "driver", 1, "driven by {}"),
                link(&["vehicle", "plate"], "vehicle", 2, "with {}"),
                date(
                    &["day", "date", "run_date"],
                    "date",
                    (20_380, 60),
                    ["on or after {}", "on or before {}"],
                    ["the latest {}", "the earliest {}"],
                ),
                number(
                    &["distance", "km"],
                    "distance",
                    (15, 880, 1),
                    Measure::Sum("kilometres"),
                    ["over at least {} km", "over at most {} km"],
                    ["the longest {}", "the shortest {}"],
                ),
                number(
                    &["toll", "toll_paid"],
                    "toll",
                    (0, 140, 1),
                    Measure::Money("€"),
                    ["that cost at least {} in tolls", "that cost at most {} in tolls"],
                    ["the {} with the highest toll", "the {} with the lowest toll"],
                ),
            ],
        },
    ],
};
