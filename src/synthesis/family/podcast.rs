//! A podcast studio: shows, guests, sponsors, episodes, advertisements.

use super::{Family, Measure, Naming, choice, date, link, number, people, status, things};

pub(super) const PODCAST: Family = Family {
    name: "podcast",
    settings: &[
        "I produce podcasts at a small studio.",
        "I'm drawing up the yearly numbers of our podcasts.",
        "I sell advertising for a podcast studio.",
    ],
    tables: &[
        things(
            ["show", "shows"],
            &["show", "podcast", "show_name"],
            Naming::Pair(
                &["Late", "Open", "Quiet", "Paper", "Second", "Curious"],
                &["Frequencies", "Questions", "Margins", "Signals", "Chapters"],
            ),
            (12, 18),
            &[
                choice(&["genre", "topic"], "genre", &["history", "science", "crime", "culture"], "in the {} genre"),
                number(
                    &["subscribers", "subscriber_count"],
                    "number of subscribers",
                    (400, 88_000, 100),
                    Measure::Sum("subscribers"),
                    ["with at least {} subscribers", "with at most {} subscribers"],
                    ["the {} with the most subscribers", "the {} with the fewest subscribers"],
                ),
            ],
        ),
        people(
            ["guest", "guests"],
            &["guest", "guest_name"],
            (18, 30),
            &[
                choice(
                    &["field", "profession"],
                    "field",
                    &["journalism", "medicine", "politics", "music"],
                    "working in {}",
                ),
                number(
                    &["followers", "follower_count"],
                    "number of followers",
                    (100, 60_000, 100),
                    Measure::Sum("followers"),
                    ["with at least {} followers", "with at most {} followers"],
                    ["the {} with the most followers", "the {} with the fewest followers"],
                )
                .optional(),
            ],
        ),
        things(
            ["sponsor", "sponsors"],
            &["sponsor", "sponsor_name"],
            Naming::Company,
            (12, 18),
            &[
                number(
                    &["budget", "yearly_budget"],
                    "yearly budget",
                    (2_000, 60_000, 500),
                    Measure::Money("$"),
                    ["with a yearly budget of at least {}", "with a yearly budget of at most {}"],
                    ["the {} with the highest yearly budget", "the {} with the lowest yearly budget"],
                ),
                date(
                    &["contract_until", "contract_end"],
                    "end of the contract",
                    (20_460, 600),
                    ["under contract until {} or longer", "under contract until {} at the latest"],
                    ["the {} whose contract ends last", "the {} whose contract ends first"],
                ),
            ],
        ),
        things(
            ["episode", "episodes"],
            &["episode_id", "episode", "id"],
            Naming::Code("EP"),
            (46, 72),
            &[
                link(&["show", "podcast"], "show", 0, "of {}"),
                link(&["guest", "guest_name"], "guest", 1, "featuring {}"),
                date(
                    &["published", "release_date"],
                    "release date",
                    (19_900, 520),
                    ["released on or after {}", "released on or before {}"],
                    ["the newest {}", "the oldest {}"],
                ),
                number(
                    &["minutes", "duration"],
                    "running time",
                    (12, 140, 1),
                    Measure::Sum("minutes"),
                    ["running for at least {} minutes", "running for at most {} minutes"],
                    ["the longest {}", "the shortest {}"],
                ),
                number(
                    &["downloads", "download_count"],
                    "number of downloads",
                    (200, 45_000, 50),
                    Measure::Sum("downloads"),
                    ["with at least {} downloads", "with at most {} downloads"],
                    ["the {} with the most downloads", "the {} with the fewest downloads"],
                ),
                status(
                    &["status", "state"],
                    &["published", "in editing", "withdrawn"],
                    "with the status \"{}\"",
                    ("in editing", "published"),
                    "Publish {} (set the status to published)",
                ),
            ],
        ),
        things(
            ["advertisement", "advertisements"],
            &["ad_id", "ad", "id"],
            Naming::Code("AD"),
            (40, 64),
            &[
                link(&["episode", "aired_in"], "episode", 3, "aired in {}"),
                link(&["sponsor", "paid_by"], "sponsor", 2, "paid for by {}"),
                number(
                    &["seconds", "length"],
                    "length",
                    (10, 120, 5),
                    Measure::Sum("seconds"),
                    ["of at least {} seconds", "of at most {} seconds"],
                    ["the longest {}", "the shortest {}"],
                ),
                number(
                    &["price", "cost"],
                    "price",
                    (50, 2_400, 10),
                    Measure::Money("$"),
                    ["with a price of at least {}", "with a price of at most {}"],
                    ["the {} with the highest price", "the {} with the lowest price"],
                ),
            ],
        ),
    ],
};
