//! A town's festival: organisers, sponsors, stages, bands, concerts, food stands, helper shifts.

use super::{Family, Measure, Naming, choice, date, flag, link, number, people, status, things};

pub(super) const EVENTS: Family = Family {
    name: "events",
    settings: &[
        "I'm on the committee of our town's summer festival.",
        "I coordinate the helpers of a festival.",
        "I'm closing the accounts of our festival.",
    ],
    tables: &[
        people(
            ["organiser", "organisers"],
            &["organiser", "contact", "organiser_name"],
            (8, 12),
            &[
                choice(
                    &["duty", "responsibility"],
                    "duty",
                    &["music", "food", "safety", "finance"],
                    "responsible for {}",
                ),
                number(
                    &["evenings", "evenings_worked"],
                    "number of evening shifts",
                    (3, 60, 1),
                    Measure::Sum("evening shifts"),
                    ["with at least {} evening shifts", "with at most {} evening shifts"],
                    ["the {} with the most evening shifts", "the {} with the fewest evening shifts"],
                ),
            ],
        ),
        things(
            ["sponsor", "sponsors"],
            &["sponsor", "sponsor_name"],
            Naming::Company,
            (10, 16),
            &[
                link(&["organiser", "looked_after_by"], "organiser", 0, "looked after by {}"),
                number(
                    &["amount", "sponsorship"],
                    "sponsorship",
                    (250, 20_000, 250),
                    Measure::Money("€"),
                    ["with a sponsorship of at least {}", "with a sponsorship of at most {}"],
                    ["the {} with the highest sponsorship", "the {} with the lowest sponsorship"],
                ),
                flag(&["banner", "gets_banner"], "banner", ["with a banner", "without a banner"]),
            ],
        ),
        things(
            ["stage", "stages"],
            &["stage", "stage_name"],
            Naming::Listed(&[
                "Main Stage",
                "Park Stage",
                "River Stage",
                "Club Tent",
                "Jazz Cellar",
                "Courtyard",
                "Church Steps",
                "Market Square",
            ]),
            (6, 8),
            &[
                number(
                    &["audience", "max_audience"],
                    "number of places for the audience",
                    (80, 6_000, 20),
                    Measure::Sum("places for the audience"),
                    ["with at least {} places for the audience", "with at most {} places for the audience"],
                    ["the {} with the most places for the audience", "the {} with the fewest places for the audience"],
                ),
                choice(
                    &["power_supply", "power"],
                    "power supply",
                    &["mains", "generator", "battery"],
                    "running on a {} supply",
                ),
            ],
        ),
        things(
            ["band", "bands"],
            &["band", "act", "band_name"],
            Naming::Pair(
                &["The Lost", "The Velvet", "Electric", "Paper", "Midnight", "The Northern"],
                &["Foxes", "Harmonies", "Brothers", "Radios", "Swimmers", "Parade"],
            ),
            (22, 32),
            &[
                choice(&["style", "genre"], "style", &["folk", "jazz", "rock", "electronic"], "playing {}"),
                number(
                    &["fee", "band_fee"],
                    "fee",
                    (150, 9_000, 50),
                    Measure::Money("€"),
                    ["with a fee of at least {}", "with a fee of at most {}"],
                    ["the {} with the highest fee", "the {} with the lowest fee"],
                ),
                number(
                    &["members", "musicians"],
                    "number of musicians",
                    (2, 11, 1),
                    Measure::Sum("musicians"),
                    ["with at least {} musicians", "with at most {} musicians"],
                    ["the {} with the most musicians", "the {} with the fewest musicians"],
                ),
            ],
        ),
        things(
            ["concert", "concerts"],
            &["concert_id", "concert", "id"],
            Naming::Code("CO"),
            (36, 52),
            &[
                link(&["band", "act"], "band", 3, "by {}"),
                link(&["stage", "held_on"], "stage", 2, "on the stage \"{}\""),
                date(
                    &["day", "concert_day"],
                    "day",
                    (20_640, 5),
                    ["on {} or later", "on {} or earlier"],
                    ["the latest {}", "the earliest {}"],
                ),
                number(
                    &["minutes", "length"],
                    "length",
                    (30, 120, 5),
                    Measure::Sum("minutes"),
                    ["lasting at least {} minutes", "lasting at most {} minutes"],
                    ["the longest {}", "the shortest {}"],
                ),
                status(
                    &["status", "state"],
                    &["planned", "confirmed", "cancelled"],
                    "that are {}",
                    ("planned", "confirmed"),
                    "Confirm {} (set the status to confirmed)",
                ),
            ],
        ),
        things(
            ["food stand", "food stands"],
            &["stand", "food_stand", "stand_name"],
            Naming::Pair(
                &["Happy", "Spicy", "Golden", "Little", "Green"],
                &["Noodle", "Waffle", "Taco", "Falafel", "Crêpe", "Bratwurst"],
            ),
            (14, 22),
            &[
                choice(&["offer", "kind"], "offer", &["sweet", "savoury", "drinks"], "with a {} offer"),
                number(
                    &["rent", "stand_rent"],
                    "rent",
                    (80, 900, 10),
                    Measure::Money("€"),
                    ["with a rent of at least {}", "with a rent of at most {}"],
                    ["the {} with the highest rent", "the {} with the lowest rent"],
                ),
                number(
                    &["takings", "expected_takings"],
                    "expected takings",
                    (300, 14_000, 50),
                    Measure::Money("€"),
                    ["expected to take at least {}", "expected to take at most {}"],
                    ["the {} with the highest expected takings", "the {} with the lowest expected takings"],
                )
                .optional(),
            ],
        ),
        things(
            ["helper shift", "helper shifts"],
            &["shift_id", "shift", "id"],
            Naming::Code("HS"),
            (44, 70),
            &[
                link(&["stage", "works_at"], "stage", 2, "at the stage \"{}\""),
                number(
                    &["hours", "shift_hours"],
                    "hours",
                    (2, 10, 1),
                    Measure::Sum("hours"),
                    ["of at least {} hours", "of at most {} hours"],
                    ["the longest {}", "the shortest {}"],
                ),
                choice(&["task", "work"], "task", &["bar", "tickets", "clean-up", "first aid"], "for the task \"{}\""),
            ],
        ),
    ],
};
