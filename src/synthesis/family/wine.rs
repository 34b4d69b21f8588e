//! A wine cellar: growers, wines, racks, lots.

use super::{Family, Measure, Naming, choice, date, flag, link, number, status, things};

pub(super) const WINE: Family = Family {
    name: "wine",
    settings: &[
        "I look after the cellar of a wine merchant.",
        "I'm organising a tasting for our best customers.",
        "I inherited a wine cellar and try to get an overview.",
    ],
    tables: &[
        things(
            ["grower", "growers"],
            &["grower", "winery", "grower_name"],
            Naming::Pair(
                &["Domaine", "Weingut", "Tenuta", "Quinta"],
                &["Belair", "Sonnhof", "Alba", "Ribeira", "Kirschberg", "Montclair", "Verde"],
            ),
            (12, 18),
            &[
                choice(&["country", "origin"], "country", &["France", "Germany", "Italy", "Portugal"], "from {}"),
                number(
                    &["hectares", "vineyard_area"],
                    "vineyard area",
                    (4, 90, 1),
                    Measure::Sum("hectares"),
                    ["with at least {} hectares of vineyards", "with at most {} hectares of vineyards"],
                    ["the largest {}", "the smallest {}"],
                ),
                flag(
                    &["organic", "is_organic"],
                    "whether it is organic",
                    ["that work organically", "that do not work organically"],
                ),
            ],
        ),
        things(
            ["wine", "wines"],
            &["wine", "label", "wine_name"],
            Naming::Pair(
                &["Old Vines", "Terrace", "Chapel", "Reserve", "Slate", "River"],
                &["Riesling", "Pinot", "Merlot", "Syrah", "Chardonnay", "Tinto"],
            ),
            (26, 34),
            &[
                link(&["grower", "made_by"], "grower", 0, "made by {}"),
                choice(&["colour", "type"], "colour", &["red", "white", "rosé"], "in the colour \"{}\""),
                number(
                    &["vintage", "harvest_year"],
                    "vintage",
                    (1_988, 2_023, 1),
                    Measure::Level("year"),
                    ["from {} or later", "from {} or earlier"],
                    ["the youngest {}", "the oldest {}"],
                ),
                number(
                    &["price", "bottle_price"],
                    "price",
                    (6, 380, 1),
                    Measure::Money("€"),
                    ["costing at least {} a bottle", "costing at most {} a bottle"],
                    ["the most expensive {}", "the cheapest {}"],
                ),
            ],
        ),
        things(
            ["rack", "racks"],
            &["rack", "rack_code"],
            Naming::Code("RK"),
            (10, 16),
            &[
                number(
                    &["temperature", "degrees"],
                    "temperature",
                    (90, 170, 1),
                    Measure::Tenths("degree"),
                    ["with a temperature of at least {} degrees", "with a temperature of at most {} degrees"],
                    ["the {} with the highest temperature", "the {} with the lowest temperature"],
                ),
                number(
                    &["spaces", "bottle_spaces"],
                    "number of bottle spaces",
                    (24, 240, 12),
                    Measure::Sum("bottle spaces"),
                    ["with at least {} bottle spaces", "with at most {} bottle spaces"],
                    ["the {} with the most bottle spaces", "the {} with the fewest bottle spaces"],
                ),
            ],
        ),
        things(
            ["lot", "lots"],
            &["lot_id", "lot", "id"],
            Naming::Code("LT"),
            (46, 72),
            &[
                link(&["wine", "label"], "wine", 1, "of {}"),
                link(&["rack", "stored_in"], "rack", 2, "stored in the rack {}"),
                number(
                    &["bottles", "bottle_count"],
                    "number of bottles",
                    (2, 72, 1),
                    Measure::Sum("bottles"),
                    ["with at least {} bottles", "with at most {} bottles"],
                    ["the {} with the most bottles", "the {} with the fewest bottles"],
                ),
                date(
                    &["drink_by", "mature_until"],
                    "drink-by date",
                    (20_500, 4_000),
                    ["to be drunk by {} or later", "to be drunk by {} or earlier"],
                    ["the {} that keeps longest", "the {} that has to be drunk first"],
                )
                .optional(),
                status(
                    &["status", "state"],
                    &["for sale", "reserved", "sold"],
                    "that are {}",
                    ("reserved", "for sale"),
                    "Put {} up for sale again (set the status to \"for sale\")",
                ),
            ],
        ),
    ],
};
