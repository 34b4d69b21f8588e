//! An airline's crew: bases, crew members, aircraft, duties.

use super::{Family, Measure, Naming, choice, date, flag, link, number, people, status, things};

pub(super) const ROSTER: Family = Family {
    name: "roster",
    settings: &[
        "I plan the rosters of an airline.",
        "I represent the cabin crew in the works council.",
        "I'm covering for the crew planner today.",
    ],
    tables: &[
        things(
            ["base", "bases"],
            &["base", "home_base"],
            Naming::Place,
            (10, 14),
            &[
                number(
                    &["allowance", "daily_allowance"],
                    "daily allowance",
                    (20, 95, 5),
                    Measure::Money("€"),
                    ["with a daily allowance of at least {}", "with a daily allowance of at most {}"],
                    ["the {} with the highest daily allowance", "the {} with the lowest daily allowance"],
                ),
                flag(&["crew_hotel", "has_hotel"], "crew hotel", ["with a crew hotel", "without a crew hotel"]),
            ],
        ),
        people(
            ["crew member", "crew members"],
            &["crew_member", "employee", "name"],
            (30, 46),
            &[
                link(&["base", "stationed_at"], "base", 0, "stationed at {}"),
                choice(
                    &["rank", "role"],
                    "rank",
                    &["captain", "first officer", "purser", "attendant"],
                    "with the rank \"{}\"",
                ),
                number(
                    &["flight_hours", "hours_flown"],
                    "number of flight hours",
                    (120, 14_000, 10),
                    Measure::Sum("flight hours"),
                    ["with at least {} flight hours", "with at most {} flight hours"],
                    ["the {} with the most flight hours", "the {} with the fewest flight hours"],
                ),
                date(
                    &["medical_until", "medical_expires"],
                    "expiry date of the medical",
                    (20_440, 500),
                    ["with a medical valid until {} or longer", "with a medical valid until {} at the latest"],
                    ["the {} whose medical is valid longest", "the {} whose medical expires first"],
                )
                .optional(),
            ],
        ),
        things(
            ["aircraft", "aircraft"],
            &["aircraft", "registration", "tail_number"],
            Naming::Lettered(&["DA", "DE", "EC", "OY", "SE", "PH"]),
            (12, 20),
            &[
                choice(&["model", "type_name"], "model", &["A320", "A350", "E190", "B787"], "of the model {}"),
                number(
                    &["seats", "seat_count"],
                    "number of seats",
                    (76, 330, 2),
                    Measure::Sum("seats"),
                    ["with at least {} seats", "with at most {} seats"],
                    ["the {} with the most seats", "the {} with the fewest seats"],
                ),
            ],
        ),
        things(
            ["duty", "duties"],
            &["duty_id", "duty", "id"],
            Naming::Code("DT"),
            (60, 95),
            &[
                link(&["crew_member", "assigned_to"], "crew member", 1, "assigned to {}"),
                link(&["aircraft", "registration"], "aircraft", 2, "on the aircraft {}"),
                date(
                    &["day", "duty_date"],
                    "date",
                    (20_450, 40),
                    ["on or after {}", "on or before {}"],
                    ["the latest {}", "the earliest {}"],
                ),
                number(
                    &["hours", "duty_hours"],
                    "hours",
                    (2, 14, 1),
                    Measure::Sum("hours"),
                    ["of at least {} hours", "of at most {} hours"],
                    ["the longest {}", "the shortest {}"],
                ),
                status(
                    &["status", "state"],
                    &["assigned", "confirmed", "swapped"],
                    "with the status {}",
                    ("assigned", "confirmed"),
                    "Confirm {} (set the status to confirmed)",
                ),
            ],
        ),
    ],
};
