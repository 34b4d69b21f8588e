//! A hackathon: mentors, teams, participants, submissions, score sheets.

use super::{Family, Measure, Naming, choice, flag, link, number, people, status, things};

pub(super) const HACKATHON: Family = Family {
    name: "hackathon",
    settings: &[
        "I'm organising a hackathon.",
        "I'm on the jury of a hackathon.",
        "I write about the hackathon for our website.",
    ],
    tables: &[
        people(
            ["mentor", "mentors"],
            &["mentor", "coach", "mentor_name"],
            (10, 16),
            &[
                choice(
                    &["expertise", "field"],
                    "expertise",
                    &["design", "robotics", "machine learning", "business"],
                    "with expertise in {}",
                ),
                number(
                    &["hours", "hours_available"],
                    "number of available hours",
                    (2, 24, 1),
                    Measure::Sum("available hours"),
                    ["with at least {} available hours", "with at most {} available hours"],
                    ["the {} with the most available hours", "the {} with the fewest available hours"],
                ),
            ],
        ),
        things(
            ["team", "teams"],
            &["team", "team_name"],
            Naming::Pair(
                &["Binary", "Null", "Turbo", "Quantum", "Caffeine", "Midnight", "Rubber"],
                &["Bandits", "Ducks", "Pointers", "Llamas", "Wizards"],
            ),
            (20, 30),
            &[
                link(&["mentor", "guided_by"], "mentor", 0, "guided by {}"),
                choice(
                    &["challenge", "topic"],
                    "challenge",
                    &["mobility", "health", "climate", "education"],
                    "working on the {} challenge",
                ),
                number(
                    &["desk", "table_number"],
                    "table number",
                    (2, 60, 1),
                    Measure::Level("number"),
                    ["sitting at table {} or a higher one", "sitting at table {} or a lower one"],
                    ["the {} with the highest table number", "the {} with the lowest table number"],
                ),
            ],
        ),
        people(
            ["participant", "participants"],
            &["participant", "hacker", "participant_name"],
            (44, 64),
            &[
                link(&["team", "member_of"], "team", 1, "in the team {}"),
                number(
                    &["age", "age_years"],
                    "age",
                    (16, 44, 1),
                    Measure::Level("years"),
                    ["aged {} or more", "aged {} or less"],
                    ["the oldest {}", "the youngest {}"],
                )
                .optional(),
                number(
                    &["hackathons", "earlier_hackathons"],
                    "number of earlier hackathons",
                    (0, 15, 1),
                    Measure::Sum("earlier hackathons"),
                    ["with at least {} earlier hackathons", "with at most {} earlier hackathons"],
                    ["the {} with the most earlier hackathons", "the {} with the fewest earlier hackathons"],
                ),
                flag(
                    &["vegetarian", "is_vegetarian"],
                    "whether they are vegetarian",
                    ["who eat vegetarian food", "who eat everything"],
                ),
            ],
        ),
        things(
            ["submission", "submissions"],
            &["submission", "commit"],
            Naming::Hex,
            (26, 40),
            &[
                link(&["team", "handed_in_by"], "team", 1, "handed in by the team {}"),
                number(
                    &["lines", "lines_of_code"],
                    "lines of code",
                    (60, 9_000, 10),
                    Measure::Sum("lines"),
                    ["with at least {} lines of code", "with at most {} lines of code"],
                    ["the longest {}", "the shortest {}"],
                ),
                status(
                    &["status", "state"],
                    &["received", "accepted", "disqualified"],
                    "that are {}",
                    ("received", "accepted"),
                    "Accept {} (set the status to accepted)",
                ),
            ],
        ),
        things(
            ["score sheet", "score sheets"],
            &["sheet_id", "sheet", "id"],
            Naming::Code("SS"),
            (50, 76),
            &[
                link(&["submission", "about_submission"], "submission", 3, "for the submission {}"),
                choice(
                    &["category", "criterion"],
                    "category",
                    &["idea", "code", "presentation"],
                    "in the category \"{}\"",
                ),
                number(
                    &["points", "score"],
                    "number of points",
                    (2, 50, 1),
                    Measure::Sum("points"),
                    ["with at least {} points", "with at most {} points"],
                    ["the best {}", "the worst {}"],
                ),
            ],
        ),
    ],
};
