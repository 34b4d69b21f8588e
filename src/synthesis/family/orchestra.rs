//! An orchestra: sections, musicians, pieces, rehearsals, absences.

use super::{Family, Measure, Naming, choice, date, flag, link, number, people, status, things};

pub(super) const ORCHESTRA: Family = Family {
    name: "orchestra",
    settings: &[
        "I'm the manager of a symphony orchestra.",
        "I'm the orchestra's librarian.",
        "We go on tour soon, and I'm checking who plays what.",
    ],
    tables: &[
        things(
            ["section", "sections"],
            &["section", "section_name"],
            Naming::Listed(&[
                "First Violins",
                "Second Violins",
                "Violas",
                "Cellos",
                "Double Basses",
                "Flutes",
                "Oboes",
                "Clarinets",
                "Bassoons",
                "Horns",
                "Trumpets",
                "Trombones",
                "Percussion",
                "Harps",
            ]),
            (10, 14),
            &[
                number(
                    &["desks", "desk_count"],
                    "number of desks",
                    (2, 9, 1),
                    Measure::Sum("desks"),
                    ["with at least {} desks", "with at most {} desks"],
                    ["the {} with the most desks", "the {} with the fewest desks"],
                ),
                flag(
                    &["string_section", "uses_bows"],
                    "whether it is a string section",
                    ["that play with bows", "that play without bows"],
                ),
            ],
        ),
        people(
            ["musician", "musicians"],
            &["musician", "player", "musician_name"],
            (34, 52),
            &[
                link(&["section", "plays_in"], "section", 0, "in the {}"),
                date(
                    &["hired", "member_since"],
                    "date of hire",
                    (9_000, 11_000),
                    ["hired on or after {}", "hired on or before {}"],
                    ["the most recently hired {}", "the longest serving {}"],
                ),
                number(
                    &["monthly_pay", "salary"],
                    "monthly pay",
                    (2_600, 7_400, 50),
                    Measure::Money("€"),
                    ["with a monthly pay of at least {}", "with a monthly pay of at most {}"],
                    ["the {} with the highest monthly pay", "the {} with the lowest monthly pay"],
                ),
                choice(
                    &["contract", "contract_kind"],
                    "contract",
                    &["permanent", "guest", "trial year"],
                    "with a {} contract",
                ),
            ],
        ),
        things(
            ["piece", "pieces"],
            &["piece", "work_title"],
            Naming::Pair(
                &["Symphony in", "Overture in", "Suite in", "Serenade in", "Concerto in"],
                &["C major", "D minor", "E flat", "F sharp minor", "G major", "A minor"],
            ),
            (20, 28),
            &[
                number(
                    &["minutes", "playing_time"],
                    "playing time",
                    (6, 85, 1),
                    Measure::Sum("minutes"),
                    ["lasting at least {} minutes", "lasting at most {} minutes"],
                    ["the longest {}", "the shortest {}"],
                ),
                number(
                    &["composed", "year_composed"],
                    "year of composition",
                    (1_720, 1_975, 1),
                    Measure::Level("year"),
                    ["composed in {} or later", "composed in {} or earlier"],
                    ["the most recent {}", "the oldest {}"],
                )
                .optional(),
            ],
        ),
        things(
            ["rehearsal", "rehearsals"],
            &["rehearsal_id", "rehearsal", "id"],
            Naming::Code("RH"),
            (26, 40),
            &[
                link(&["piece", "work_title"], "piece", 2, "for the {}"),
                date(
                    &["day", "rehearsal_date"],
                    "date",
                    (20_440, 45),
                    ["on or after {}", "on or before {}"],
                    ["the latest {}", "the earliest {}"],
                ),
                number(
                    &["minutes", "length"],
                    "length",
                    (45, 210, 15),
                    Measure::Sum("minutes"),
                    ["of at least {} minutes", "of at most {} minutes"],
                    ["the longest {}", "the shortest {}"],
                ),
            ],
        ),
        things(
            ["absence", "absences"],
            &["absence_id", "absence", "id"],
            Naming::Code("AB"),
            (36, 56),
            &[
                link(&["musician", "player"], "musician", 1, "of {}"),
                link(&["rehearsal", "missed"], "rehearsal", 3, "from the rehearsal {}"),
                choice(&["reason", "cause"], "reason", &["illness", "travel", "family"], "because of {}"),
                number(
                    &["notice_days", "days_ahead"],
                    "days of notice",
                    (0, 30, 1),
                    Measure::Level("days"),
                    ["announced at least {} days ahead", "announced at most {} days ahead"],
                    ["the {} with the most notice", "the {} with the least notice"],
                ),
                status(
                    &["status", "state"],
                    &["announced", "excused", "unexcused"],
                    "that are {}",
                    ("announced", "excused"),
                    "Excuse {} (set the status to excused)",
                ),
            ],
        ),
    ],
};
