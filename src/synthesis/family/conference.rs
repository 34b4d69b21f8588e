//! A conference: rooms, speakers, talks, attendees, seat requests.

use super::{Family, Measure, Naming, choice, date, flag, link, number, people, status, things};

pub(super) const CONFERENCE: Family = Family {
    name: "conference",
    settings: &[
        "I'm on the programme committee of a conference.",
        "Our conference opens soon and I'm finishing the plan.",
        "I look after the speakers of our conference.",
    ],
    tables: &[
        things(
            ["room", "rooms"],
            &["room", "room_name"],
            Naming::Pair(&["Aspen", "Birch", "Cedar", "Dogwood", "Elm", "Fir"], &["Hall", "Room", "Studio"]),
            (10, 15),
            &[
                number(
                    &["seats", "capacity"],
                    "number of seats",
                    (20, 900, 10),
                    Measure::Sum("seats"),
                    ["with at least {} seats", "with at most {} seats"],
                    ["the {} with the most seats", "the {} with the fewest seats"],
                ),
                flag(
                    &["recording", "can_record"],
                    "recording",
                    ["with recording equipment", "without recording equipment"],
                ),
            ],
        ),
        people(
            ["speaker", "speakers"],
            &["speaker", "presenter", "speaker_name"],
            (22, 34),
            &[
                choice(
                    &["country", "based_in"],
                    "country",
                    &["Chile", "Finland", "India", "Ghana", "Spain"],
                    "from {}",
                ),
                number(
                    &["fee", "speaker_fee"],
                    "fee",
                    (0, 4_500, 50),
                    Measure::Money("€"),
                    ["with a fee of at least {}", "with a fee of at most {}"],
                    ["the {} with the highest fee", "the {} with the lowest fee"],
                ),
            ],
        ),
        things(
            ["talk", "talks"],
            &["talk", "session", "talk_title"],
            Naming::Pair(
                &["Rethinking", "Scaling", "Debugging", "Teaching", "Measuring", "Securing"],
                &["Compilers", "Databases", "Teams", "Pipelines", "Kernels", "Interfaces", "Caches"],
            ),
            (26, 38),
            &[
                link(&["speaker", "given_by"], "speaker", 1, "given by {}"),
                link(&["room", "held_in"], "room", 0, "held in {}"),
                number(
                    &["minutes", "length"],
                    "length",
                    (20, 90, 5),
                    Measure::Sum("minutes"),
                    ["lasting at least {} minutes", "lasting at most {} minutes"],
                    ["the longest {}", "the shortest {}"],
                ),
                choice(
                    &["track", "topic_track"],
                    "track",
                    &["systems", "people", "data", "security"],
                    "in the {} track",
                ),
                date(
                    &["day", "talk_day"],
                    "day",
                    (20_560, 4),
                    ["on {} or later", "on {} or earlier"],
                    ["the latest {}", "the earliest {}"],
                ),
            ],
        ),
        people(
            ["attendee", "attendees"],
            &["attendee", "participant", "attendee_name"],
            (30, 46),
            &[
                choice(&["ticket", "ticket_kind"], "ticket", &["student", "regular", "supporter"], "with a {} ticket"),
                date(
                    &["registered", "registered_on"],
                    "registration date",
                    (20_400, 150),
                    ["who registered on or after {}", "who registered on or before {}"],
                    ["the {} who registered last", "the {} who registered first"],
                ),
                number(
                    &["badges", "previous_editions"],
                    "number of attended editions",
                    (0, 12, 1),
                    Measure::Sum("attended editions"),
                    ["with at least {} attended editions", "with at most {} attended editions"],
                    ["the {} with the most attended editions", "the {} with the fewest attended editions"],
                )
                .optional(),
            ],
        ),
        things(
            ["seat request", "seat requests"],
            &["request_id", "request", "id"],
            Naming::Code("SR"),
            (50, 80),
            &[
                link(&["attendee", "made_by"], "attendee", 3, "made by {}"),
                link(&["talk", "session"], "talk", 2, "for {}"),
                number(
                    &["companions", "extra_seats"],
                    "number of extra seats",
                    (0, 6, 1),
                    Measure::Sum("extra seats"),
                    ["with at least {} extra seats", "with at most {} extra seats"],
                    ["the {} with the most extra seats", "the {} with the fewest extra seats"],
                ),
                status(
                    &["status", "state"],
                    &["waiting", "confirmed", "declined"],
                    "with the status {}",
                    ("waiting", "confirmed"),
                    "Confirm {} (set the status to confirmed)",
                ),
            ],
        ),
    ],
};
