//! A bank: branches, customers, accounts, transfers.

use super::{Family, Measure, Naming, choice, date, flag, link, number, people, status, things};

pub(super) const BANK: Family = Family {
    name: "bank",
    settings: &[
        "I work in the back office of a savings bank.",
        "I'm preparing the branch report for our regional manager.",
        "An auditor is visiting our bank tomorrow.",
    ],
    tables: &[
        things(
            ["branch", "branches"],
            &["branch", "branch_name"],
            Naming::Place,
            (12, 16),
            &[
                number(
                    &["staff", "employee_count"],
                    "number of employees",
                    (3, 40, 1),
                    Measure::Sum("employees"),
                    ["with at least {} employees", "with at most {} employees"],
                    ["the {} with the most employees", "the {} with the fewest employees"],
                ),
                flag(
                    &["safe_boxes", "has_safe_boxes"],
                    "safe deposit boxes",
                    ["with safe deposit boxes", "without safe deposit boxes"],
                ),
            ],
        ),
        people(
            ["customer", "customers"],
            &["customer", "customer_name", "client"],
            (24, 40),
            &[
                link(&["branch", "home_branch"], "branch", 0, "of the branch {}"),
                choice(
                    &["segment", "customer_type"],
                    "segment",
                    &["private", "student", "business"],
                    "from the {} segment",
                ),
                number(
                    &["income", "monthly_income"],
                    "monthly income",
                    (800, 9_000, 50),
                    Measure::Money("€"),
                    ["earning at least {} a month", "earning at most {} a month"],
                    ["the {} with the highest income", "the {} with the lowest income"],
                )
                .optional(),
            ],
        ),
        things(
            ["account", "accounts"],
            &["account", "account_number"],
            Naming::Digits,
            (40, 62),
            &[
                link(&["holder", "owned_by"], "holder", 1, "held by {}"),
                choice(&["kind", "account_type"], "kind", &["current", "savings", "deposit"], "of the kind \"{}\""),
                number(
                    &["balance", "current_balance"],
                    "balance",
                    (0, 48_000, 10),
                    Measure::Money("€"),
                    ["with a balance of at least {}", "with a balance of at most {}"],
                    ["the {} with the highest balance", "the {} with the lowest balance"],
                ),
                date(
                    &["opened", "opened_on"],
                    "opening date",
                    (15_000, 5_300),
                    ["opened on or after {}", "opened on or before {}"],
                    ["the most recently opened {}", "the oldest {}"],
                ),
            ],
        ),
        things(
            ["transfer", "transfers"],
            &["transfer_id", "transfer", "id"],
            Naming::Code("TR"),
            (56, 90),
            &[
                link(&["from_account", "sender"], "sending account", 2, "sent from the account {}"),
                link(&["to_account", "receiver"], "receiving account", 2, "sent to the account {}"),
                number(
                    &["amount", "value"],
                    "amount",
                    (5, 6_200, 5),
                    Measure::Money("€"),
                    ["of at least {}", "of at most {}"],
                    ["the largest {}", "the smallest {}"],
                ),
                date(
                    &["booked", "booking_date"],
                    "booking date",
                    (20_380, 90),
                    ["booked on or after {}", "booked on or before {}"],
                    ["the latest {}", "the earliest {}"],
                ),
                status(
                    &["status", "state"],
                    &["pending", "booked", "rejected"],
                    "with the status {}",
                    ("pending", "rejected"),
                    "Reject {} (set the status to rejected)",
                ),
            ],
        ),
    ],
};
