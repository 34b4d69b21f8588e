//! A farm: fields, machines, harvests, jobs.

use super::{Family, Measure, Naming, choice, date, flag, link, number, status, things};

pub(super) const FARM: Family = Family {
    name: "farm",
    settings: &[
        "My sister and I run a farm.",
        "I keep the books of a large farm.",
        "The harvest is in, and I'm going through our farm's records.",
    ],
    tables: &[
        things(
            ["field", "fields"],
            &["field", "plot", "field_name"],
            Naming::Pair(
                &["Upper", "Lower", "Church", "Mill", "Long", "Fox", "Stony"],
                &["Acre", "Meadow", "Piece", "Bottom", "Croft"],
            ),
            (18, 28),
            &[
                number(
                    &["hectares", "area"],
                    "area",
                    (8, 420, 1),
                    Measure::Tenths("hectare"),
                    ["of at least {} hectares", "of at most {} hectares"],
                    ["the largest {}", "the smallest {}"],
                ),
                choice(&["soil", "soil_type"], "soil", &["clay", "loam", "sand", "chalk"], "with {} soil"),
                flag(&["irrigated", "is_irrigated"], "irrigation", ["with irrigation", "without irrigation"]),
                number(
                    &["drains", "drain_count"],
                    "number of drains",
                    (0, 24, 1),
                    Measure::Sum("drains"),
                    ["with at least {} drains", "with at most {} drains"],
                    ["the {} with the most drains", "the {} with the fewest drains"],
                ),
            ],
        ),
        things(
            ["machine", "machines"],
            &["machine", "plate", "registration"],
            Naming::Plate,
            (12, 18),
            &[
                choice(
                    &["kind", "machine_type"],
                    "kind",
                    &["tractor", "harvester", "sprayer", "baler"],
                    "of the kind \"{}\"",
                ),
                number(
                    &["hours", "running_hours"],
                    "number of running hours",
                    (120, 9_800, 10),
                    Measure::Sum("running hours"),
                    ["with at least {} running hours", "with at most {} running hours"],
                    ["the {} with the most running hours", "the {} with the fewest running hours"],
                ),
                number(
                    &["bought", "year_bought"],
                    "year of purchase",
                    (1_998, 2_025, 1),
                    Measure::Level("year"),
                    ["bought in {} or later", "bought in {} or earlier"],
                    ["the newest {}", "the oldest {}"],
                )
                .optional(),
            ],
        ),
        things(
            ["harvest", "harvests"],
            &["harvest_id", "harvest", "id"],
            Naming::Code("HV"),
            (44, 68),
            &[
                link(&["field", "plot"], "field", 0, "from {}"),
                choice(&["crop", "crop_name"], "crop", &["wheat", "barley", "rapeseed", "potatoes", "maize"], "of {}"),
                number(
                    &["tonnes", "yield_tonnes"],
                    "yield",
                    (3, 190, 1),
                    Measure::Sum("tonnes"),
                    ["of at least {} tonnes", "of at most {} tonnes"],
                    ["the largest {}", "the smallest {}"],
                ),
                date(
                    &["day", "brought_in"],
                    "date",
                    (19_000, 1_400),
                    ["brought in on or after {}", "brought in on or before {}"],
                    ["the latest {}", "the earliest {}"],
                ),
            ],
        ),
        things(
            ["job", "jobs"],
            &["job_id", "job", "id"],
            Naming::Code("JOB"),
            (46, 72),
            &[
                link(&["field", "plot"], "field", 0, "on {}"),
                link(&["machine", "done_with"], "machine", 1, "done with the machine {}"),
                number(
                    &["fuel", "fuel_litres"],
                    "fuel use",
                    (5, 260, 1),
                    Measure::Sum("litres"),
                    ["with a fuel use of at least {} litres", "with a fuel use of at most {} litres"],
                    ["the {} with the highest fuel use", "the {} with the lowest fuel use"],
                ),
                status(
                    &["status", "state"],
                    &["planned", "under way", "done"],
                    "that are {}",
                    ("planned", "under way"),
                    "Start {} (set the status to \"under way\")",
                ),
            ],
        ),
    ],
};
