//! A town election: districts, parties, candidates, polling stations, count sheets.

use super::{Family, Measure, Naming, choice, flag, link, number, people, status, things};

pub(super) const ELECTION: Family = Family {
    name: "election",
    settings: &[
        "I work at the town's election office.",
        "I'm a reporter and cover the council election.",
        "I'm checking the records of our election for mistakes.",
    ],
    tables: &[
        things(
            ["district", "districts"],
            &["district", "ward", "district_name"],
            Naming::Place,
            (10, 14),
            &[number(
                &["voters", "registered_voters"],
                "number of registered voters",
                (900, 24_000, 10),
                Measure::Sum("registered voters"),
                ["with at least {} registered voters", "with at most {} registered voters"],
                ["the {} with the most registered voters", "the {} with the fewest registered voters"],
            )],
        ),
        things(
            ["party", "parties"],
            &["party", "list_name"],
            Naming::Listed(&[
                "Civic Union",
                "Democratic Alliance",
                "Free Citizens",
                "Future List",
                "Green Bloc",
                "Labour Front",
                "Liberal Circle",
                "New Centre",
                "People's List",
                "Progress Party",
                "Town First",
                "Unity Party",
            ]),
            (8, 12),
            &[
                number(
                    &["founded", "founding_year"],
                    "founding year",
                    (1_889, 2_024, 1),
                    Measure::Level("year"),
                    ["founded in {} or later", "founded in {} or earlier"],
                    ["the youngest {}", "the oldest {}"],
                ),
                number(
                    &["members", "member_count"],
                    "number of members",
                    (40, 5_200, 10),
                    Measure::Sum("members"),
                    ["with at least {} members", "with at most {} members"],
                    ["the {} with the most members", "the {} with the fewest members"],
                ),
            ],
        ),
        people(
            ["candidate", "candidates"],
            &["candidate", "candidate_name"],
            (32, 50),
            &[
                link(&["party", "nominated_by"], "party", 1, "nominated by {}"),
                link(&["district", "runs_in"], "district", 0, "running in {}"),
                number(
                    &["age", "age_years"],
                    "age",
                    (19, 80, 1),
                    Measure::Level("years"),
                    ["aged {} or more", "aged {} or less"],
                    ["the oldest {}", "the youngest {}"],
                )
                .optional(),
                number(
                    &["donations", "donations_received"],
                    "donations",
                    (0, 48_000, 100),
                    Measure::Money("€"),
                    ["with at least {} in donations", "with at most {} in donations"],
                    ["the {} with the most donations", "the {} with the fewest donations"],
                ),
                flag(
                    &["incumbent", "in_council"],
                    "whether they sit in the council",
                    ["who sit in the council already", "who do not sit in the council yet"],
                ),
            ],
        ),
        things(
            ["polling station", "polling stations"],
            &["polling_station", "station_code"],
            Naming::Code("PS"),
            (24, 36),
            &[
                link(&["district", "located_in"], "district", 0, "in {}"),
                number(
                    &["booths", "booth_count"],
                    "number of booths",
                    (2, 14, 1),
                    Measure::Sum("booths"),
                    ["with at least {} booths", "with at most {} booths"],
                    ["the {} with the most booths", "the {} with the fewest booths"],
                ),
                choice(
                    &["place", "building"],
                    "building",
                    &["school", "church hall", "library", "fire station"],
                    "set up in a {}",
                ),
            ],
        ),
        things(
            ["count sheet", "count sheets"],
            &["sheet_id", "sheet", "id"],
            Naming::Code("CS"),
            (60, 95),
            &[
                link(&["station", "counted_at"], "polling station", 3, "from the polling station {}"),
                link(&["candidate", "votes_for"], "candidate", 2, "for {}"),
                number(
                    &["votes", "vote_count"],
                    "number of votes",
                    (2, 640, 1),
                    Measure::Sum("votes"),
                    ["with at least {} votes", "with at most {} votes"],
                    ["the {} with the most votes", "the {} with the fewest votes"],
                ),
                status(
                    &["status", "state"],
                    &["received", "checked", "disputed"],
                    "that are {}",
                    ("received", "checked"),
                    "Mark {} as checked (set the status to checked)",
                ),
            ],
        ),
    ],
};
