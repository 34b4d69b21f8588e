//! A network of hobby photographers: members, groups, posts, comments.

use super::{Entity, Family, Measure, Naming, choice, date, flag, link, number, status, things};

pub(super) const SOCIAL: Family = Family {
    name: "social",
    settings: &[
        "I moderate a network for hobby photographers.",
        "I write the monthly summary of what happened in our community.",
        "You help the moderators of our online community.",
    ],
    tables: &[
        Entity {
            who: true,
            ..things(
                ["member", "members"],
                &["member", "member_name", "handle"],
                Naming::Handle,
                (26, 42),
                &[
                    choice(&["level", "badge"], "level", &["newcomer", "regular", "veteran"], "with the level \"{}\""),
                    number(
                        &["followers", "follower_count"],
                        "number of followers",
                        (3, 4_800, 1),
                        Measure::Sum("followers"),
                        ["with at least {} followers", "with at most {} followers"],
                        ["the {} with the most followers", "the {} with the fewest followers"],
                    ),
                    date(
                        &["joined", "member_since"],
                        "joining date",
                        (17_800, 2_500),
                        ["who joined on or after {}", "who joined on or before {}"],
                        ["the {} who joined last", "the {} who joined first"],
                    ),
                ],
            )
        },
        things(
            ["group", "groups"],
            &["group", "group_name"],
            Naming::Pair(
                &["Night", "Street", "Macro", "Landscape", "Portrait", "Film"],
                &["Friends", "Collective", "Circle", "Corner"],
            ),
            (12, 18),
            &[
                link(&["founder", "founded_by"], "founder", 0, "founded by {}"),
                choice(
                    &["language", "main_language"],
                    "language",
                    &["English", "German", "Spanish", "Polish"],
                    "in {}",
                ),
                flag(
                    &["open_group", "open_to_all"],
                    "whether it is open to all",
                    ["that are open to all", "that are by invitation only"],
                ),
                number(
                    &["rules", "rule_count"],
                    "number of rules",
                    (2, 20, 1),
                    Measure::Sum("rules"),
                    ["with at least {} rules", "with at most {} rules"],
                    ["the {} with the most rules", "the {} with the fewest rules"],
                ),
            ],
        ),
        things(
            ["post", "posts"],
            &["post_id", "post", "id"],
            Naming::Code("P"),
            (44, 70),
            &[
                link(&["author", "posted_by"], "author", 0, "by {}"),
                link(&["group", "posted_in"], "group", 1, "posted in {}"),
                date(
                    &["posted", "post_date"],
                    "date",
                    (20_200, 240),
                    ["published on or after {}", "published on or before {}"],
                    ["the newest {}", "the oldest {}"],
                ),
                number(
                    &["likes", "like_count"],
                    "number of likes",
                    (0, 900, 1),
                    Measure::Sum("likes"),
                    ["with at least {} likes", "with at most {} likes"],
                    ["the {} with the most likes", "the {} with the fewest likes"],
                ),
                flag(&["pinned", "is_pinned"], "whether it is pinned", ["that are pinned", "that are not pinned"]),
            ],
        ),
        things(
            ["comment", "comments"],
            &["comment_id", "comment", "id"],
            Naming::Code("C"),
            (60, 95),
            &[
                link(&["post", "under_post"], "post", 2, "under {}"),
                link(&["author", "written_by"], "author", 0, "written by {}"),
                number(
                    &["length", "word_count"],
                    "length",
                    (3, 240, 1),
                    Measure::Sum("words"),
                    ["of at least {} words", "of at most {} words"],
                    ["the longest {}", "the shortest {}"],
                ),
                status(
                    &["status", "review_state"],
                    &["visible", "reported", "hidden"],
                    "with the status \"{}\"",
                    ("reported", "hidden"),
                    "Hide {} (set the status to hidden)",
                ),
            ],
        ),
    ],
};
