//! Waste collection: depots, trucks, pickups.

use super::{Family, Measure, Naming, choice, date, flag, link, number, status, things};

pub(super) const RECYCLING: Family = Family {
    name: "recycling",
    settings: &[
        "I plan the rounds of the town's waste collection.",
        "I answer residents' questions about waste collection.",
        "The council wants to know how our recycling is going.",
    ],
    tables: &[
        things(
            ["depot", "depots"],
            &["depot", "yard", "depot_name"],
            Naming::Pair(&["North", "South", "Harbour", "Station", "Hill", "Mill"], &["Yard", "Depot"]),
            (8, 11),
            &[
                number(
                    &["capacity", "capacity_tonnes"],
                    "capacity",
                    (20, 900, 10),
                    Measure::Sum("tonnes"),
                    ["with a capacity of at least {} tonnes", "with a capacity of at most {} tonnes"],
                    ["the {} with the highest capacity", "the {} with the lowest capacity"],
                ),
                flag(
                    &["open_saturdays", "saturday_opening"],
                    "Saturday opening",
                    ["that are open on Saturdays", "that are closed on Saturdays"],
                ),
            ],
        ),
        things(
            ["truck", "trucks"],
            &["truck", "plate", "licence_plate"],
            Naming::Plate,
            (14, 22),
            &[
                link(&["depot", "parked_at"], "depot", 0, "parked at {}"),
                number(
                    &["payload", "max_payload"],
                    "payload",
                    (20, 140, 1),
                    Measure::Tenths("tonne"),
                    ["carrying at least {} tonnes", "carrying at most {} tonnes"],
                    ["the {} with the largest payload", "the {} with the smallest payload"],
                ),
                choice(&["fuel", "engine"], "fuel", &["diesel", "gas", "electric"], "running on {} power"),
                number(
                    &["repairs", "repair_count"],
                    "number of repairs",
                    (0, 30, 1),
                    Measure::Sum("repairs"),
                    ["with at least {} repairs", "with at most {} repairs"],
                    ["the {} with the most repairs", "the {} with the fewest repairs"],
                )
                .optional(),
            ],
        ),
        things(
            ["pickup", "pickups"],
            &["pickup_id", "pickup", "id"],
            Naming::Code("PI"),
            (70, 110),
            &[
                link(&["truck", "done_by"], "truck", 1, "done by the truck {}"),
                choice(&["waste", "waste_type"], "waste", &["paper", "glass", "plastic", "garden waste"], "of {}"),
                number(
                    &["kilograms", "weight_kg"],
                    "weight",
                    (80, 6_200, 20),
                    Measure::Sum("kilograms"),
                    ["weighing at least {} kilograms", "weighing at most {} kilograms"],
                    ["the heaviest {}", "the lightest {}"],
                ),
                date(
                    &["day", "pickup_date"],
                    "date",
                    (20_400, 60),
                    ["on or after {}", "on or before {}"],
                    ["the latest {}", "the earliest {}"],
                ),
                number(
                    &["bins", "bin_count"],
                    "number of bins",
                    (4, 260, 1),
                    Measure::Sum("bins"),
                    ["with at least {} bins", "with at most {} bins"],
                    ["the {} with the most bins", "the {} with the fewest bins"],
                ),
                status(
                    &["status", "state"],
                    &["planned", "done", "missed"],
                    "that are {}",
                    ("missed", "planned"),
                    "Put {} back on the plan (set the status to planned)",
                ),
            ],
        ),
    ],
};
