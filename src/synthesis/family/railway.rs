//! A railway: stations, routes, trains, delay reports.

use super::{Family, Measure, Naming, choice, date, flag, link, number, status, things};

pub(super) const RAILWAY: Family = Family {
    name: "railway",
    settings: &[
        "I'm a dispatcher at a regional railway.",
        "I handle complaints about late trains.",
        "I'm making a leaflet about our regional railway.",
    ],
    tables: &[
        things(
            ["station", "stations"],
            &["station", "stop_name"],
            Naming::Place,
            (20, 30),
            &[
                number(
                    &["platforms", "platform_count"],
                    "number of platforms",
                    (2, 14, 1),
                    Measure::Sum("platforms"),
                    ["with at least {} platforms", "with at most {} platforms"],
                    ["the {} with the most platforms", "the {} with the fewest platforms"],
                ),
                flag(&["lift", "has_lift"], "lift", ["with a lift", "without a lift"]),
                number(
                    &["travellers", "daily_travellers"],
                    "number of daily travellers",
                    (80, 22_000, 20),
                    Measure::Sum("daily travellers"),
                    ["with at least {} daily travellers", "with at most {} daily travellers"],
                    ["the {} with the most daily travellers", "the {} with the fewest daily travellers"],
                )
                .optional(),
            ],
        ),
        things(
            ["route", "routes"],
            &["route", "route_name"],
            Naming::Numbered("Route"),
            (10, 16),
            &[
                number(
                    &["length", "length_km"],
                    "length",
                    (12, 240, 1),
                    Measure::Sum("kilometres"),
                    ["of at least {} kilometres", "of at most {} kilometres"],
                    ["the longest {}", "the shortest {}"],
                ),
                choice(&["operator", "run_by"], "operator", &["Regio", "Transit", "Kingsline"], "run by {}"),
            ],
        ),
        things(
            ["train", "trains"],
            &["train", "train_number"],
            Naming::Lettered(&["RE", "RB", "IC", "SX"]),
            (34, 52),
            &[
                link(&["route", "runs_on"], "route", 1, "running on {}"),
                link(&["terminus", "ends_at"], "terminus", 0, "terminating at {}"),
                number(
                    &["coaches", "coach_count"],
                    "number of coaches",
                    (2, 12, 1),
                    Measure::Sum("coaches"),
                    ["with at least {} coaches", "with at most {} coaches"],
                    ["the {} with the most coaches", "the {} with the fewest coaches"],
                ),
                number(
                    &["top_speed", "max_speed"],
                    "top speed",
                    (80, 230, 10),
                    Measure::Level("kilometres an hour"),
                    [
                        "with a top speed of at least {} kilometres an hour",
                        "with a top speed of at most {} kilometres an hour",
                    ],
                    ["the {} with the highest top speed", "the {} with the lowest top speed"],
                ),
                choice(&["traction", "engine"], "traction", &["electric", "diesel", "battery"], "with {} traction"),
            ],
        ),
        things(
            ["delay report", "delay reports"],
            &["report_id", "report", "id"],
            Naming::Code("DL"),
            (60, 95),
            &[
                link(&["train", "train_number"], "train", 2, "about {}"),
                link(&["station", "noted_at"], "station", 0, "noted at {}"),
                date(
                    &["day", "report_date"],
                    "date",
                    (20_420, 40),
                    ["from {} or later", "from {} or earlier"],
                    ["the latest {}", "the earliest {}"],
                ),
                number(
                    &["minutes", "delay_minutes"],
                    "delay",
                    (2, 120, 1),
                    Measure::Sum("minutes"),
                    ["of at least {} minutes", "of at most {} minutes"],
                    ["the {} with the longest delay", "the {} with the shortest delay"],
                ),
                status(
                    &["status", "state"],
                    &["open", "explained", "disputed"],
                    "that are {}",
                    ("open", "explained"),
                    "Close {} (set the status to explained)",
                ),
            ],
        ),
    ],
};
