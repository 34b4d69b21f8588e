//! Chess: players, tournaments, games.

use super::{Family, Measure, Naming, choice, date, link, number, people, status, things};

pub(super) const CHESS: Family = Family {
    name: "chess",
    settings: &[
        "I'm the secretary of a chess federation.",
        "I'm writing the yearbook of our chess federation.",
        "I'm an arbiter and need some facts about recent games.",
    ],
    tables: &[
        people(
            ["player", "players"],
            &["player", "player_name"],
            (26, 42),
            &[
                number(
                    &["elo", "elo_rating"],
                    "Elo rating",
                    (1_200, 2_750, 1),
                    Measure::Level("points"),
                    ["with an Elo rating of at least {}", "with an Elo rating of at most {}"],
                    ["the highest rated {}", "the lowest rated {}"],
                ),
                choice(
                    &["title", "chess_title"],
                    "title",
                    &["candidate master", "master", "international master", "grandmaster"],
                    "with the title \"{}\"",
                ),
                number(
                    &["born", "birth_year"],
                    "year of birth",
                    (1_948, 2_012, 1),
                    Measure::Level("year"),
                    ["born in {} or later", "born in {} or earlier"],
                    ["the youngest {}", "the oldest {}"],
                )
                .optional(),
            ],
        ),
        things(
            ["tournament", "tournaments"],
            &["tournament", "event", "tournament_name"],
            Naming::Pair(
                &["Spring", "Summer", "Autumn", "Winter", "Easter", "Lake"],
                &["Open", "Masters", "Cup", "Memorial", "Championship"],
            ),
            (14, 22),
            &[
                date(
                    &["begins", "start_date"],
                    "first day",
                    (19_800, 640),
                    ["beginning on or after {}", "beginning on or before {}"],
                    ["the latest {}", "the earliest {}"],
                ),
                number(
                    &["prize_fund", "prizes"],
                    "prize fund",
                    (500, 40_000, 500),
                    Measure::Money("€"),
                    ["with a prize fund of at least {}", "with a prize fund of at most {}"],
                    ["the {} with the highest prize fund", "the {} with the lowest prize fund"],
                ),
                choice(&["format", "mode"], "format", &["Swiss", "round robin", "knockout"], "played as a {}"),
            ],
        ),
        things(
            ["game", "games"],
            &["game_id", "game", "id"],
            Naming::Code("G"),
            (80, 130),
            &[
                link(&["tournament", "event"], "tournament", 1, "from {}"),
                link(&["white", "white_player"], "player with White", 0, "with White played by {}"),
                link(&["black", "black_player"], "player with Black", 0, "with Black played by {}"),
                number(
                    &["moves", "move_count"],
                    "number of moves",
                    (12, 110, 1),
                    Measure::Sum("moves"),
                    ["with at least {} moves", "with at most {} moves"],
                    ["the longest {}", "the shortest {}"],
                ),
                choice(
                    &["opening", "opening_name"],
                    "opening",
                    &["Sicilian", "French", "Queen's Gambit", "English", "Caro-Kann"],
                    "that opened with the {}",
                ),
                status(
                    &["result", "state"],
                    &["white won", "black won", "draw", "adjourned"],
                    "with the result \"{}\"",
                    ("adjourned", "draw"),
                    "Record {} as draws (set the result to draw)",
                ),
            ],
        ),
    ],
};
