//! A tool library: shelves, tools, borrowers, tool loans.

use super::{Family, Measure, Naming, choice, date, link, number, people, status, things};

pub(super) const LENDING: Family = Family {
    name: "lending",
    settings: &[
        "I run a library of things where people borrow tools.",
        "I'm a volunteer at a tool library.",
        "We're writing the yearly report of our tool library.",
    ],
    tables: &[
        things(
            ["shelf", "shelves"],
            &["shelf", "shelf_code"],
            Naming::Code("S"),
            (12, 16),
            &[
                choice(&["room", "hall"], "room", &["cellar", "ground floor", "attic"], "in the room \"{}\""),
                number(
                    &["max_load", "capacity"],
                    "maximum load",
                    (20, 300, 10),
                    Measure::Sum("kilograms"),
                    ["with a maximum load of at least {} kilograms", "with a maximum load of at most {} kilograms"],
                    ["the {} with the highest maximum load", "the {} with the lowest maximum load"],
                ),
            ],
        ),
        things(
            ["tool", "tools"],
            &["tool", "item", "tool_name"],
            Naming::Pair(
                &["Cordless", "Heavy", "Folding", "Compact", "Electric", "Hand"],
                &["Drill", "Saw", "Ladder", "Sander", "Mixer", "Mower", "Jack"],
            ),
            (28, 40),
            &[
                link(&["shelf", "kept_on"], "shelf", 0, "kept on {}"),
                number(
                    &["deposit", "deposit_due"],
                    "deposit",
                    (5, 250, 5),
                    Measure::Money("€"),
                    ["with a deposit of at least {}", "with a deposit of at most {}"],
                    ["the {} with the highest deposit", "the {} with the lowest deposit"],
                ),
                number(
                    &["weight", "weight_hg"],
                    "weight",
                    (4, 380, 1),
                    Measure::Tenths("kilogram"),
                    ["weighing at least {} kilograms", "weighing at most {} kilograms"],
                    ["the heaviest {}", "the lightest {}"],
                ),
                number(
                    &["bought", "year_bought"],
                    "year of purchase",
                    (2_005, 2_025, 1),
                    Measure::Level("year"),
                    ["bought in {} or later", "bought in {} or earlier"],
                    ["the newest {}", "the oldest {}"],
                )
                .optional(),
            ],
        ),
        people(
            ["borrower", "borrowers"],
            &["borrower", "member", "borrower_name"],
            (26, 40),
            &[
                choice(
                    &["area", "neighbourhood"],
                    "neighbourhood",
                    &["Lindenau", "Plagwitz", "Connewitz", "Gohlis"],
                    "from {}",
                ),
                date(
                    &["joined", "member_since"],
                    "joining date",
                    (18_000, 2_400),
                    ["who joined on or after {}", "who joined on or before {}"],
                    ["the {} who joined last", "the {} who joined first"],
                ),
                number(
                    &["warnings", "warning_count"],
                    "number of warnings",
                    (0, 5, 1),
                    Measure::Sum("warnings"),
                    ["with at least {} warnings", "with at most {} warnings"],
                    ["the {} with the most warnings", "the {} with the fewest warnings"],
                ),
            ],
        ),
        things(
            ["tool loan", "tool loans"],
            &["loan_id", "loan", "id"],
            Naming::Code("TL"),
            (56, 88),
            &[
                link(&["tool", "item"], "tool", 1, "of the {}"),
                link(&["borrower", "borrowed_by"], "borrower", 2, "taken out by {}"),
                date(
                    &["out", "taken_out"],
                    "first day",
                    (20_300, 150),
                    ["beginning on or after {}", "beginning on or before {}"],
                    ["the most recent {}", "the oldest {}"],
                ),
                number(
                    &["days", "loan_days"],
                    "duration",
                    (2, 28, 1),
                    Measure::Sum("days"),
                    ["for at least {} days", "for at most {} days"],
                    ["the longest {}", "the shortest {}"],
                ),
                status(
                    &["status", "state"],
                    &["out", "returned", "overdue"],
                    "that are {}",
                    ("overdue", "returned"),
                    "Record {} as returned (set the status to returned)",
                ),
            ],
        ),
    ],
};
