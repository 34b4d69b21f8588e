//! A theatre: actors, productions, roles, performances.

use super::{Family, Measure, Naming, choice, date, flag, link, number, people, status, things};

pub(super) const THEATRE: Family = Family {
    name: "theatre",
    settings: &[
        "I'm the house manager of a theatre.",
        "I plan the next season of our theatre.",
        "I'm the assistant of a theatre's artistic director.",
    ],
    tables: &[
        people(
            ["actor", "actors"],
            &["actor", "performer", "actor_name"],
            (20, 34),
            &[
                number(
                    &["joined", "ensemble_since"],
                    "year of joining",
                    (1_994, 2_025, 1),
                    Measure::Level("year"),
                    ["who joined the ensemble in {} or later", "who joined the ensemble in {} or earlier"],
                    ["the newest {} in the ensemble", "the longest serving {}"],
                ),
                number(
                    &["daily_pay", "fee"],
                    "daily pay",
                    (90, 680, 10),
                    Measure::Money("£"),
                    ["with a daily pay of at least {}", "with a daily pay of at most {}"],
                    ["the {} with the highest daily pay", "the {} with the lowest daily pay"],
                ),
                flag(&["sings", "can_sing"], "whether they sing", ["who sing", "who do not sing"]),
            ],
        ),
        things(
            ["production", "productions"],
            &["production", "play", "play_title"],
            Naming::Pair(
                &["The Glass", "The Last", "The Crimson", "The Borrowed", "A Silent", "The Paper"],
                &["Orchard", "Widow", "Harbour", "Crown", "Winter", "Witness"],
            ),
            (16, 26),
            &[
                choice(&["genre", "kind"], "genre", &["comedy", "tragedy", "musical", "drama"], "in the genre \"{}\""),
                number(
                    &["minutes", "running_time"],
                    "running time",
                    (60, 210, 5),
                    Measure::Sum("minutes"),
                    ["running for at least {} minutes", "running for at most {} minutes"],
                    ["the longest {}", "the shortest {}"],
                ),
                date(
                    &["premiere", "first_night"],
                    "date of the premiere",
                    (19_700, 800),
                    ["premiered on or after {}", "premiered on or before {}"],
                    ["the newest {}", "the oldest {}"],
                ),
            ],
        ),
        things(
            ["role", "roles"],
            &["role_id", "role", "id"],
            Naming::Code("R"),
            (46, 72),
            &[
                link(&["production", "play"], "production", 1, "in {}"),
                link(&["actor", "played_by"], "actor", 0, "played by {}"),
                number(
                    &["lines", "line_count"],
                    "number of lines",
                    (4, 420, 1),
                    Measure::Sum("lines"),
                    ["with at least {} lines", "with at most {} lines"],
                    ["the {} with the most lines", "the {} with the fewest lines"],
                ),
                choice(&["size", "weight"], "size", &["lead", "supporting", "minor"], "of the size \"{}\""),
            ],
        ),
        things(
            ["performance", "performances"],
            &["performance_id", "performance", "id"],
            Naming::Code("PF"),
            (50, 80),
            &[
                link(&["production", "play"], "production", 1, "of {}"),
                date(
                    &["evening", "performance_date"],
                    "date",
                    (20_380, 200),
                    ["on or after {}", "on or before {}"],
                    ["the latest {}", "the earliest {}"],
                ),
                number(
                    &["tickets_sold", "sold"],
                    "number of sold tickets",
                    (40, 680, 1),
                    Measure::Sum("sold tickets"),
                    ["with at least {} sold tickets", "with at most {} sold tickets"],
                    ["the {} with the most sold tickets", "the {} with the fewest sold tickets"],
                ),
                number(
                    &["press_seats", "reserved_seats"],
                    "number of reserved seats",
                    (0, 30, 1),
                    Measure::Sum("reserved seats"),
                    ["with at least {} reserved seats", "with at most {} reserved seats"],
                    ["the {} with the most reserved seats", "the {} with the fewest reserved seats"],
                )
                .optional(),
                status(
                    &["status", "state"],
                    &["planned", "sold out", "played", "cancelled"],
                    "with the status \"{}\"",
                    ("planned", "cancelled"),
                    "Cancel {} (set the status to cancelled)",
                ),
            ],
        ),
    ],
};
