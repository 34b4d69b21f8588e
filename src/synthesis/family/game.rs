//! An online game: realms, guilds, characters, items, quest entries.

use super::{Entity, Family, Measure, Naming, choice, date, link, number, status, things};

pub(super) const GAME: Family = Family {
    name: "game",
    settings: &[
        "I'm a game master in an online game.",
        "I lead a guild and plan our next season.",
        "I balance the economy of our online game.",
    ],
    tables: &[
        things(
            ["realm", "realms"],
            &["realm", "world", "realm_name"],
            Naming::Listed(&[
                "Ashenvale",
                "Brightwater",
                "Cinderfall",
                "Dawnspire",
                "Emberholt",
                "Frostmere",
                "Gloomreach",
                "Highwind",
                "Ironroot",
                "Jadecliff",
            ]),
            (7, 10),
            &[
                choice(&["rules", "ruleset"], "rules", &["peaceful", "competitive", "hardcore"], "with {} rules"),
                number(
                    &["online", "players_online"],
                    "number of players online",
                    (40, 9_000, 10),
                    Measure::Sum("players online"),
                    ["with at least {} players online", "with at most {} players online"],
                    ["the {} with the most players online", "the {} with the fewest players online"],
                ),
            ],
        ),
        things(
            ["guild", "guilds"],
            &["guild", "guild_name"],
            Naming::Pair(
                &["Order of the", "Sons of the", "Circle of the", "Wardens of the"],
                &["Raven", "Lantern", "Oak", "Storm", "Chalice", "Wolf"],
            ),
            (14, 20),
            &[
                link(&["realm", "world"], "realm", 0, "from the realm {}"),
                number(
                    &["treasury", "gold_reserves"],
                    "treasury",
                    (500, 98_000, 100),
                    Measure::Sum("gold"),
                    ["with a treasury of at least {} gold", "with a treasury of at most {} gold"],
                    ["the {} with the highest treasury", "the {} with the lowest treasury"],
                ),
                date(
                    &["founded", "founded_on"],
                    "founding date",
                    (17_500, 2_800),
                    ["founded on or after {}", "founded on or before {}"],
                    ["the youngest {}", "the oldest {}"],
                ),
            ],
        ),
        Entity {
            who: true,
            ..things(
                ["character", "characters"],
                &["character", "character_name"],
                Naming::Handle,
                (36, 56),
                &[
                    link(&["guild", "member_of"], "guild", 1, "belonging to the guild {}"),
                    choice(&["role", "archetype"], "role", &["healer", "tank", "scout", "mage"], "playing as a {}"),
                    number(
                        &["level", "character_level"],
                        "level",
                        (1, 80, 1),
                        Measure::Level("levels"),
                        ["at level {} or above", "at level {} or below"],
                        ["the {} with the highest level", "the {} with the lowest level"],
                    ),
                    number(
                        &["deaths", "death_count"],
                        "number of deaths",
                        (0, 400, 1),
                        Measure::Sum("deaths"),
                        ["with at least {} deaths", "with at most {} deaths"],
                        ["the {} with the most deaths", "the {} with the fewest deaths"],
                    )
                    .optional(),
                ],
            )
        },
        things(
            ["item", "items"],
            &["item", "item_name"],
            Naming::Pair(
                &["Burning", "Frozen", "Ancient", "Cursed", "Radiant", "Hollow", "Runed"],
                &["Blade", "Shield", "Amulet", "Bow", "Crown", "Gauntlet", "Tome", "Cloak"],
            ),
            (36, 52),
            &[
                link(&["owner", "carried_by"], "owner", 2, "carried by {}"),
                choice(&["rarity", "quality"], "rarity", &["common", "rare", "epic", "legendary"], "of {} rarity"),
                number(
                    &["worth", "gold_value"],
                    "value",
                    (10, 24_000, 10),
                    Measure::Sum("gold"),
                    ["with a value of at least {} gold", "with a value of at most {} gold"],
                    ["the {} with the highest value", "the {} with the lowest value"],
                ),
            ],
        ),
        things(
            ["quest entry", "quest entries"],
            &["entry_id", "entry", "id"],
            Naming::Code("Q"),
            (50, 78),
            &[
                link(&["character", "taken_by"], "character", 2, "taken up by {}"),
                number(
                    &["reward", "reward_gold"],
                    "reward",
                    (20, 5_200, 20),
                    Measure::Sum("gold"),
                    ["rewarded with at least {} gold", "rewarded with at most {} gold"],
                    ["the {} with the highest reward", "the {} with the lowest reward"],
                ),
                date(
                    &["started", "started_on"],
                    "starting date",
                    (20_400, 70),
                    ["started on or after {}", "started on or before {}"],
                    ["the most recent {}", "the oldest {}"],
                ),
                status(
                    &["status", "state"],
                    &["active", "completed", "abandoned"],
                    "that are {}",
                    ("active", "abandoned"),
                    "Set {} to abandoned",
                ),
            ],
        ),
    ],
};
