//! A harbour: shipping lines, berths, ships, port calls, containers.

use super::{Family, Measure, Naming, choice, date, flag, link, number, status, things};

pub(super) const HARBOUR: Family = Family {
    name: "harbour",
    settings: &[
        "I'm the deputy harbour master.",
        "I work for a forwarder and track our containers.",
        "I'm putting together the port's weekly bulletin.",
    ],
    tables: &[
        things(
            ["shipping line", "shipping lines"],
            &["shipping_line", "line", "carrier"],
            Naming::Company,
            (10, 14),
            &[
                choice(
                    &["flag", "home_country"],
                    "home country",
                    &["Denmark", "Panama", "Greece", "Singapore"],
                    "based in {}",
                ),
                number(
                    &["agents", "agent_count"],
                    "number of agents",
                    (2, 60, 1),
                    Measure::Sum("agents"),
                    ["with at least {} agents", "with at most {} agents"],
                    ["the {} with the most agents", "the {} with the fewest agents"],
                ),
            ],
        ),
        things(
            ["berth", "berths"],
            &["berth", "berth_name"],
            Naming::Numbered("Berth"),
            (10, 16),
            &[
                number(
                    &["depth", "depth_m"],
                    "depth",
                    (60, 180, 1),
                    Measure::Tenths("metre"),
                    ["with a depth of at least {} metres", "with a depth of at most {} metres"],
                    ["the {} with the highest depth", "the {} with the lowest depth"],
                ),
                flag(&["crane", "has_crane"], "crane", ["with a crane", "without a crane"]),
            ],
        ),
        things(
            ["ship", "ships"],
            &["ship", "vessel", "ship_name"],
            Naming::Pair(
                &["Northern", "Pacific", "Silver", "Golden", "Baltic", "Southern"],
                &["Star", "Trader", "Venture", "Spirit", "Pearl", "Horizon"],
            ),
            (20, 30),
            &[
                link(&["line", "operated_by"], "shipping line", 0, "operated by {}"),
                number(
                    &["length", "length_m"],
                    "length",
                    (90, 400, 1),
                    Measure::Level("metres"),
                    ["that are at least {} metres long", "that are at most {} metres long"],
                    ["the longest {}", "the shortest {}"],
                ),
                number(
                    &["built", "year_built"],
                    "year of construction",
                    (1_988, 2_025, 1),
                    Measure::Level("year"),
                    ["built in {} or later", "built in {} or earlier"],
                    ["the newest {}", "the oldest {}"],
                )
                .optional(),
            ],
        ),
        things(
            ["port call", "port calls"],
            &["call_id", "call", "id"],
            Naming::Code("PC"),
            (40, 60),
            &[
                link(&["ship", "vessel"], "ship", 2, "of {}"),
                link(&["berth", "berth_name"], "berth", 1, "at {}"),
                date(
                    &["arrival", "arrives_on"],
                    "arrival date",
                    (20_430, 60),
                    ["with arrival on or after {}", "with arrival on or before {}"],
                    ["the latest {}", "the earliest {}"],
                ),
                number(
                    &["hours", "hours_in_port"],
                    "time in port",
                    (6, 96, 1),
                    Measure::Sum("hours"),
                    ["of at least {} hours", "of at most {} hours"],
                    ["the longest {}", "the shortest {}"],
                ),
                status(
                    &["status", "state"],
                    &["announced", "in port", "departed"],
                    "with the status \"{}\"",
                    ("announced", "in port"),
                    "Record the arrival of {} (set the status to \"in port\")",
                ),
            ],
        ),
        things(
            ["container", "containers"],
            &["container", "container_number"],
            Naming::Lettered(&["MK", "HL", "CM", "EV", "ON", "ZI"]),
            (50, 78),
            &[
                link(&["call", "unloaded_in"], "port call", 3, "unloaded in the port call {}"),
                choice(
                    &["cargo", "contents"],
                    "cargo",
                    &["machinery", "coffee", "textiles", "timber", "fruit"],
                    "loaded with {}",
                ),
                number(
                    &["weight", "weight_kg"],
                    "weight",
                    (2_200, 30_000, 100),
                    Measure::Sum("kilograms"),
                    ["weighing at least {} kilograms", "weighing at most {} kilograms"],
                    ["the heaviest {}", "the lightest {}"],
                ),
                flag(
                    &["customs_cleared", "cleared"],
                    "customs clearance",
                    ["that have cleared customs", "that have not cleared customs"],
                ),
            ],
        ),
    ],
};
