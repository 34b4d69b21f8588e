//! A power grid: substations, lines, crews, outages.

use super::{Family, Measure, Naming, choice, date, flag, link, number, status, things};

pub(super) const GRID: Family = Family {
    name: "grid",
    settings: &[
        "I sit in the control room of a power grid.",
        "I'm writing the yearly report on outages.",
        "The regulator has asked our grid company for some figures.",
    ],
    tables: &[
        things(
            ["substation", "substations"],
            &["substation", "substation_name"],
            Naming::Place,
            (18, 26),
            &[
                number(
                    &["load", "load_mw"],
                    "load",
                    (4, 180, 1),
                    Measure::Sum("megawatts"),
                    ["carrying at least {} megawatts", "carrying at most {} megawatts"],
                    ["the {} with the highest load", "the {} with the lowest load"],
                ),
                choice(
                    &["district", "grid_area"],
                    "district",
                    &["north", "south", "east", "west"],
                    "in the {} district",
                ),
                number(
                    &["built", "year_built"],
                    "year of construction",
                    (1_955, 2_023, 1),
                    Measure::Level("year"),
                    ["built in {} or later", "built in {} or earlier"],
                    ["the newest {}", "the oldest {}"],
                )
                .optional(),
            ],
        ),
        things(
            ["line", "lines"],
            &["line", "line_code"],
            Naming::Code("L"),
            (32, 48),
            &[
                link(&["begin", "from_station"], "first substation", 0, "starting at {}"),
                link(&["end", "to_station"], "second substation", 0, "ending at {}"),
                number(
                    &["length", "length_km"],
                    "length",
                    (2, 140, 1),
                    Measure::Sum("kilometres"),
                    ["of at least {} kilometres", "of at most {} kilometres"],
                    ["the longest {}", "the shortest {}"],
                ),
                flag(
                    &["underground", "is_underground"],
                    "whether it is underground",
                    ["that run underground", "that run overhead"],
                ),
            ],
        ),
        things(
            ["crew", "crews"],
            &["crew", "crew_name"],
            Naming::Numbered("Crew"),
            (8, 12),
            &[
                number(
                    &["members", "crew_size"],
                    "number of members",
                    (2, 9, 1),
                    Measure::Sum("members"),
                    ["with at least {} members", "with at most {} members"],
                    ["the {} with the most members", "the {} with the fewest members"],
                ),
                choice(&["shift", "working_shift"], "shift", &["day", "late", "night"], "on the {} shift"),
            ],
        ),
        things(
            ["outage", "outages"],
            &["outage_id", "outage", "id"],
            Naming::Code("OUT"),
            (56, 88),
            &[
                link(&["line", "on_line"], "line", 1, "on the line {}"),
                link(&["crew", "handled_by"], "crew", 2, "handled by {}"),
                date(
                    &["day", "outage_date"],
                    "date",
                    (20_090, 360),
                    ["on or after {}", "on or before {}"],
                    ["the latest {}", "the earliest {}"],
                ),
                number(
                    &["minutes", "duration"],
                    "duration",
                    (5, 900, 5),
                    Measure::Sum("minutes"),
                    ["lasting at least {} minutes", "lasting at most {} minutes"],
                    ["the longest {}", "the shortest {}"],
                ),
                number(
                    &["homes", "affected_homes"],
                    "number of affected homes",
                    (20, 9_000, 10),
                    Measure::Sum("affected homes"),
                    ["with at least {} affected homes", "with at most {} affected homes"],
                    ["the {} with the most affected homes", "the {} with the fewest affected homes"],
                ),
                status(
                    &["status", "state"],
                    &["reported", "under repair", "repaired"],
                    "that are {}",
                    ("under repair", "repaired"),
                    "Mark {} as repaired (set the status to repaired)",
                ),
            ],
        ),
    ],
};
