//! A newspaper: desks, journalists, articles, corrections.

use super::{Family, Measure, Naming, choice, date, flag, link, number, people, status, things};

pub(super) const NEWSPAPER: Family = Family {
    name: "newspaper",
    settings: &[
        "I'm the managing editor of a newspaper.",
        "I look after the archive of our newspaper.",
        "I'm the readers' advocate at a daily paper.",
    ],
    tables: &[
        things(
            ["desk", "desks"],
            &["desk", "department", "desk_name"],
            Naming::Listed(&[
                "Politics",
                "Business",
                "Sports",
                "Culture",
                "Science",
                "Local News",
                "World",
                "Opinion",
                "Weekend",
                "Travel",
                "Health",
                "Data",
            ]),
            (9, 12),
            &[
                number(
                    &["budget", "monthly_budget"],
                    "monthly budget",
                    (1_000, 28_000, 100),
                    Measure::Money("€"),
                    ["with a monthly budget of at least {}", "with a monthly budget of at most {}"],
                    ["the {} with the highest monthly budget", "the {} with the lowest monthly budget"],
                ),
                number(
                    &["posts", "staff_posts"],
                    "number of staff posts",
                    (2, 24, 1),
                    Measure::Sum("staff posts"),
                    ["with at least {} staff posts", "with at most {} staff posts"],
                    ["the {} with the most staff posts", "the {} with the fewest staff posts"],
                ),
            ],
        ),
        people(
            ["journalist", "journalists"],
            &["journalist", "author", "journalist_name"],
            (22, 34),
            &[
                link(&["desk", "works_for"], "desk", 0, "on the {} desk"),
                choice(
                    &["contract", "employment"],
                    "contract",
                    &["staff", "freelance", "trainee"],
                    "with a {} contract",
                ),
                date(
                    &["joined", "with_us_since"],
                    "joining date",
                    (12_000, 8_300),
                    ["who joined on or after {}", "who joined on or before {}"],
                    ["the {} who joined last", "the {} who joined first"],
                ),
                number(
                    &["awards", "award_count"],
                    "number of awards",
                    (0, 12, 1),
                    Measure::Sum("awards"),
                    ["with at least {} awards", "with at most {} awards"],
                    ["the {} with the most awards", "the {} with the fewest awards"],
                ),
            ],
        ),
        things(
            ["article", "articles"],
            &["article_id", "article", "id"],
            Naming::Code("ART"),
            (54, 84),
            &[
                link(&["author", "written_by"], "author", 1, "written by {}"),
                number(
                    &["words", "word_count"],
                    "length",
                    (120, 4_200, 10),
                    Measure::Sum("words"),
                    ["of at least {} words", "of at most {} words"],
                    ["the longest {}", "the shortest {}"],
                ),
                date(
                    &["published", "published_on"],
                    "publication date",
                    (20_300, 150),
                    ["published on or after {}", "published on or before {}"],
                    ["the newest {}", "the oldest {}"],
                ),
                choice(&["kind", "format"], "kind", &["report", "interview", "essay", "review"], "of the kind \"{}\""),
                number(
                    &["clicks", "online_readers"],
                    "number of online readers",
                    (200, 90_000, 50),
                    Measure::Sum("online readers"),
                    ["with at least {} online readers", "with at most {} online readers"],
                    ["the {} with the most online readers", "the {} with the fewest online readers"],
                )
                .optional(),
                status(
                    &["status", "state"],
                    &["draft", "edited", "published", "spiked"],
                    "with the status {}",
                    ("edited", "spiked"),
                    "Drop {} (set the status to spiked)",
                ),
            ],
        ),
        things(
            ["correction", "corrections"],
            &["correction_id", "correction", "id"],
            Naming::Code("CR"),
            (34, 52),
            &[
                link(&["article", "about_article"], "article", 2, "to the article {}"),
                link(&["requested_by", "noticed_by"], "journalist", 1, "requested by {}"),
                number(
                    &["days", "days_after"],
                    "days after publication",
                    (1, 60, 1),
                    Measure::Level("days"),
                    ["printed at least {} days after publication", "printed at most {} days after publication"],
                    ["the slowest {}", "the fastest {}"],
                ),
                flag(
                    &["online_only", "only_online"],
                    "whether it is online only",
                    ["that appeared online only", "that appeared in print"],
                ),
            ],
        ),
    ],
};
