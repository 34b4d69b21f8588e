//! A hotel: rooms, guests, stays, room orders.

use super::{Family, Measure, Naming, choice, date, flag, link, number, people, status, things};

pub(super) const HOTEL: Family = Family {
    name: "hotel",
    settings: &[
        "I manage the front desk of a hotel.",
        "I'm the night auditor of our hotel.",
        "I took over the reception this morning and have a few questions about our guests.",
    ],
    tables: &[
        things(
            ["room", "rooms"],
            &["room", "room_name"],
            Naming::Numbered("Room"),
            (26, 40),
            &[
                choice(&["floor", "level"], "floor", &["ground", "first", "second", "third"], "on the {} floor"),
                number(
                    &["rate", "nightly_rate"],
                    "nightly rate",
                    (60, 420, 5),
                    Measure::Money("€"),
                    ["with a nightly rate of at least {}", "with a nightly rate of at most {}"],
                    ["the {} with the highest nightly rate", "the {} with the lowest nightly rate"],
                ),
                number(
                    &["beds", "bed_count"],
                    "number of beds",
                    (1, 5, 1),
                    Measure::Sum("beds"),
                    ["with at least {} beds", "with at most {} beds"],
                    ["the {} with the most beds", "the {} with the fewest beds"],
                ),
                flag(&["balcony", "has_balcony"], "balcony", ["with a balcony", "without a balcony"]),
            ],
        ),
        people(
            ["guest", "guests"],
            &["guest", "guest_name"],
            (26, 44),
            &[
                choice(
                    &["country", "home_country"],
                    "home country",
                    &["Italy", "Japan", "Canada", "Norway", "Brazil", "Kenya"],
                    "from {}",
                ),
                number(
                    &["points", "loyalty_points"],
                    "number of loyalty points",
                    (0, 4_000, 50),
                    Measure::Sum("loyalty points"),
                    ["with at least {} loyalty points", "with at most {} loyalty points"],
                    ["the {} with the most loyalty points", "the {} with the fewest loyalty points"],
                )
                .optional(),
            ],
        ),
        things(
            ["stay", "stays"],
            &["stay_id", "stay", "id"],
            Naming::Code("ST"),
            (50, 80),
            &[
                link(&["guest", "guest_name"], "guest", 1, "booked by {}"),
                link(&["room", "room_name"], "room", 0, "in {}"),
                date(
                    &["arrival", "check_in"],
                    "arrival date",
                    (20_380, 150),
                    ["with arrival on or after {}", "with arrival on or before {}"],
                    ["the {} with the latest arrival", "the {} with the earliest arrival"],
                ),
                number(
                    &["nights", "night_count"],
                    "number of nights",
                    (1, 14, 1),
                    Measure::Sum("nights"),
                    ["with at least {} nights", "with at most {} nights"],
                    ["the {} with the most nights", "the {} with the fewest nights"],
                ),
                status(
                    &["status", "state"],
                    &["booked", "checked in", "checked out", "cancelled"],
                    "with the status \"{}\"",
                    ("booked", "cancelled"),
                    "Cancel {} (set the status to cancelled)",
                ),
            ],
        ),
        things(
            ["room order", "room orders"],
            &["order_id", "order", "ticket"],
            Naming::Code("RO"),
            (40, 64),
            &[
                link(&["stay", "stay_id"], "stay", 2, "belonging to {}"),
                choice(&["kind", "category"], "kind", &["breakfast", "laundry", "minibar", "spa"], "for {}"),
                number(
                    &["amount", "price"],
                    "amount",
                    (5, 180, 1),
                    Measure::Money("€"),
                    ["with an amount of at least {}", "with an amount of at most {}"],
                    ["the {} with the highest amount", "the {} with the lowest amount"],
                ),
                flag(&["paid", "is_paid"], "whether it is paid", ["that are paid already", "that are not paid yet"]),
            ],
        ),
    ],
};
