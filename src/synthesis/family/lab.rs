//! A laboratory: freezers, boxes, donors, samples, assays.

use super::{Family, Measure, Naming, choice, date, flag, link, number, status, things};

pub(super) const LAB: Family = Family {
    name: "lab",
    settings: &[
        "I manage the sample store of a laboratory.",
        "I'm a doctoral student and need samples for my assays.",
        "Our laboratory will be inspected next week.",
    ],
    tables: &[
        things(
            ["freezer", "freezers"],
            &["freezer", "freezer_name"],
            Naming::Numbered("Freezer"),
            (8, 12),
            &[
                number(
                    &["degrees", "degrees_below_zero"],
                    "degrees below zero",
                    (20, 90, 5),
                    Measure::Level("degrees"),
                    ["running at least {} degrees below zero", "running at most {} degrees below zero"],
                    ["the coldest {}", "the warmest {}"],
                ),
                flag(&["alarm", "has_alarm"], "alarm", ["with an alarm", "without an alarm"]),
            ],
        ),
        things(
            ["box", "boxes"],
            &["box_id", "rack_box", "box_code"],
            Naming::Code("BX"),
            (20, 32),
            &[
                link(&["freezer", "kept_in"], "freezer", 0, "kept in {}"),
                number(
                    &["places", "free_places"],
                    "number of free places",
                    (0, 81, 1),
                    Measure::Sum("free places"),
                    ["with at least {} free places", "with at most {} free places"],
                    ["the {} with the most free places", "the {} with the fewest free places"],
                ),
                choice(&["colour", "lid_colour"], "colour", &["blue", "red", "yellow"], "with a {} lid"),
            ],
        ),
        things(
            ["donor", "donors"],
            &["donor", "donor_code"],
            Naming::Code("DN"),
            (20, 30),
            &[
                choice(&["group", "blood_group"], "blood group", &["A", "B", "AB", "O"], "with the blood group {}"),
                number(
                    &["age", "age_years"],
                    "age",
                    (18, 84, 1),
                    Measure::Level("years"),
                    ["that are at least {} years old", "that are at most {} years old"],
                    ["the oldest {}", "the youngest {}"],
                ),
            ],
        ),
        things(
            ["sample", "samples"],
            &["sample", "sample_code"],
            Naming::Code("SM"),
            (46, 70),
            &[
                link(&["box", "stored_in"], "box", 1, "stored in the box {}"),
                link(&["donor", "taken_from"], "donor", 2, "taken from the donor {}"),
                choice(
                    &["material", "tissue"],
                    "material",
                    &["serum", "plasma", "saliva", "tissue"],
                    "consisting of {}",
                ),
                number(
                    &["volume", "microlitres"],
                    "volume",
                    (50, 2_000, 50),
                    Measure::Sum("microlitres"),
                    ["of at least {} microlitres", "of at most {} microlitres"],
                    ["the largest {}", "the smallest {}"],
                ),
                date(
                    &["taken", "taken_on"],
                    "sampling date",
                    (18_800, 1_600),
                    ["taken on or after {}", "taken on or before {}"],
                    ["the newest {}", "the oldest {}"],
                ),
            ],
        ),
        things(
            ["assay", "assays"],
            &["assay_id", "assay", "id"],
            Naming::Code("AS"),
            (50, 78),
            &[
                link(&["sample", "sample_code"], "sample", 3, "of the sample {}"),
                choice(&["method", "technique"], "method", &["PCR", "ELISA", "sequencing"], "by {}"),
                number(
                    &["reading", "signal"],
                    "reading",
                    (1, 980, 1),
                    Measure::Tenths("unit"),
                    ["with a reading of at least {} units", "with a reading of at most {} units"],
                    ["the {} with the highest reading", "the {} with the lowest reading"],
                )
                .optional(),
                number(
                    &["cost", "price"],
                    "cost",
                    (5, 320, 1),
                    Measure::Money("€"),
                    ["with a cost of at least {}", "with a cost of at most {}"],
                    ["the {} with the highest cost", "the {} with the lowest cost"],
                ),
                status(
                    &["status", "state"],
                    &["running", "valid", "repeat"],
                    "with the status \"{}\"",
                    ("running", "repeat"),
                    "Mark {} for repetition (set the status to repeat)",
                ),
            ],
        ),
    ],
};
