//! A consultancy: offices, employees, projects, expense claims.

use super::{Entity, Family, Measure, Naming, choice, date, flag, link, number, status};

pub(super) const PAYROLL: Family = Family {
    name: "payroll",
    settings: &[
        "I do the books of a consultancy.",
        "I'm in the personnel department and month's end is near.",
        "Our auditor wants to know a few things.",
    ],
    tables: &[
        Entity {
            noun: "office",
            plural: "offices",
            who: false,
            keys: &["office", "site", "office_name"],
            naming: Naming::Place,
            rows: (12, 16),
            fields: &[
                choice(
                    &["country", "state"],
                    "country",
                    &["Austria", "Belgium", "Denmark", "Ireland", "Portugal"],
                    "in {}",
                ),
                number(
                    &["rent", "monthly_rent"],
                    "monthly rent",
                    (900, 14_000, 100),
                    Measure::Money("€"),
                    ["with a monthly rent of at least {}", "with a monthly rent of at most {}"],
                    ["the {} with the highest rent", "the {} with the lowest rent"],
                ),
            ],
        },
        Entity {
            noun: "employee",
            plural: "employees",
            who: true,
            keys: &["employee", "employee_name", "name"],
            naming: Naming::Person,
            rows: (30, 48),
            fields: &[
                link(&["office", "based_in", "site"], "office", 0, "based in {}"),
                choice(&["grade", "level"], "grade", &["junior", "senior", "principal"], "of the grade \"{}\""),
                number(
                    &["salary", "monthly_salary"],
                    "salary",
                    (2_400, 9_800, 50),
                    Measure::Money("€"),
                    ["earning at least {} a month", "earning at most {} a month"],
                    ["the best paid {}", "the worst paid {}"],
                ),
                number(
                    &["leave", "leave_days"],
                    "days of leave left",
                    (0, 34, 1),
                    Measure::Sum("days"),
                    ["with at least {} days of leave left", "with at most {} days of leave left"],
                    ["the {} with the most days of leave left", "the {} with the fewest days of leave left"],
                ),
                date(
                    &["started", "start_date"],
                    "starting date",
                    (16_000, 4_200),
                    ["who started on or after {}", "who started on or before {}"],
                    ["the {} who started last", "the {} who started first"],
                ),
            ],
        },
        Entity {
            noun: "project",
            plural: "projects",
            who: false,
            keys: &["project", "project_name"],
            naming: Naming::Pair(
                &["Project", "Initiative", "Programme"],
                &[
                    "Aster", "Basalt", "Cirrus", "Dune", "Ember", "Fjord", "Gale", "Heron", "Iris", "Jasper", "Kelp",
                    "Lotus",
                ],
            ),
            rows: (14, 26),
            fields: &[
                number(
                    &["budget", "total_budget"],
                    "budget",
                    (20_000, 480_000, 1_000),
                    Measure::Money("€"),
                    ["with a budget of at least {}", "with a budget of at most {}"],
                    ["the {} with the largest budget", "the {} with the smallest budget"],
                ),
                date(
                    &["deadline", "due"],
                    "deadline",
                    (20_460, 500),
                    ["due on or after {}", "due on or before {}"],
                    ["the {} that is due last", "the {} that is due first"],
                ),
                flag(&["internal", "is_internal"], "whether it is internal", ["run for ourselves", "run for a client"]),
            ],
        },
        Entity {
            noun: "expense claim",
            plural: "expense claims",
            who: false,
            keys: &["claim_id", "claim", "id"],
            naming: Naming::Code("EX"),
            rows: (50, 85),
            fields: &[
                link(&["employee", "claimed_by"], "employee", 1, "handed in by {}"),
                link(&["project", "project_name"], "project", 2, "for {}"),
                choice(&["kind", "type"], "kind", &["travel", "meals", "hotel", "equipment"], "of the kind \"{}\""),
                date(
                    &["handed_in", "submitted_on"],
                    "date",
                    (20_320, 110),
                    ["dated {} or later", "dated {} or earlier"],
                    ["the latest {}", "the earliest {}"],
                ),
                number(
                    &["amount", "sum_claimed"],
                    "amount",
                    (8, 1_900, 1),
                    Measure::Money("€"),
                    ["of at least {}", "of at most {}"],
                    ["the largest {}", "the smallest {}"],
                ),
                status(
                    &["status", "state"],
                    &["submitted", "checked", "paid", "refused"],
                    "with the status {}",
                    ("checked", "paid"),
                    "Release {} for payment (set the status to paid)",
                ),
            ],
        },
    ],
};
