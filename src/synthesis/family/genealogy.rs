//! A family's papers: towns, ancestors, marriages, letters.

use super::{Family, Measure, Naming, choice, date, link, number, people, status, things};

pub(super) const GENEALOGY: Family = Family {
    name: "genealogy",
    settings: &[
        "I research the history of our family.",
        "I volunteer at a genealogical society.",
        "My cousin and I are writing a book about our ancestors.",
    ],
    tables: &[
        things(
            ["town", "towns"],
            &["town", "parish", "town_name"],
            Naming::Place,
            (12, 18),
            &[
                choice(&["country", "land"], "country", &["Bohemia", "Galicia", "Saxony", "Tyrol"], "in {}"),
                number(
                    &["church_books", "book_count"],
                    "number of church books",
                    (2, 40, 1),
                    Measure::Sum("church books"),
                    ["with at least {} church books", "with at most {} church books"],
                    ["the {} with the most church books", "the {} with the fewest church books"],
                ),
            ],
        ),
        people(
            ["ancestor", "ancestors"],
            &["ancestor", "person", "full_name"],
            (40, 60),
            &[
                link(&["birthplace", "born_in"], "birthplace", 0, "born in {}"),
                date(
                    &["born", "date_of_birth"],
                    "date of birth",
                    (-62_000, 40_000),
                    ["born on or after {}", "born on or before {}"],
                    ["the {} who was born last", "the {} who was born first"],
                ),
                choice(
                    &["trade", "occupation"],
                    "trade",
                    &["miller", "weaver", "farmer", "teacher", "smith"],
                    "working as a {}",
                ),
                number(
                    &["children", "child_count"],
                    "number of children",
                    (0, 12, 1),
                    Measure::Sum("children"),
                    ["with at least {} children", "with at most {} children"],
                    ["the {} with the most children", "the {} with the fewest children"],
                ),
                number(
                    &["died_aged", "age_at_death"],
                    "age at death",
                    (1, 98, 1),
                    Measure::Level("years"),
                    ["who lived to be at least {}", "who lived to be at most {}"],
                    ["the {} who lived longest", "the {} who died youngest"],
                )
                .optional(),
            ],
        ),
        things(
            ["marriage", "marriages"],
            &["marriage_id", "marriage", "id"],
            Naming::Code("MA"),
            (26, 40),
            &[
                link(&["husband", "groom"], "husband", 1, "with {} as the husband"),
                link(&["wife", "bride"], "wife", 1, "with {} as the wife"),
                link(&["place", "married_in"], "place", 0, "held in {}"),
                date(
                    &["day", "wedding_day"],
                    "date",
                    (-50_000, 40_000),
                    ["from {} or later", "from {} or earlier"],
                    ["the latest {}", "the earliest {}"],
                ),
                number(
                    &["witnesses", "witness_count"],
                    "number of witnesses",
                    (2, 8, 1),
                    Measure::Sum("witnesses"),
                    ["with at least {} witnesses", "with at most {} witnesses"],
                    ["the {} with the most witnesses", "the {} with the fewest witnesses"],
                ),
            ],
        ),
        things(
            ["letter", "letters"],
            &["letter_id", "letter", "id"],
            Naming::Code("LE"),
            (46, 72),
            &[
                link(&["writer", "written_by"], "writer", 1, "written by {}"),
                link(&["sent_from", "posted_in"], "place of posting", 0, "posted in {}"),
                number(
                    &["pages", "page_count"],
                    "number of pages",
                    (2, 16, 1),
                    Measure::Sum("pages"),
                    ["with at least {} pages", "with at most {} pages"],
                    ["the {} with the most pages", "the {} with the fewest pages"],
                ),
                status(
                    &["status", "reading_state"],
                    &["scanned", "read", "unreadable"],
                    "with the status {}",
                    ("scanned", "read"),
                    "Mark {} as read (set the status to read)",
                ),
            ],
        ),
    ],
};
