//! A sports league: clubs, players, venues, matches.

use super::{Entity, Family, Measure, Naming, choice, date, flag, link, number, status};

pub(super) const LEAGUE: Family = Family {
    name: "league",
    settings: &[
        "I keep the records of our regional handball league.",
        "I write the weekly newsletter of the league.",
        "I'm on the board of the league and need some facts.",
    ],
    tables: &[
        Entity {
            noun: "club",
            plural: "clubs",
            who: false,
            keys: &["club", "club_name"],
            naming: Naming::Place,
            rows: (12, 18),
            fields: &[
                choice(&["division", "tier"], "division", &["first", "second", "third"], "in the {} division"),
                number(
                    &["founded", "founding_year"],
                    "founding year",
                    (1890, 2015, 1),
                    Measure::Level("year"),
                    ["founded in {} or later", "founded in {} or earlier"],
                    ["the youngest {}", "the oldest {}"],
                ),
                number(
                    &["members", "member_count"],
                    "number of members",
                    (60, 2_400, 1),
                    Measure::Sum("members"),
                    ["with at least {} members", "with at most {} members"],
                    ["the {} with the most members", "the {} with the fewest members"],
                ),
            ],
        },
        Entity {
            noun: "player",
            plural: "players",
            who: true,
            keys: &["player", "player_name"],
            naming: Naming::Person,
            rows: (34, 56),
            fields: &[
                link(&["club", "plays_for"], "club", 0, "playing for {}"),
                choice(
                    &["position", "role"],
                    "position",
                    &["goalkeeper", "wing", "pivot", "back"],
                    "in the position \"{}\"",
                ),
                number(
                    &["goals", "goals_scored"],
                    "number of goals",
                    (0, 140, 1),
                    Measure::Sum("goals"),
                    ["with at least {} goals", "with at most {} goals"],
                    ["the {} with the most goals", "the {} with the fewest goals"],
                ),
                date(
                    &["contract_until", "contract_end"],
                    "end of the contract",
                    (20_600, 1_300),
                    ["under contract until {} or longer", "under contract until {} at the latest"],
                    ["the {} whose contract ends last", "the {} whose contract ends first"],
                ),
            ],
        },
        Entity {
            noun: "venue",
            plural: "venues",
            who: false,
            keys: &["venue", "arena", "venue_name"],
            naming: Naming::Pair(
                &["River", "Castle", "Station", "Park", "Harbour", "Mill"],
                &["Arena", "Sports Hall", "Dome", "Centre"],
            ),
            rows: (12, 16),
            fields: &[
                number(
                    &["seats", "capacity"],
                    "number of seats",
                    (150, 6_000, 10),
                    Measure::Sum("seats"),
                    ["with at least {} seats", "with at most {} seats"],
                    ["the {} with the most seats", "the {} with the fewest seats"],
                ),
                flag(&["parking", "has_parking"], "parking", ["with a car park", "without a car park"]),
            ],
        },
        Entity {
            noun: "match",
            plural: "matches",
            who: false,
            keys: &["match_id", "match", "id"],
            naming: Naming::Code("M"),
            rows: (48, 80),
            fields: &[
                link(&["home", "home_club"], "home club", 0, "hosted by {}"),
                link(&["venue", "arena"], "venue", 2, "played at {}"),
                date(
                    &["day", "match_day", "date"],
                    "date",
                    (20_380, 220),
                    ["on or after {}", "on or before {}"],
                    ["the latest {}", "the earliest {}"],
                ),
                number(
                    &["spectators", "attendance"],
                    "number of spectators",
                    (40, 4_800, 10),
                    Measure::Sum("spectators"),
                    ["with at least {} spectators", "with at most {} spectators"],
                    ["the {} with the most spectators", "the {} with the fewest spectators"],
                ),
                status(
                    &["status", "state"],
                    &["planned", "postponed", "played"],
                    "with the status {}",
                    ("postponed", "planned"),
                    "Put {} back on the schedule (set the status to planned)",
                ),
            ],
        },
    ],
};
