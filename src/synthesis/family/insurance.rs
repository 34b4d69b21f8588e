//! An insurer: policyholders, adjusters, policies, claims.

use super::{Family, Measure, Naming, choice, date, link, number, people, status, things};

pub(super) const INSURANCE: Family = Family {
    name: "insurance",
    settings: &[
        "I work in the claims department of an insurer.",
        "I check our claims for signs of fraud.",
        "I'm getting ready for a talk with our reinsurer.",
    ],
    tables: &[
        people(
            ["policyholder", "policyholders"],
            &["policyholder", "insured", "holder_name"],
            (26, 40),
            &[
                choice(&["town", "home_town"], "town", &["Leeds", "Bristol", "Cardiff", "Derby", "Exeter"], "from {}"),
                number(
                    &["born", "birth_year"],
                    "year of birth",
                    (1_938, 2_004, 1),
                    Measure::Level("year"),
                    ["born in {} or later", "born in {} or earlier"],
                    ["the youngest {}", "the oldest {}"],
                )
                .optional(),
                number(
                    &["claim_free", "claim_free_years"],
                    "number of claim-free years",
                    (0, 30, 1),
                    Measure::Sum("claim-free years"),
                    ["with at least {} claim-free years", "with at most {} claim-free years"],
                    ["the {} with the most claim-free years", "the {} with the fewest claim-free years"],
                ),
            ],
        ),
        people(
            ["adjuster", "adjusters"],
            &["adjuster", "adjuster_name"],
            (10, 16),
            &[
                choice(
                    &["specialty", "focus"],
                    "specialty",
                    &["fire", "water", "vehicles", "liability"],
                    "specialised in {}",
                ),
                number(
                    &["limit", "claim_limit"],
                    "signing limit",
                    (1_000, 50_000, 500),
                    Measure::Money("£"),
                    ["allowed to sign for at least {}", "allowed to sign for at most {}"],
                    ["the {} with the highest signing limit", "the {} with the lowest signing limit"],
                ),
            ],
        ),
        things(
            ["policy", "policies"],
            &["policy", "policy_number"],
            Naming::Code("POL"),
            (36, 54),
            &[
                link(&["holder", "insured_person"], "policyholder", 0, "taken out by {}"),
                choice(&["kind", "cover"], "kind", &["home", "car", "travel", "legal"], "for {} cover"),
                number(
                    &["premium", "yearly_premium"],
                    "premium",
                    (60, 1_800, 10),
                    Measure::Money("£"),
                    ["with a premium of at least {}", "with a premium of at most {}"],
                    ["the {} with the highest premium", "the {} with the lowest premium"],
                ),
                date(
                    &["begins", "start_date"],
                    "first day",
                    (17_500, 2_900),
                    ["beginning on or after {}", "beginning on or before {}"],
                    ["the newest {}", "the oldest {}"],
                ),
            ],
        ),
        things(
            ["claim", "claims"],
            &["claim_id", "claim", "id"],
            Naming::Code("CL"),
            (50, 80),
            &[
                link(&["policy", "policy_number"], "policy", 2, "under the policy {}"),
                link(&["adjuster", "handled_by"], "adjuster", 1, "handled by {}"),
                number(
                    &["amount", "claimed_sum"],
                    "claimed sum",
                    (80, 38_000, 20),
                    Measure::Money("£"),
                    ["for at least {}", "for at most {}"],
                    ["the largest {}", "the smallest {}"],
                ),
                date(
                    &["reported", "report_date"],
                    "date of the report",
                    (20_300, 150),
                    ["reported on or after {}", "reported on or before {}"],
                    ["the most recent {}", "the oldest {}"],
                ),
                status(
                    &["status", "state"],
                    &["reported", "in review", "paid", "refused"],
                    "with the status \"{}\"",
                    ("in review", "refused"),
                    "Refuse {} (set the status to refused)",
                ),
            ],
        ),
    ],
};
