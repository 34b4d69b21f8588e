//! A weather service: regions, stations, instruments, daily reports.

use super::{Family, Measure, Naming, choice, date, flag, link, number, status, things};

pub(super) const WEATHER: Family = Family {
    name: "weather",
    settings: &[
        "I work for the weather service.",
        "I'm a student and write a paper about local weather.",
        "I maintain the stations of a weather service.",
    ],
    tables: &[
        things(
            ["region", "regions"],
            &["region", "region_name"],
            Naming::Place,
            (12, 16),
            &[
                number(
                    &["inhabitants", "population"],
                    "number of inhabitants",
                    (900, 84_000, 100),
                    Measure::Sum("inhabitants"),
                    ["with at least {} inhabitants", "with at most {} inhabitants"],
                    ["the {} with the most inhabitants", "the {} with the fewest inhabitants"],
                ),
                choice(
                    &["landscape", "terrain"],
                    "landscape",
                    &["coast", "plain", "hills", "mountains"],
                    "in the landscape type \"{}\"",
                ),
            ],
        ),
        things(
            ["station", "stations"],
            &["station", "station_code"],
            Naming::Code("WS"),
            (22, 34),
            &[
                link(&["region", "region_name"], "region", 0, "in {}"),
                number(
                    &["altitude", "altitude_m"],
                    "altitude",
                    (2, 2_900, 1),
                    Measure::Level("metres"),
                    ["at an altitude of at least {} metres", "at an altitude of at most {} metres"],
                    ["the highest {}", "the lowest {}"],
                ),
                flag(&["staffed", "is_staffed"], "whether it is staffed", ["that are staffed", "that are not staffed"]),
                date(
                    &["inspected", "last_inspection"],
                    "date of the last inspection",
                    (19_900, 540),
                    ["last inspected on or after {}", "last inspected on or before {}"],
                    ["the most recently inspected {}", "the {} that has not been inspected for longest"],
                ),
            ],
        ),
        things(
            ["instrument", "instruments"],
            &["instrument", "serial_number"],
            Naming::Hex,
            (40, 60),
            &[
                link(&["station", "installed_at"], "station", 1, "installed at {}"),
                choice(
                    &["kind", "measures"],
                    "kind",
                    &["thermometer", "barometer", "rain gauge", "anemometer"],
                    "of the kind \"{}\"",
                ),
                number(
                    &["age", "age_months"],
                    "age",
                    (2, 190, 1),
                    Measure::Level("months"),
                    ["with an age of at least {} months", "with an age of at most {} months"],
                    ["the {} with the highest age", "the {} with the lowest age"],
                ),
                number(
                    &["price", "purchase_price"],
                    "purchase price",
                    (60, 2_400, 10),
                    Measure::Money("€"),
                    ["with a purchase price of at least {}", "with a purchase price of at most {}"],
                    ["the {} with the highest purchase price", "the {} with the lowest purchase price"],
                ),
                status(
                    &["status", "state"],
                    &["working", "faulty", "removed"],
                    "that are {}",
                    ("faulty", "removed"),
                    "Mark {} as removed (set the status to removed)",
                ),
            ],
        ),
        things(
            ["daily report", "daily reports"],
            &["report_id", "report", "id"],
            Naming::Code("DR"),
            (60, 96),
            &[
                link(&["station", "reported_by"], "station", 1, "sent by {}"),
                date(
                    &["day", "report_date"],
                    "date",
                    (20_390, 60),
                    ["for {} or later", "for {} or earlier"],
                    ["the latest {}", "the earliest {}"],
                ),
                number(
                    &["rain", "rain_mm"],
                    "rainfall",
                    (0, 420, 1),
                    Measure::Tenths("millimetre"),
                    ["with at least {} millimetres of rain", "with at most {} millimetres of rain"],
                    ["the {} with the most rain", "the {} with the least rain"],
                )
                .optional(),
                number(
                    &["sunshine", "sun_minutes"],
                    "sunshine",
                    (0, 780, 10),
                    Measure::Sum("minutes"),
                    ["with at least {} minutes of sunshine", "with at most {} minutes of sunshine"],
                    ["the {} with the most sunshine", "the {} with the least sunshine"],
                ),
            ],
        ),
    ],
};
