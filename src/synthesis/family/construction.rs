//! Building sites: contractors, sites, workers, deliveries, defects.

use super::{Family, Measure, Naming, choice, date, flag, link, number, people, status, things};

pub(super) const CONSTRUCTION: Family = Family {
    name: "construction",
    settings: &[
        "I supervise several building sites.",
        "I'm the safety officer of a building company.",
        "I do cost control for our building sites.",
    ],
    tables: &[
        things(
            ["contractor", "contractors"],
            &["contractor", "firm", "contractor_name"],
            Naming::Company,
            (12, 18),
            &[
                choice(
                    &["trade", "line_of_work"],
                    "trade",
                    &["roofing", "plumbing", "masonry", "electrics"],
                    "in the trade \"{}\"",
                ),
                number(
                    &["rating", "score"],
                    "rating",
                    (18, 50, 1),
                    Measure::Tenths("point"),
                    ["with a rating of at least {} points", "with a rating of at most {} points"],
                    ["the {} with the highest rating", "the {} with the lowest rating"],
                ),
            ],
        ),
        things(
            ["site", "sites"],
            &["site", "address", "site_address"],
            Naming::Street,
            (12, 20),
            &[
                number(
                    &["floors", "floor_count"],
                    "number of floors",
                    (1, 24, 1),
                    Measure::Sum("floors"),
                    ["with at least {} floors", "with at most {} floors"],
                    ["the {} with the most floors", "the {} with the fewest floors"],
                ),
                number(
                    &["budget", "total_budget"],
                    "budget",
                    (200_000, 9_000_000, 10_000),
                    Measure::Money("€"),
                    ["with a budget of at least {}", "with a budget of at most {}"],
                    ["the {} with the highest budget", "the {} with the lowest budget"],
                ),
                date(
                    &["handover", "handover_date"],
                    "handover date",
                    (20_480, 700),
                    ["with handover on or after {}", "with handover on or before {}"],
                    ["the {} with the latest handover", "the {} with the earliest handover"],
                ),
            ],
        ),
        people(
            ["worker", "workers"],
            &["worker", "worker_name"],
            (28, 44),
            &[
                link(&["contractor", "employed_by"], "contractor", 0, "employed by {}"),
                link(&["site", "works_at"], "site", 1, "working at {}"),
                number(
                    &["wage", "hourly_wage"],
                    "hourly wage",
                    (14, 46, 1),
                    Measure::Money("€"),
                    ["with a hourly wage of at least {}", "with a hourly wage of at most {}"],
                    ["the {} with the highest hourly wage", "the {} with the lowest hourly wage"],
                ),
                flag(
                    &["certified", "has_certificate"],
                    "safety certificate",
                    ["with a safety certificate", "without a safety certificate"],
                ),
            ],
        ),
        things(
            ["delivery", "deliveries"],
            &["delivery_id", "delivery", "id"],
            Naming::Code("DV"),
            (40, 64),
            &[
                link(&["site", "delivered_to"], "site", 1, "to {}"),
                choice(
                    &["material", "goods"],
                    "material",
                    &["concrete", "timber", "steel", "bricks", "glass"],
                    "of {}",
                ),
                number(
                    &["tonnes", "weight_tonnes"],
                    "weight",
                    (5, 280, 1),
                    Measure::Tenths("tonne"),
                    ["weighing at least {} tonnes", "weighing at most {} tonnes"],
                    ["the heaviest {}", "the lightest {}"],
                ),
                number(
                    &["cost", "price"],
                    "cost",
                    (200, 24_000, 50),
                    Measure::Money("€"),
                    ["with a cost of at least {}", "with a cost of at most {}"],
                    ["the {} with the highest cost", "the {} with the lowest cost"],
                ),
                date(
                    &["delivered", "delivered_on"],
                    "delivery date",
                    (20_300, 150),
                    ["delivered on or after {}", "delivered on or before {}"],
                    ["the latest {}", "the earliest {}"],
                )
                .optional(),
            ],
        ),
        things(
            ["defect", "defects"],
            &["defect_id", "defect", "id"],
            Naming::Code("DF"),
            (40, 64),
            &[
                link(&["site", "found_at"], "site", 1, "found at {}"),
                link(&["contractor", "responsible"], "contractor", 0, "that are the fault of {}"),
                number(
                    &["days_open", "days_since_report"],
                    "age",
                    (2, 120, 1),
                    Measure::Sum("days"),
                    ["that are at least {} days old", "that are at most {} days old"],
                    ["the oldest {}", "the newest {}"],
                ),
                status(
                    &["status", "state"],
                    &["reported", "accepted", "repaired"],
                    "that are {}",
                    ("accepted", "repaired"),
                    "Sign off {} (set the status to repaired)",
                ),
            ],
        ),
    ],
};
