//! An auction house: consignors, sales, lots, bidders, bids.

use super::{Family, Measure, Naming, choice, date, flag, link, number, people, status, things};

pub(super) const AUCTION: Family = Family {
    name: "auction",
    settings: &[
        "I'm an auctioneer.",
        "I prepare the catalogue of an auction house.",
        "A collector has asked our auction house for some details.",
    ],
    tables: &[
        people(
            ["consignor", "consignors"],
            &["consignor", "seller", "consignor_name"],
            (14, 22),
            &[
                number(
                    &["commission", "fee_percent"],
                    "commission",
                    (8, 25, 1),
                    Measure::Level("percent"),
                    ["with a commission of at least {} percent", "with a commission of at most {} percent"],
                    ["the {} with the highest commission", "the {} with the lowest commission"],
                ),
                flag(
                    &["private", "is_private"],
                    "whether they are private",
                    ["who sell privately", "who sell for a business"],
                ),
            ],
        ),
        things(
            ["sale", "sales"],
            &["sale", "auction", "sale_name"],
            Naming::Pair(
                &["Spring", "Autumn", "Evening", "Country House", "Single Owner", "Online"],
                &["Sale", "Auction", "Session"],
            ),
            (9, 14),
            &[
                date(
                    &["day", "sale_date"],
                    "date",
                    (20_250, 330),
                    ["held on or after {}", "held on or before {}"],
                    ["the latest {}", "the earliest {}"],
                ),
                number(
                    &["seats", "seats_reserved"],
                    "number of reserved seats",
                    (10, 240, 5),
                    Measure::Sum("reserved seats"),
                    ["with at least {} reserved seats", "with at most {} reserved seats"],
                    ["the {} with the most reserved seats", "the {} with the fewest reserved seats"],
                ),
            ],
        ),
        things(
            ["lot", "lots"],
            &["lot", "lot_title", "item"],
            Naming::Pair(
                &["Walnut", "Silver", "Ivory-white", "Gilt", "Lacquered", "Victorian", "Bronze"],
                &["Cabinet", "Clock", "Mirror", "Teapot", "Figure", "Desk", "Candlestick", "Vase"],
            ),
            (34, 50),
            &[
                link(&["consignor", "consigned_by"], "consignor", 0, "consigned by {}"),
                link(&["sale", "offered_in"], "sale", 1, "offered in the {}"),
                number(
                    &["estimate", "low_estimate"],
                    "estimate",
                    (50, 24_000, 50),
                    Measure::Money("£"),
                    ["with an estimate of at least {}", "with an estimate of at most {}"],
                    ["the {} with the highest estimate", "the {} with the lowest estimate"],
                ),
                choice(
                    &["era", "period"],
                    "era",
                    &["Georgian", "Victorian", "Art Nouveau", "modern"],
                    "from the {} era",
                ),
                number(
                    &["year_made", "made_in"],
                    "year of making",
                    (1_710, 1_965, 1),
                    Measure::Level("year"),
                    ["made in {} or later", "made in {} or earlier"],
                    ["the newest {}", "the oldest {}"],
                )
                .optional(),
            ],
        ),
        people(
            ["bidder", "bidders"],
            &["bidder", "bidder_name"],
            (22, 34),
            &[
                choice(
                    &["paddle_kind", "attendance"],
                    "attendance",
                    &["in the room", "by telephone", "online"],
                    "taking part {}",
                ),
                number(
                    &["credit_limit", "limit"],
                    "credit limit",
                    (500, 60_000, 500),
                    Measure::Money("£"),
                    ["with a credit limit of at least {}", "with a credit limit of at most {}"],
                    ["the {} with the highest credit limit", "the {} with the lowest credit limit"],
                ),
            ],
        ),
        things(
            ["bid", "bids"],
            &["bid_id", "bid", "id"],
            Naming::Code("BD"),
            (60, 95),
            &[
                link(&["lot", "item"], "lot", 2, "on the {}"),
                link(&["bidder", "placed_by"], "bidder", 3, "placed by {}"),
                number(
                    &["amount", "offer"],
                    "amount",
                    (50, 26_000, 10),
                    Measure::Money("£"),
                    ["of at least {}", "of at most {}"],
                    ["the highest {}", "the lowest {}"],
                ),
                status(
                    &["status", "state"],
                    &["open", "outbid", "withdrawn"],
                    "that are {}",
                    ("open", "withdrawn"),
                    "Withdraw {} (set the status to withdrawn)",
                ),
            ],
        ),
    ],
};
