//! A car workshop: customers, cars, mechanics, repairs.

use super::{Family, Measure, Naming, choice, date, link, number, people, status, things};

pub(super) const GARAGE: Family = Family {
    name: "garage",
    settings: &[
        "I run a car workshop.",
        "I order the parts for our workshop.",
        "I'm at the counter of a car workshop and customers are waiting.",
    ],
    tables: &[
        people(
            ["customer", "customers"],
            &["customer", "client", "customer_name"],
            (20, 32),
            &[
                choice(&["type", "customer_type"], "type", &["private", "company", "taxi"], "of the type \"{}\""),
                number(
                    &["balance", "open_balance"],
                    "open balance",
                    (0, 2_400, 10),
                    Measure::Money("€"),
                    ["with an open balance of at least {}", "with an open balance of at most {}"],
                    ["the {} with the highest open balance", "the {} with the lowest open balance"],
                ),
            ],
        ),
        things(
            ["car", "cars"],
            &["car", "plate", "licence_plate"],
            Naming::Plate,
            (28, 44),
            &[
                link(&["owner", "belongs_to"], "owner", 0, "belonging to {}"),
                choice(&["make", "brand"], "make", &["Aster", "Bolide", "Corvo", "Dynamo"], "of the make {}"),
                number(
                    &["mileage", "kilometres"],
                    "mileage",
                    (2_000, 280_000, 500),
                    Measure::Sum("kilometres"),
                    ["with a mileage of at least {} kilometres", "with a mileage of at most {} kilometres"],
                    ["the {} with the highest mileage", "the {} with the lowest mileage"],
                ),
                date(
                    &["inspection", "next_inspection"],
                    "date of the next inspection",
                    (20_460, 720),
                    ["due for inspection on {} or later", "due for inspection on {} or earlier"],
                    ["the {} that is due for inspection last", "the {} that is due for inspection first"],
                )
                .optional(),
            ],
        ),
        people(
            ["mechanic", "mechanics"],
            &["mechanic", "mechanic_name"],
            (8, 12),
            &[
                choice(&["skill", "training"], "skill", &["engines", "bodywork", "electronics"], "trained in {}"),
                number(
                    &["rate", "hourly_rate"],
                    "hourly rate",
                    (40, 110, 5),
                    Measure::Money("€"),
                    ["with a hourly rate of at least {}", "with a hourly rate of at most {}"],
                    ["the {} with the highest hourly rate", "the {} with the lowest hourly rate"],
                ),
            ],
        ),
        things(
            ["repair", "repairs"],
            &["repair_id", "repair", "id"],
            Naming::Code("RP"),
            (50, 78),
            &[
                link(&["car", "plate"], "car", 1, "of the car {}"),
                link(&["mechanic", "done_by"], "mechanic", 2, "done by {}"),
                number(
                    &["hours", "labour_hours"],
                    "labour",
                    (5, 160, 5),
                    Measure::Tenths("hour"),
                    ["taking at least {} hours", "taking at most {} hours"],
                    ["the longest {}", "the shortest {}"],
                ),
                number(
                    &["parts_cost", "cost_of_parts"],
                    "cost of parts",
                    (10, 2_900, 10),
                    Measure::Money("€"),
                    ["needing parts for at least {}", "needing parts for at most {}"],
                    ["the {} with the most expensive parts", "the {} with the cheapest parts"],
                ),
                date(
                    &["promised", "ready_by"],
                    "promised date",
                    (20_440, 40),
                    ["promised for {} or later", "promised for {} or earlier"],
                    ["the {} that is promised last", "the {} that is promised first"],
                ),
                status(
                    &["status", "state"],
                    &["waiting", "in work", "finished", "collected"],
                    "with the status \"{}\"",
                    ("finished", "collected"),
                    "Record {} as collected (set the status to collected)",
                ),
            ],
        ),
    ],
};
