//! A shop on the web: suppliers, products, customers, orders.

use super::{Entity, Family, Measure, Naming, choice, date, flag, link, number, status};

pub(super) const MARKET: Family = Family {
    name: "market",
    settings: &[
        "I run a small web shop.",
        "I'm going through our orders before the end of the quarter.",
        "You have access to the back office of our shop.",
    ],
    tables: &[
        Entity {
            noun: "supplier",
            plural: "suppliers",
            who: false,
            keys: &["supplier", "vendor", "supplier_name"],
            naming: Naming::Company,
            rows: (12, 20),
            fields: &[
                choice(
                    &["region", "area"],
                    "region",
                    &["north", "south", "east", "west", "overseas"],
                    "from the region \"{}\"",
                ),
                number(
                    &["lead_time", "delivery_days"],
                    "lead time",
                    (2, 45, 1),
                    Measure::Level("days"),
                    ["with a lead time of at least {} days", "with a lead time of at most {} days"],
                    ["the {} with the longest lead time", "the {} with the shortest lead time"],
                ),
                number(
                    &["rating", "score"],
                    "rating",
                    (20, 50, 1),
                    Measure::Tenths("star"),
                    ["rated at least {} stars", "rated at most {} stars"],
                    ["the best rated {}", "the worst rated {}"],
                ),
            ],
        },
        Entity {
            noun: "product",
            plural: "products",
            who: false,
            keys: &["product", "item", "product_name"],
            naming: Naming::Pair(
                &["Oak", "Steel", "Linen", "Copper", "Felt", "Ceramic", "Walnut", "Bamboo", "Cork", "Brass"],
                &["Lamp", "Shelf", "Stool", "Tray", "Basket", "Kettle", "Clock", "Planter", "Mirror", "Bench", "Vase"],
            ),
            rows: (35, 60),
            fields: &[
                link(&["supplier", "vendor", "supplied_by"], "supplier", 0, "supplied by {}"),
                choice(
                    &["department", "category"],
                    "department",
                    &["kitchen", "garden", "bedroom", "office", "bathroom"],
                    "from the {} department",
                ),
                number(
                    &["price", "unit_price", "cost"],
                    "price",
                    (6, 240, 1),
                    Measure::Money("$"),
                    ["costing at least {}", "costing at most {}"],
                    ["the most expensive {}", "the cheapest {}"],
                ),
                number(
                    &["stock", "units_in_stock", "on_hand"],
                    "stock",
                    (0, 180, 1),
                    Measure::Sum("units"),
                    ["with at least {} units in stock", "with at most {} units in stock"],
                    ["the {} with the largest stock", "the {} with the smallest stock"],
                ),
                flag(
                    &["fragile", "is_fragile"],
                    "whether it is fragile",
                    ["marked as fragile", "not marked as fragile"],
                ),
            ],
        },
        Entity {
            noun: "customer",
            plural: "customers",
            who: true,
            keys: &["customer", "client", "customer_name"],
            naming: Naming::Person,
            rows: (22, 38),
            fields: &[
                choice(&["tier", "level"], "tier", &["bronze", "silver", "gold"], "in the {} tier"),
                date(
                    &["registered", "signup_date"],
                    "registration date",
                    (18_200, 1_900),
                    ["registered on or after {}", "registered on or before {}"],
                    ["the {} who registered last", "the {} who registered first"],
                ),
                number(
                    &["points", "bonus_points"],
                    "bonus points",
                    (0, 900, 5),
                    Measure::Sum("points"),
                    ["with at least {} bonus points", "with at most {} bonus points"],
                    ["the {} with the most bonus points", "the {} with the fewest bonus points"],
                ),
            ],
        },
        Entity {
            noun: "order",
            plural: "orders",
            who: false,
            keys: &["order_id", "order", "id"],
            naming: Naming::Code("ORD"),
            rows: (50, 85),
            fields: &[
                link(&["customer", "client", "placed_by"], "customer", 2, "placed by {}"),
                link(&["product", "item"], "product", 1, "for {}"),
                date(
                    &["ordered", "order_date", "placed_on"],
                    "order date",
                    (20_200, 150),
                    ["placed on or after {}", "placed on or before {}"],
                    ["the most recent {}", "the oldest {}"],
                ),
                number(
                    &["quantity", "units", "amount"],
                    "quantity",
                    (1, 40, 1),
                    Measure::Sum("units"),
                    ["of at least {} units", "of at most {} units"],
                    ["the {} with the largest quantity", "the {} with the smallest quantity"],
                ),
                status(
                    &["status", "state"],
                    &["pending", "paid", "shipped", "cancelled"],
                    "with the status {}",
                    ("pending", "cancelled"),
                    "Cancel {} (set the status to cancelled)",
                ),
            ],
        },
    ],
};
