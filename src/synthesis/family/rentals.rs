//! Holiday flats: owners, flats, guests, bookings.

use super::{Entity, Family, Measure, Naming, choice, date, flag, link, number, status};

pub(super) const RENTALS: Family = Family {
    name: "rentals",
    settings: &[
        "I let holiday flats for several owners.",
        "The season is over and I'm tidying up our bookings.",
        "I answer the mail of a holiday flat agency.",
    ],
    tables: &[
        Entity {
            noun: "owner",
            plural: "owners",
            who: true,
            keys: &["owner", "owner_name", "landlord"],
            naming: Naming::Person,
            rows: (14, 22),
            fields: &[
                number(
                    &["commission", "commission_percent"],
                    "commission in per cent",
                    (6, 25, 1),
                    Measure::Level("per cent"),
                    ["paying at least {} per cent commission", "paying at most {} per cent commission"],
                    ["the {} who pays the highest commission", "the {} who pays the lowest commission"],
                ),
                date(
                    &["since", "partner_since"],
                    "first contract",
                    (16_500, 3_600),
                    ["who signed on or after {}", "who signed on or before {}"],
                    ["the newest {}", "the {} who has been with us longest"],
                ),
            ],
        },
        Entity {
            noun: "flat",
            plural: "flats",
            who: false,
            keys: &["flat", "apartment", "flat_name"],
            naming: Naming::Pair(
                &["Sea", "Dune", "Garden", "Harbour", "Cliff", "Meadow", "Pine"],
                &["View", "Loft", "Nest", "Studio", "Retreat", "Corner", "Suite"],
            ),
            rows: (28, 42),
            fields: &[
                link(&["owner", "owned_by"], "owner", 0, "owned by {}"),
                number(
                    &["beds", "bed_count"],
                    "number of beds",
                    (1, 9, 1),
                    Measure::Sum("beds"),
                    ["with at least {} beds", "with at most {} beds"],
                    ["the {} with the most beds", "the {} with the fewest beds"],
                ),
                number(
                    &["rate", "nightly_rate", "price"],
                    "nightly rate",
                    (45, 380, 1),
                    Measure::Money("€"),
                    ["costing at least {} a night", "costing at most {} a night"],
                    ["the most expensive {}", "the cheapest {}"],
                ),
                number(
                    &["beach", "beach_metres"],
                    "distance to the beach",
                    (20, 4_000, 10),
                    Measure::Level("metres"),
                    ["at least {} metres from the beach", "at most {} metres from the beach"],
                    ["the {} farthest from the beach", "the {} nearest to the beach"],
                ),
                flag(
                    &["pets", "pets_allowed"],
                    "whether pets are allowed",
                    ["where pets are allowed", "where pets are not allowed"],
                ),
            ],
        },
        Entity {
            noun: "guest",
            plural: "guests",
            who: true,
            keys: &["guest", "guest_name"],
            naming: Naming::Person,
            rows: (26, 40),
            fields: &[
                choice(
                    &["country", "home_country"],
                    "country",
                    &["Germany", "Sweden", "Italy", "Poland", "Ireland"],
                    "from {}",
                ),
                number(
                    &["stays", "earlier_stays"],
                    "number of earlier stays",
                    (0, 18, 1),
                    Measure::Sum("stays"),
                    ["with at least {} earlier stays", "with at most {} earlier stays"],
                    ["the {} with the most earlier stays", "the {} with the fewest earlier stays"],
                ),
            ],
        },
        Entity {
            noun: "booking",
            plural: "bookings",
            who: false,
            keys: &["booking_id", "booking", "id"],
            naming: Naming::Code("BK"),
            rows: (50, 85),
            fields: &[
                link(&["flat", "apartment"], "flat", 1, "for {}"),
                link(&["guest", "guest_name"], "guest", 2, "made by {}"),
                date(
                    &["arrival", "check_in"],
                    "day of arrival",
                    (20_240, 150),
                    ["with arrival on or after {}", "with arrival on or before {}"],
                    ["the {} with the latest arrival", "the {} with the earliest arrival"],
                ),
                number(
                    &["nights", "length"],
                    "number of nights",
                    (1, 24, 1),
                    Measure::Sum("nights"),
                    ["of at least {} nights", "of at most {} nights"],
                    ["the longest {}", "the shortest {}"],
                ),
                status(
                    &["status", "state"],
                    &["reserved", "paid", "cancelled"],
                    "with the status {}",
                    ("reserved", "cancelled"),
                    "Cancel {} (set the status to cancelled)",
                ),
            ],
        },
    ],
};
