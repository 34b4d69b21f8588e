//! An airport's bookings: airports, airlines, flights, bookings.

use super::{Family, Measure, Naming, choice, date, flag, link, number, status, things};

pub(super) const FLIGHTS: Family = Family {
    name: "flights",
    settings: &[
        "I work at the service desk of an airport.",
        "I book business trips for my colleagues.",
        "I'm checking next week's flights for a travel agency.",
    ],
    tables: &[
        things(
            ["airport", "airports"],
            &["airport", "airport_name"],
            Naming::Place,
            (12, 18),
            &[
                choice(
                    &["region", "zone"],
                    "region",
                    &["coast", "inland", "islands", "highlands"],
                    "in the region \"{}\"",
                ),
                number(
                    &["gates", "gate_count"],
                    "number of gates",
                    (4, 90, 1),
                    Measure::Sum("gates"),
                    ["with at least {} gates", "with at most {} gates"],
                    ["the {} with the most gates", "the {} with the fewest gates"],
                ),
            ],
        ),
        things(
            ["airline", "airlines"],
            &["airline", "carrier", "airline_name"],
            Naming::Listed(&[
                "Aerolinea Sol",
                "Baltic Wings",
                "Condor Line",
                "Delta Verde",
                "Eastway",
                "Fjord Air",
                "Globe Jet",
                "Highland Air",
                "Island Hopper",
                "Jetstream",
                "Kite Air",
                "Lagoon Air",
                "Meridian Fly",
                "Nordwind",
                "Orbit Air",
            ]),
            (12, 15),
            &[
                number(
                    &["punctuality", "on_time_rate"],
                    "punctuality",
                    (55, 98, 1),
                    Measure::Level("percent"),
                    ["with a punctuality of at least {} percent", "with a punctuality of at most {} percent"],
                    ["the {} with the highest punctuality", "the {} with the lowest punctuality"],
                ),
                flag(
                    &["alliance", "in_alliance"],
                    "alliance membership",
                    ["that belong to an alliance", "that belong to no alliance"],
                ),
            ],
        ),
        things(
            ["flight", "flights"],
            &["flight", "flight_number"],
            Naming::Lettered(&["AS", "BW", "CL", "EW", "FJ", "GJ", "HA", "KA", "NW", "OA"]),
            (42, 66),
            &[
                link(&["airline", "carrier", "operated_by"], "airline", 1, "operated by {}"),
                link(&["origin", "departs_from"], "origin", 0, "departing from {}"),
                link(&["destination", "arrives_at"], "destination", 0, "bound for {}"),
                date(
                    &["day", "departure_date"],
                    "departure date",
                    (20_410, 60),
                    ["leaving on or after {}", "leaving on or before {}"],
                    ["the {} that leaves last", "the {} that leaves first"],
                ),
                number(
                    &["duration", "minutes"],
                    "flying time",
                    (35, 620, 5),
                    Measure::Sum("minutes"),
                    ["taking at least {} minutes", "taking at most {} minutes"],
                    ["the longest {}", "the shortest {}"],
                ),
                number(
                    &["free_seats", "seats_left"],
                    "number of free seats",
                    (0, 120, 1),
                    Measure::Sum("free seats"),
                    ["with at least {} free seats", "with at most {} free seats"],
                    ["the {} with the most free seats", "the {} with the fewest free seats"],
                ),
                status(
                    &["status", "state"],
                    &["scheduled", "delayed", "cancelled"],
                    "with the status {}",
                    ("delayed", "cancelled"),
                    "Cancel {} (set the status to cancelled)",
                ),
            ],
        ),
        things(
            ["booking", "bookings"],
            &["booking_id", "booking", "reference"],
            Naming::Code("BK"),
            (48, 76),
            &[
                link(&["flight", "flight_number"], "flight", 2, "for {}"),
                choice(&["cabin", "travel_class"], "cabin", &["economy", "premium", "business"], "in the {} cabin"),
                number(
                    &["fare", "price"],
                    "fare",
                    (45, 1_900, 5),
                    Measure::Money("€"),
                    ["with a fare of at least {}", "with a fare of at most {}"],
                    ["the {} with the highest fare", "the {} with the lowest fare"],
                ),
                number(
                    &["bags", "checked_bags"],
                    "number of bags",
                    (0, 6, 1),
                    Measure::Sum("bags"),
                    ["with at least {} bags", "with at most {} bags"],
                    ["the {} with the most bags", "the {} with the fewest bags"],
                )
                .optional(),
            ],
        ),
    ],
};
