//! A call centre: teams, agents, callers, calls.

use super::{Family, Measure, Naming, choice, date, flag, link, number, people, status, things};

pub(super) const CALLCENTRE: Family = Family {
    name: "callcentre",
    settings: &[
        "I'm a supervisor in a call centre.",
        "I do quality checks on our calls.",
        "I plan next month's shifts for the call centre.",
    ],
    tables: &[
        things(
            ["team", "teams"],
            &["team", "team_name"],
            Naming::Listed(&[
                "Amber Team",
                "Blue Team",
                "Coral Team",
                "Delta Team",
                "Evening Team",
                "Green Team",
                "Night Team",
                "Orange Team",
                "Ruby Team",
                "Silver Team",
                "Violet Team",
                "White Team",
            ]),
            (8, 12),
            &[
                choice(
                    &["product_line", "topic"],
                    "topic",
                    &["billing", "internet", "mobile", "contracts"],
                    "answering questions about {}",
                ),
                number(
                    &["target_calls", "daily_target"],
                    "number of target calls a day",
                    (20, 90, 1),
                    Measure::Sum("target calls a day"),
                    ["with at least {} target calls a day", "with at most {} target calls a day"],
                    ["the {} with the most target calls a day", "the {} with the fewest target calls a day"],
                ),
            ],
        ),
        people(
            ["agent", "agents"],
            &["agent", "agent_name"],
            (24, 38),
            &[
                link(&["team", "works_in"], "team", 0, "in the {}"),
                number(
                    &["seniority", "months_employed"],
                    "months with us",
                    (2, 140, 1),
                    Measure::Level("months"),
                    ["with us for at least {} months", "with us for at most {} months"],
                    ["the longest serving {}", "the newest {}"],
                ),
                number(
                    &["satisfaction", "score"],
                    "satisfaction score",
                    (20, 50, 1),
                    Measure::Tenths("point"),
                    [
                        "with a satisfaction score of at least {} points",
                        "with a satisfaction score of at most {} points",
                    ],
                    ["the {} with the highest satisfaction score", "the {} with the lowest satisfaction score"],
                ),
                flag(
                    &["night_shifts", "does_nights"],
                    "night shifts",
                    ["who work night shifts", "who work no night shifts"],
                ),
            ],
        ),
        people(
            ["caller", "callers"],
            &["caller", "customer", "caller_name"],
            (26, 40),
            &[
                choice(
                    &["contract", "contract_kind"],
                    "contract",
                    &["prepaid", "monthly", "business"],
                    "with a {} contract",
                ),
                number(
                    &["open_bills", "unpaid_bills"],
                    "number of open bills",
                    (0, 12, 1),
                    Measure::Sum("open bills"),
                    ["with at least {} open bills", "with at most {} open bills"],
                    ["the {} with the most open bills", "the {} with the fewest open bills"],
                )
                .optional(),
            ],
        ),
        things(
            ["call", "calls"],
            &["call_id", "call", "id"],
            Naming::Code("CA"),
            (64, 100),
            &[
                link(&["agent", "taken_by"], "agent", 1, "taken by {}"),
                link(&["caller", "made_by"], "caller", 2, "made by {}"),
                number(
                    &["seconds", "duration"],
                    "duration",
                    (20, 3_600, 10),
                    Measure::Sum("seconds"),
                    ["lasting at least {} seconds", "lasting at most {} seconds"],
                    ["the longest {}", "the shortest {}"],
                ),
                number(
                    &["waiting", "seconds_waiting"],
                    "waiting time",
                    (0, 900, 5),
                    Measure::Sum("seconds"),
                    ["that waited for at least {} seconds", "that waited for at most {} seconds"],
                    ["the {} with the longest waiting time", "the {} with the shortest waiting time"],
                ),
                date(
                    &["day", "call_date"],
                    "date",
                    (20_440, 21),
                    ["on or after {}", "on or before {}"],
                    ["the latest {}", "the earliest {}"],
                ),
                status(
                    &["status", "outcome"],
                    &["solved", "forwarded", "to call back"],
                    "with the status \"{}\"",
                    ("to call back", "solved"),
                    "Mark {} as solved (set the status to solved)",
                ),
            ],
        ),
    ],
};
