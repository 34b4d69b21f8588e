//! A restaurant: waiters, tables, dishes, orders.

use super::{Family, Measure, Naming, choice, date, flag, link, number, people, status, things};

pub(super) const RESTAURANT: Family = Family {
    name: "restaurant",
    settings: &[
        "I own a restaurant.",
        "I'm the head waiter and we're about to close the books for the week.",
        "I'm rewriting the menu of our restaurant.",
    ],
    tables: &[
        people(
            ["waiter", "waiters"],
            &["waiter", "server", "waiter_name"],
            (8, 12),
            &[
                number(
                    &["tips", "tips_this_month"],
                    "tips this month",
                    (20, 900, 5),
                    Measure::Money("€"),
                    ["with tips of at least {} this month", "with tips of at most {} this month"],
                    ["the {} with the most tips this month", "the {} with the fewest tips this month"],
                ),
                number(
                    &["shifts", "shifts_weekly"],
                    "number of weekly shifts",
                    (2, 7, 1),
                    Measure::Sum("weekly shifts"),
                    ["with at least {} weekly shifts", "with at most {} weekly shifts"],
                    ["the {} with the most weekly shifts", "the {} with the fewest weekly shifts"],
                ),
            ],
        ),
        things(
            ["table", "tables"],
            &["table_name", "seat_group", "dining_table"],
            Naming::Numbered("Table"),
            (14, 22),
            &[
                number(
                    &["chairs", "chair_count"],
                    "number of chairs",
                    (2, 12, 1),
                    Measure::Sum("chairs"),
                    ["with at least {} chairs", "with at most {} chairs"],
                    ["the {} with the most chairs", "the {} with the fewest chairs"],
                ),
                choice(&["area", "location"], "area", &["terrace", "main hall", "gallery"], "in the area \"{}\""),
            ],
        ),
        things(
            ["dish", "dishes"],
            &["dish", "dish_name"],
            Naming::Pair(
                &["Roast", "Braised", "Grilled", "Baked", "Poached", "Glazed", "Stuffed"],
                &["Trout", "Pumpkin", "Lamb", "Leek", "Duck", "Aubergine", "Celeriac"],
            ),
            (24, 36),
            &[
                choice(
                    &["course", "menu_part"],
                    "course",
                    &["starter", "main course", "dessert"],
                    "on the menu as a {}",
                ),
                number(
                    &["price", "menu_price"],
                    "price",
                    (6, 48, 1),
                    Measure::Money("€"),
                    ["with a price of at least {}", "with a price of at most {}"],
                    ["the {} with the highest price", "the {} with the lowest price"],
                ),
                number(
                    &["calories", "kilocalories"],
                    "energy",
                    (120, 1_400, 10),
                    Measure::Level("kilocalories"),
                    ["with at least {} kilocalories", "with at most {} kilocalories"],
                    ["the {} with the most kilocalories", "the {} with the fewest kilocalories"],
                )
                .optional(),
                flag(
                    &["vegetarian", "is_vegetarian"],
                    "whether it is vegetarian",
                    ["that are vegetarian", "that are not vegetarian"],
                ),
            ],
        ),
        things(
            ["order", "orders"],
            &["order_id", "order", "id"],
            Naming::Code("O"),
            (60, 95),
            &[
                link(&["dish", "dish_name"], "dish", 2, "for {}"),
                link(&["served_at", "seat"], "table", 1, "from {}"),
                link(&["waiter", "taken_by"], "waiter", 0, "taken by {}"),
                number(
                    &["portions", "portion_count"],
                    "number of portions",
                    (1, 8, 1),
                    Measure::Sum("portions"),
                    ["with at least {} portions", "with at most {} portions"],
                    ["the {} with the most portions", "the {} with the fewest portions"],
                ),
                date(
                    &["evening", "order_date"],
                    "date",
                    (20_440, 14),
                    ["taken on or after {}", "taken on or before {}"],
                    ["the latest {}", "the earliest {}"],
                ),
                status(
                    &["status", "state"],
                    &["ordered", "served", "sent back"],
                    "with the status \"{}\"",
                    ("ordered", "served"),
                    "Mark {} as served (set the status to served)",
                ),
            ],
        ),
    ],
};
