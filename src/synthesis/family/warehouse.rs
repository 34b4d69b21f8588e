//! A warehouse: zones, shelves, articles, stock lots, picks.

use super::{Family, Measure, Naming, choice, date, flag, link, number, status, things};

pub(super) const WAREHOUSE: Family = Family {
    name: "warehouse",
    settings: &[
        "I'm the shift leader of a warehouse.",
        "We're counting the stock of our warehouse this week.",
        "I plan the picking rounds for tomorrow morning.",
    ],
    tables: &[
        things(
            ["zone", "zones"],
            &["zone", "zone_name"],
            Naming::Listed(&[
                "Zone North",
                "Zone South",
                "Zone East",
                "Zone West",
                "Cold Zone",
                "Dry Zone",
                "High Bay",
                "Mezzanine",
                "Ramp",
                "Annex",
                "Yard",
                "Cage",
            ]),
            (8, 12),
            &[
                number(
                    &["temperature", "degrees"],
                    "temperature",
                    (2, 24, 1),
                    Measure::Level("degrees"),
                    ["with a temperature of at least {} degrees", "with a temperature of at most {} degrees"],
                    ["the {} with the highest temperature", "the {} with the lowest temperature"],
                ),
                flag(&["locked", "is_locked"], "whether it is locked", ["that are locked", "that are not locked"]),
            ],
        ),
        things(
            ["shelf", "shelves"],
            &["shelf", "shelf_code"],
            Naming::Code("SH"),
            (24, 36),
            &[
                link(&["zone", "zone_name"], "zone", 0, "in the zone {}"),
                number(
                    &["max_load", "capacity"],
                    "maximum load",
                    (200, 2_400, 50),
                    Measure::Sum("kilograms"),
                    ["with a maximum load of at least {} kilograms", "with a maximum load of at most {} kilograms"],
                    ["the {} with the highest maximum load", "the {} with the lowest maximum load"],
                ),
                number(
                    &["levels", "level_count"],
                    "number of levels",
                    (2, 9, 1),
                    Measure::Sum("levels"),
                    ["with at least {} levels", "with at most {} levels"],
                    ["the {} with the most levels", "the {} with the fewest levels"],
                ),
            ],
        ),
        things(
            ["article", "articles"],
            &["article", "sku", "article_name"],
            Naming::Pair(
                &["Galvanised", "Nylon", "Brass", "Rubber", "Stainless", "Plastic", "Angled"],
                &["Bolt", "Hinge", "Bracket", "Valve", "Washer", "Coupling", "Clamp", "Hose"],
            ),
            (28, 42),
            &[
                choice(
                    &["group", "product_group"],
                    "product group",
                    &["fasteners", "plumbing", "fittings", "seals"],
                    "from the product group \"{}\"",
                ),
                number(
                    &["price", "unit_price"],
                    "unit price",
                    (1, 90, 1),
                    Measure::Money("€"),
                    ["with a unit price of at least {}", "with a unit price of at most {}"],
                    ["the {} with the highest unit price", "the {} with the lowest unit price"],
                ),
                number(
                    &["supplier_rating", "rating"],
                    "supplier rating",
                    (20, 50, 1),
                    Measure::Tenths("point"),
                    ["with a supplier rating of at least {} points", "with a supplier rating of at most {} points"],
                    ["the {} with the highest supplier rating", "the {} with the lowest supplier rating"],
                )
                .optional(),
            ],
        ),
        things(
            ["stock lot", "stock lots"],
            &["lot_id", "lot", "id"],
            Naming::Code("LOT"),
            (54, 80),
            &[
                link(&["article", "sku"], "article", 2, "of {}"),
                link(&["shelf", "stored_on"], "shelf", 1, "stored on {}"),
                number(
                    &["pieces", "piece_count"],
                    "number of pieces",
                    (5, 900, 5),
                    Measure::Sum("pieces"),
                    ["with at least {} pieces", "with at most {} pieces"],
                    ["the {} with the most pieces", "the {} with the fewest pieces"],
                ),
                date(
                    &["received", "arrived_on"],
                    "date of receipt",
                    (20_200, 210),
                    ["received on or after {}", "received on or before {}"],
                    ["the most recently received {}", "the {} that was received first"],
                ),
                status(
                    &["status", "state"],
                    &["available", "blocked", "in inspection"],
                    "with the status \"{}\"",
                    ("in inspection", "available"),
                    "Release {} (set the status to available)",
                ),
            ],
        ),
        things(
            ["pick", "picks"],
            &["pick_id", "pick", "id"],
            Naming::Code("PK"),
            (36, 60),
            &[
                link(&["lot", "lot_id"], "lot", 3, "taken from {}"),
                number(
                    &["quantity", "units"],
                    "number of units",
                    (2, 60, 1),
                    Measure::Sum("units"),
                    ["with at least {} units", "with at most {} units"],
                    ["the {} with the most units", "the {} with the fewest units"],
                ),
                choice(&["priority", "urgency"], "priority", &["low", "normal", "high"], "with {} priority"),
            ],
        ),
    ],
};
