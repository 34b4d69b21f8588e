//! Cinemas: cinemas, halls, films, screenings.

use super::{Family, Measure, Naming, choice, date, flag, link, number, status, things};

pub(super) const CINEMA: Family = Family {
    name: "cinema",
    settings: &[
        "I run the programme of a chain of small cinemas.",
        "I'm a film distributor's contact at the cinemas.",
        "I'm putting together this month's cinema report.",
    ],
    tables: &[
        things(
            ["cinema", "cinemas"],
            &["cinema", "cinema_name"],
            Naming::Pair(
                &["Royal", "Astoria", "Lux", "Odeon", "Palace", "Capitol"],
                &["North", "South", "Central", "Riverside", "Old Town"],
            ),
            (10, 16),
            &[
                number(
                    &["popcorn_price", "popcorn"],
                    "popcorn price",
                    (3, 9, 1),
                    Measure::Money("$"),
                    ["with a popcorn price of at least {}", "with a popcorn price of at most {}"],
                    ["the {} with the highest popcorn price", "the {} with the lowest popcorn price"],
                ),
                flag(&["bar", "has_bar"], "bar", ["with a bar", "without a bar"]),
            ],
        ),
        things(
            ["hall", "halls"],
            &["hall", "hall_code"],
            Naming::Code("HALL"),
            (22, 34),
            &[
                link(&["cinema", "located_in"], "cinema", 0, "at the cinema {}"),
                number(
                    &["seats", "capacity"],
                    "number of seats",
                    (40, 420, 5),
                    Measure::Sum("seats"),
                    ["with at least {} seats", "with at most {} seats"],
                    ["the {} with the most seats", "the {} with the fewest seats"],
                ),
                choice(&["sound", "sound_system"], "sound system", &["stereo", "surround", "spatial"], "with {} sound"),
            ],
        ),
        things(
            ["film", "films"],
            &["film", "film_title", "movie"],
            Naming::Pair(
                &["Midnight", "Borrowed", "Golden", "Broken", "Electric", "Distant"],
                &["Compass", "Summer", "Avenue", "Machine", "Garden", "Letters", "Horizon"],
            ),
            (24, 36),
            &[
                choice(
                    &["genre", "kind"],
                    "genre",
                    &["comedy", "thriller", "documentary", "animation"],
                    "in the genre \"{}\"",
                ),
                number(
                    &["minutes", "running_time"],
                    "running time",
                    (70, 190, 1),
                    Measure::Sum("minutes"),
                    ["running for at least {} minutes", "running for at most {} minutes"],
                    ["the longest {}", "the shortest {}"],
                ),
                number(
                    &["critics", "critics_score"],
                    "critics' score",
                    (12, 96, 1),
                    Measure::Tenths("point"),
                    ["with a critics' score of at least {} points", "with a critics' score of at most {} points"],
                    ["the {} with the highest critics' score", "the {} with the lowest critics' score"],
                )
                .optional(),
                date(
                    &["released", "release_date"],
                    "release date",
                    (20_000, 440),
                    ["released on or after {}", "released on or before {}"],
                    ["the newest {}", "the oldest {}"],
                ),
            ],
        ),
        things(
            ["screening", "screenings"],
            &["screening_id", "screening", "id"],
            Naming::Code("SC"),
            (60, 100),
            &[
                link(&["film", "movie"], "film", 2, "of {}"),
                link(&["hall", "shown_in"], "hall", 1, "in {}"),
                date(
                    &["day", "screening_date"],
                    "date",
                    (20_440, 30),
                    ["on or after {}", "on or before {}"],
                    ["the latest {}", "the earliest {}"],
                ),
                number(
                    &["tickets", "tickets_sold"],
                    "number of sold tickets",
                    (0, 300, 1),
                    Measure::Sum("sold tickets"),
                    ["with at least {} sold tickets", "with at most {} sold tickets"],
                    ["the {} with the most sold tickets", "the {} with the fewest sold tickets"],
                ),
                number(
                    &["ticket_price", "price"],
                    "ticket price",
                    (6, 18, 1),
                    Measure::Money("$"),
                    ["with a ticket price of at least {}", "with a ticket price of at most {}"],
                    ["the {} with the highest ticket price", "the {} with the lowest ticket price"],
                ),
                status(
                    &["status", "state"],
                    &["open", "sold out", "dropped"],
                    "with the status \"{}\"",
                    ("open", "dropped"),
                    "Take {} off the programme (set the status to dropped)",
                ),
            ],
        ),
    ],
};
