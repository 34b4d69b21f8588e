//! Software: developers, repositories, milestones, issues, reviews.

use super::{Entity, Family, Measure, Naming, choice, date, flag, link, number, status, things};

pub(super) const ISSUES: Family = Family {
    name: "issues",
    settings: &[
        "I'm the release manager of a software team.",
        "I triage the issues of several open-source projects.",
        "I'm new in the team and trying to find my way around our tracker.",
    ],
    tables: &[
        Entity {
            who: true,
            ..things(
                ["developer", "developers"],
                &["developer", "login", "developer_name"],
                Naming::Handle,
                (18, 28),
                &[
                    choice(
                        &["time_zone", "zone"],
                        "time zone",
                        &["UTC", "UTC+2", "UTC+9", "UTC-5"],
                        "in the time zone {}",
                    ),
                    number(
                        &["commits", "commit_count"],
                        "number of commits",
                        (4, 5_200, 1),
                        Measure::Sum("commits"),
                        ["with at least {} commits", "with at most {} commits"],
                        ["the {} with the most commits", "the {} with the fewest commits"],
                    ),
                ],
            )
        },
        things(
            ["repository", "repositories"],
            &["repository", "repo"],
            Naming::Pair(
                &["core-", "web-", "data-", "cloud-", "mini-", "edge-"],
                &["parser", "router", "cache", "sync", "forms", "queue"],
            ),
            (14, 22),
            &[
                choice(
                    &["language", "main_language"],
                    "language",
                    &["Rust", "Go", "Python", "TypeScript"],
                    "written in {}",
                ),
                number(
                    &["stars", "star_count"],
                    "number of stars",
                    (2, 24_000, 2),
                    Measure::Sum("stars"),
                    ["with at least {} stars", "with at most {} stars"],
                    ["the {} with the most stars", "the {} with the fewest stars"],
                ),
                flag(
                    &["archived", "is_archived"],
                    "whether it is archived",
                    ["that are archived", "that are not archived"],
                ),
            ],
        ),
        things(
            ["milestone", "milestones"],
            &["milestone", "milestone_id"],
            Naming::Code("MS"),
            (14, 20),
            &[
                link(&["repository", "repo"], "repository", 1, "of {}"),
                date(
                    &["due", "due_date"],
                    "due date",
                    (20_450, 240),
                    ["due on or after {}", "due on or before {}"],
                    ["the {} that is due last", "the {} that is due first"],
                ),
                number(
                    &["points", "planned_points"],
                    "number of planned points",
                    (8, 140, 1),
                    Measure::Sum("planned points"),
                    ["with at least {} planned points", "with at most {} planned points"],
                    ["the {} with the most planned points", "the {} with the fewest planned points"],
                ),
            ],
        ),
        things(
            ["issue", "issues"],
            &["issue_id", "issue", "id"],
            Naming::Code("ISS"),
            (50, 78),
            &[
                link(&["repository", "repo"], "repository", 1, "in {}"),
                link(&["milestone", "planned_for"], "milestone", 2, "planned for the milestone {}"),
                link(&["assignee", "assigned_to"], "assignee", 0, "assigned to {}"),
                choice(
                    &["kind", "label"],
                    "kind",
                    &["bug", "feature", "documentation", "performance"],
                    "of the kind \"{}\"",
                ),
                date(
                    &["opened", "opened_on"],
                    "opening date",
                    (20_000, 440),
                    ["opened on or after {}", "opened on or before {}"],
                    ["the newest {}", "the oldest {}"],
                ),
                number(
                    &["estimate", "estimated_hours"],
                    "number of estimated hours",
                    (2, 80, 1),
                    Measure::Sum("estimated hours"),
                    ["with at least {} estimated hours", "with at most {} estimated hours"],
                    ["the {} with the most estimated hours", "the {} with the fewest estimated hours"],
                )
                .optional(),
                number(
                    &["votes", "vote_count"],
                    "number of votes",
                    (0, 140, 1),
                    Measure::Sum("votes"),
                    ["with at least {} votes", "with at most {} votes"],
                    ["the {} with the most votes", "the {} with the fewest votes"],
                ),
                status(
                    &["status", "state"],
                    &["open", "in progress", "blocked", "closed"],
                    "with the status \"{}\"",
                    ("blocked", "in progress"),
                    "Unblock {} (set the status to \"in progress\")",
                ),
            ],
        ),
        things(
            ["review", "reviews"],
            &["review_id", "review", "id"],
            Naming::Code("RV"),
            (40, 62),
            &[
                link(&["issue", "about_issue"], "issue", 3, "about {}"),
                link(&["reviewer", "written_by"], "reviewer", 0, "written by {}"),
                number(
                    &["lines", "changed_lines"],
                    "changed lines",
                    (3, 2_200, 1),
                    Measure::Sum("lines"),
                    ["covering at least {} lines", "covering at most {} lines"],
                    ["the longest {}", "the shortest {}"],
                ),
            ],
        ),
    ],
};
