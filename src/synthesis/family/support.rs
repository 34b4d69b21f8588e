//! A help desk: teams, agents, accounts, tickets.

use super::{Entity, Family, Measure, Naming, choice, date, flag, link, number, status};

pub(super) const SUPPORT: Family = Family {
    name: "support",
    settings: &[
        "I lead the help desk of a software company.",
        "I'm cleaning up our ticket queue before the weekend.",
        "I have to report on our support work.",
    ],
    tables: &[
        Entity {
            noun: "team",
            plural: "teams",
            who: false,
            keys: &["team", "group", "team_name"],
            naming: Naming::Pair(
                &["Billing", "Network", "Mobile", "Desktop", "Identity", "Storage", "Payments", "Search"],
                &["Desk", "Crew", "Response", "Care"],
            ),
            rows: (12, 16),
            fields: &[
                choice(&["time_zone", "site"], "site", &["Lisbon", "Toronto", "Manila", "Gdansk"], "in {}"),
                number(
                    &["target", "target_hours"],
                    "target time",
                    (2, 72, 1),
                    Measure::Level("hours"),
                    ["with a target time of at least {} hours", "with a target time of at most {} hours"],
                    ["the {} with the longest target time", "the {} with the shortest target time"],
                ),
            ],
        },
        Entity {
            noun: "agent",
            plural: "agents",
            who: true,
            keys: &["agent", "agent_name", "assignee"],
            naming: Naming::Person,
            rows: (18, 30),
            fields: &[
                link(&["team", "group", "member_of"], "team", 0, "in the team {}"),
                number(
                    &["satisfaction", "rating"],
                    "satisfaction",
                    (25, 50, 1),
                    Measure::Tenths("point"),
                    ["with a satisfaction of at least {}", "with a satisfaction of at most {}"],
                    ["the {} with the highest satisfaction", "the {} with the lowest satisfaction"],
                ),
                number(
                    &["solved", "tickets_solved"],
                    "number of tickets solved",
                    (20, 800, 1),
                    Measure::Sum("tickets"),
                    ["who solved at least {} tickets", "who solved at most {} tickets"],
                    ["the {} who solved most tickets", "the {} who solved fewest tickets"],
                ),
            ],
        },
        Entity {
            noun: "account",
            plural: "accounts",
            who: false,
            keys: &["account", "company", "customer"],
            naming: Naming::Company,
            rows: (22, 36),
            fields: &[
                choice(&["plan", "contract"], "plan", &["free", "team", "business", "enterprise"], "on the {} plan"),
                number(
                    &["seats", "licences"],
                    "number of seats",
                    (3, 900, 1),
                    Measure::Sum("seats"),
                    ["with at least {} seats", "with at most {} seats"],
                    ["the {} with the most seats", "the {} with the fewest seats"],
                ),
                date(
                    &["renewal", "renews_on"],
                    "renewal date",
                    (20_420, 360),
                    ["renewing on or after {}", "renewing on or before {}"],
                    ["the {} that renews last", "the {} that renews first"],
                ),
            ],
        },
        Entity {
            noun: "ticket",
            plural: "tickets",
            who: false,
            keys: &["ticket_id", "ticket", "case"],
            naming: Naming::Code("TK"),
            rows: (50, 90),
            fields: &[
                link(&["agent", "assignee", "handled_by"], "agent", 1, "assigned to {}"),
                link(&["account", "company", "customer"], "account", 2, "from {}"),
                choice(&["priority", "severity"], "priority", &["low", "normal", "high", "urgent"], "of {} priority"),
                date(
                    &["opened", "created_on"],
                    "opening date",
                    (20_300, 110),
                    ["opened on or after {}", "opened on or before {}"],
                    ["the newest {}", "the oldest {}"],
                ),
                number(
                    &["replies", "messages"],
                    "number of replies",
                    (0, 45, 1),
                    Measure::Sum("replies"),
                    ["with at least {} replies", "with at most {} replies"],
                    ["the {} with the most replies", "the {} with the fewest replies"],
                ),
                flag(
                    &["escalated", "is_escalated"],
                    "whether it was escalated",
                    ["with an escalation", "without an escalation"],
                ),
                status(
                    &["status", "state"],
                    &["open", "waiting", "resolved", "closed"],
                    "with the status {}",
                    ("resolved", "closed"),
                    "Close {} (set the status to closed)",
                ),
            ],
        },
    ],
};
