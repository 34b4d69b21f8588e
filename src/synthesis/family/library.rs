//! A public library: authors, books, members, loans.

use super::{Entity, Family, Measure, Naming, choice, date, flag, link, number, status};

pub(super) const LIBRARY: Family = Family {
    name: "library",
    settings: &[
        "I work at the desk of our town library and need a hand with the catalogue.",
        "I'm the librarian on duty today.",
        "We are preparing the yearly report of the library.",
    ],
    tables: &[
        Entity {
            noun: "author",
            plural: "authors",
            who: true,
            keys: &["author", "author_name", "writer"],
            naming: Naming::Person,
            rows: (14, 24),
            fields: &[
                choice(&["country", "nation"], "country", &["France", "Japan", "Kenya", "Chile", "Norway", "India"], "from {}"),
                number(&["birth_year", "born"], "birth year", (1920, 1995, 1), Measure::Level("year"), ["born in {} or later", "born in {} or earlier"], ["the youngest {}", "the oldest {}"]),
                flag(&["living", "is_alive"], "whether they live", ["who are still alive", "who are no longer alive"]),
            ],
        },
        Entity {
            noun: "book",
            plural: "books",
            who: false,
            keys: &["title", "book", "book_title"],
            naming: Naming::Pair(
                &["The Silent", "A Hidden", "The Last", "Beyond the", "Letters from the", "The Glass", "Winter of the", "Under the", "The Painted", "Songs of the"],
                &["Harbour", "Orchard", "Meridian", "Lighthouse", "Archive", "River", "Cartographer", "Garden", "Station", "Mountain", "Mirror", "Voyage"],
            ),
            rows: (36, 60),
            fields: &[
                link(&["author", "written_by", "author_name"], "author", 0, "by {}"),
                choice(&["genre", "category"], "genre", &["crime", "poetry", "history", "fantasy", "biography", "travel"], "in the genre {}"),
                number(&["pages", "page_count", "length"], "number of pages", (90, 900, 1), Measure::Sum("pages"), ["with at least {} pages", "with at most {} pages"], ["the longest {}", "the shortest {}"]),
                date(&["published", "publication_date"], "publication date", (10_957, 8_000), ["published on or after {}", "published on or before {}"], ["the most recently published {}", "the {} that was published first"]),
                number(&["copies", "stock"], "number of copies", (1, 14, 1), Measure::Sum("copies"), ["with at least {} copies", "with at most {} copies"], ["the {} with the most copies", "the {} with the fewest copies"]),
            ],
        },
        Entity {
            noun: "member",
            plural: "members",
            who: true,
            keys: &["member", "member_name", "reader"],
            naming: Naming::Person,
            rows: (22, 36),
            fields: &[
                choice(&["branch", "home_branch"], "branch", &["Central", "Riverside", "Hilltop", "Harbour"], "of the {} branch"),
                date(&["joined", "member_since"], "joining date", (17_500, 2_400), ["who joined on or after {}", "who joined on or before {}"], ["the newest {}", "the {} of longest standing"]),
                number(&["fines", "fees_due"], "open fines", (0, 60, 1), Measure::Money("$"), ["who owe at least {} in fines", "who owe at most {} in fines"], ["the {} with the highest fines", "the {} with the lowest fines"]),
            ],
        },
        Entity {
            noun: "loan",
            plural: "loans",
            who: false,
            keys: &["loan_id", "loan", "id"],
            naming: Naming::Code("LN"),
            rows: (50, 80),
            fields: &[
                link(&["book", "title", "book_title"], "book", 1, "of {}"),
                link(&["member", "borrower", "reader"], "borrower", 2, "to {}"),
                date(&["due", "due_date", "return_by"], "due date", (20_270, 120), ["due on or after {}", "due on or before {}"], ["the {} that is due last", "the {} that is due first"]),
                status(&["status", "state"], &["open", "overdue", "returned"], "with the status {}", ("overdue", "returned"), "Mark {} as returned"),
                number(&["renewals", "times_renewed"], "number of renewals", (0, 6, 1), Measure::Sum("renewals"), ["renewed at least {} times", "renewed at most {} times"], ["the {} that was renewed most often", "the {} that was renewed least often"]),
            ],
        },
    ],
};
