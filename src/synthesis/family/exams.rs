//! School exams: schools, pupils, markers, scripts.

use super::{Family, Measure, Naming, choice, date, flag, link, number, people, status, things};

pub(super) const EXAMS: Family = Family {
    name: "exams",
    settings: &[
        "I work for a school exam board.",
        "I'm the statistician of an exam board.",
        "Results day is near and we are checking our records.",
    ],
    tables: &[
        things(
            ["school", "schools"],
            &["school", "school_name"],
            Naming::Pair(
                &["St Anne's", "St Mark's", "Kingsway", "Riverside", "Northgate", "Oakfield"],
                &["School", "College", "Academy"],
            ),
            (12, 18),
            &[
                number(
                    &["pupils", "pupil_count"],
                    "number of pupils",
                    (120, 1_800, 5),
                    Measure::Sum("pupils"),
                    ["with at least {} pupils", "with at most {} pupils"],
                    ["the {} with the most pupils", "the {} with the fewest pupils"],
                ),
                choice(&["type", "school_type"], "type", &["state", "private", "church"], "of the type \"{}\""),
            ],
        ),
        people(
            ["pupil", "pupils"],
            &["pupil", "candidate", "pupil_name"],
            (34, 52),
            &[
                link(&["school", "attends"], "school", 0, "attending {}"),
                number(
                    &["born", "birth_year"],
                    "year of birth",
                    (2_006, 2_011, 1),
                    Measure::Level("year"),
                    ["born in {} or later", "born in {} or earlier"],
                    ["the youngest {}", "the oldest {}"],
                )
                .optional(),
                number(
                    &["subjects", "subject_count"],
                    "number of subjects",
                    (3, 11, 1),
                    Measure::Sum("subjects"),
                    ["with at least {} subjects", "with at most {} subjects"],
                    ["the {} with the most subjects", "the {} with the fewest subjects"],
                ),
                flag(&["extra_time", "gets_extra_time"], "extra time", ["with extra time", "without extra time"]),
            ],
        ),
        people(
            ["marker", "markers"],
            &["marker", "examiner", "marker_name"],
            (10, 16),
            &[
                number(
                    &["fee", "fee_per_script"],
                    "fee",
                    (3, 14, 1),
                    Measure::Money("£"),
                    ["with a fee of at least {}", "with a fee of at most {}"],
                    ["the {} with the highest fee", "the {} with the lowest fee"],
                ),
                choice(&["experience", "seniority"], "experience", &["new", "experienced", "senior"], "counted as {}"),
            ],
        ),
        things(
            ["script", "scripts"],
            &["script_id", "script", "id"],
            Naming::Code("SCR"),
            (64, 100),
            &[
                link(&["pupil", "written_by"], "pupil", 1, "written by {}"),
                link(&["marker", "marked_by"], "marker", 2, "marked by {}"),
                choice(&["subject", "paper"], "subject", &["physics", "history", "French", "geography"], "in {}"),
                number(
                    &["points", "score"],
                    "number of points",
                    (5, 100, 1),
                    Measure::Sum("points"),
                    ["with at least {} points", "with at most {} points"],
                    ["the best {}", "the worst {}"],
                ),
                date(
                    &["day", "exam_date"],
                    "exam date",
                    (20_560, 25),
                    ["written on or after {}", "written on or before {}"],
                    ["the latest {}", "the earliest {}"],
                ),
                status(
                    &["status", "state"],
                    &["marked", "queried", "confirmed"],
                    "that are {}",
                    ("queried", "confirmed"),
                    "Confirm {} (set the status to confirmed)",
                ),
            ],
        ),
    ],
};
