//! A parcel service: depots, couriers, parcels, complaints.

use super::{Family, Measure, Naming, choice, date, link, number, people, status, things};

pub(super) const POST: Family = Family {
    name: "post",
    settings: &[
        "I work for a parcel service.",
        "I'm the head of a parcel depot.",
        "A customer is on the phone, and I also have to finish a report on our parcels.",
    ],
    tables: &[
        things(
            ["depot", "depots"],
            &["depot", "depot_name"],
            Naming::Place,
            (10, 15),
            &[
                number(
                    &["ramps", "ramp_count"],
                    "number of ramps",
                    (2, 40, 1),
                    Measure::Sum("ramps"),
                    ["with at least {} ramps", "with at most {} ramps"],
                    ["the {} with the most ramps", "the {} with the fewest ramps"],
                ),
                choice(&["size", "depot_size"], "size", &["small", "medium", "large"], "of the size \"{}\""),
            ],
        ),
        people(
            ["courier", "couriers"],
            &["courier", "driver", "courier_name"],
            (18, 30),
            &[
                link(&["depot", "starts_from"], "depot", 0, "starting from {}"),
                number(
                    &["stops", "daily_stops"],
                    "number of daily stops",
                    (30, 190, 1),
                    Measure::Sum("daily stops"),
                    ["with at least {} daily stops", "with at most {} daily stops"],
                    ["the {} with the most daily stops", "the {} with the fewest daily stops"],
                ),
                choice(&["vehicle", "drives"], "vehicle", &["van", "cargo bike", "lorry"], "driving a {}"),
            ],
        ),
        things(
            ["parcel", "parcels"],
            &["parcel", "tracking_number"],
            Naming::Digits,
            (54, 84),
            &[
                link(&["courier", "delivered_by"], "courier", 1, "on the round of {}"),
                number(
                    &["weight", "weight_hg"],
                    "weight",
                    (2, 310, 1),
                    Measure::Tenths("kilogram"),
                    ["weighing at least {} kilograms", "weighing at most {} kilograms"],
                    ["the heaviest {}", "the lightest {}"],
                ),
                date(
                    &["posted", "posted_on"],
                    "posting date",
                    (20_430, 24),
                    ["posted on or after {}", "posted on or before {}"],
                    ["the most recently posted {}", "the {} that was posted first"],
                ),
                number(
                    &["insured", "insured_value"],
                    "insured value",
                    (50, 2_500, 50),
                    Measure::Money("€"),
                    ["with an insured value of at least {}", "with an insured value of at most {}"],
                    ["the {} with the highest insured value", "the {} with the lowest insured value"],
                )
                .optional(),
                status(
                    &["status", "state"],
                    &["in transit", "at the depot", "delivered", "returned"],
                    "with the status \"{}\"",
                    ("at the depot", "returned"),
                    "Send {} back (set the status to returned)",
                ),
                number(
                    &["postage", "postage_paid"],
                    "postage",
                    (3, 28, 1),
                    Measure::Money("€"),
                    ["with a postage of at least {}", "with a postage of at most {}"],
                    ["the {} with the highest postage", "the {} with the lowest postage"],
                ),
            ],
        ),
        things(
            ["complaint", "complaints"],
            &["complaint_id", "complaint", "id"],
            Naming::Code("CP"),
            (34, 54),
            &[
                link(&["parcel", "tracking_number"], "parcel", 2, "about the parcel {}"),
                choice(&["reason", "topic"], "reason", &["late", "damaged", "lost", "rude"], "with the reason \"{}\""),
                number(
                    &["compensation", "refund"],
                    "compensation",
                    (0, 400, 5),
                    Measure::Money("€"),
                    ["with a compensation of at least {}", "with a compensation of at most {}"],
                    ["the {} with the highest compensation", "the {} with the lowest compensation"],
                ),
                number(
                    &["letters", "letters_exchanged"],
                    "number of letters",
                    (2, 14, 1),
                    Measure::Sum("letters"),
                    ["with at least {} letters", "with at most {} letters"],
                    ["the {} with the most letters", "the {} with the fewest letters"],
                ),
            ],
        ),
    ],
};
