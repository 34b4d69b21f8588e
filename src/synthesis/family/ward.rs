//! A hospital: wards, beds, doctors, patients, medication orders.

use super::{Family, Measure, Naming, choice, date, flag, link, number, people, status, things};

pub(super) const WARD: Family = Family {
    name: "ward",
    settings: &[
        "I'm the head nurse of the surgical department.",
        "I coordinate admissions at our hospital.",
        "We are preparing the morning round.",
    ],
    tables: &[
        things(
            ["ward", "wards"],
            &["ward", "ward_name", "unit"],
            Naming::Pair(
                &["East", "West", "North", "South", "Upper", "Lower"],
                &["Surgery", "Cardiology", "Paediatrics", "Neurology", "Oncology"],
            ),
            (9, 14),
            &[
                choice(&["floor", "storey"], "floor", &["first", "second", "third", "fourth"], "on the {} floor"),
                number(
                    &["nurses_per_shift", "staffing"],
                    "number of nurses on a shift",
                    (2, 12, 1),
                    Measure::Sum("nurses on a shift"),
                    ["with at least {} nurses on a shift", "with at most {} nurses on a shift"],
                    ["the {} with the most nurses on a shift", "the {} with the fewest nurses on a shift"],
                ),
            ],
        ),
        things(
            ["bed", "beds"],
            &["bed", "bed_code"],
            Naming::Code("BED"),
            (30, 44),
            &[
                link(&["ward", "ward_name"], "ward", 0, "in {}"),
                flag(&["monitor", "has_monitor"], "monitor", ["with a monitor", "without a monitor"]),
                number(
                    &["age", "age_years"],
                    "age",
                    (1, 15, 1),
                    Measure::Level("years"),
                    ["that are at least {} years old", "that are at most {} years old"],
                    ["the oldest {}", "the newest {}"],
                ),
            ],
        ),
        people(
            ["doctor", "doctors"],
            &["doctor", "physician", "doctor_name"],
            (12, 20),
            &[
                choice(
                    &["specialty", "discipline"],
                    "specialty",
                    &["surgery", "cardiology", "neurology", "anaesthesia"],
                    "specialised in {}",
                ),
                number(
                    &["years", "years_of_service"],
                    "years of service",
                    (1, 34, 1),
                    Measure::Level("years"),
                    ["with at least {} years of service", "with at most {} years of service"],
                    ["the longest serving {}", "the {} with the shortest service"],
                ),
            ],
        ),
        people(
            ["patient", "patients"],
            &["patient", "patient_name"],
            (34, 54),
            &[
                link(&["bed", "bed_code"], "bed", 1, "lying in {}"),
                link(&["doctor", "attending"], "doctor", 2, "treated by {}"),
                date(
                    &["admitted", "admission_date"],
                    "date of admission",
                    (20_400, 50),
                    ["admitted on or after {}", "admitted on or before {}"],
                    ["the most recently admitted {}", "the {} who was admitted first"],
                ),
                number(
                    &["temperature", "fever"],
                    "body temperature",
                    (361, 402, 1),
                    Measure::Tenths("degree"),
                    ["with a body temperature of at least {} degrees", "with a body temperature of at most {} degrees"],
                    ["the {} with the highest body temperature", "the {} with the lowest body temperature"],
                )
                .optional(),
                number(
                    &["visits", "visitor_count"],
                    "number of visits",
                    (0, 14, 1),
                    Measure::Sum("visits"),
                    ["with at least {} visits", "with at most {} visits"],
                    ["the {} with the most visits", "the {} with the fewest visits"],
                ),
            ],
        ),
        things(
            ["medication order", "medication orders"],
            &["order_id", "order", "id"],
            Naming::Code("MO"),
            (50, 80),
            &[
                link(&["patient", "patient_name"], "patient", 3, "for {}"),
                choice(
                    &["drug", "medication"],
                    "drug",
                    &["paracetamol", "ibuprofen", "amoxicillin", "heparin", "metformin"],
                    "of {}",
                ),
                number(
                    &["dose", "dose_mg"],
                    "daily dose",
                    (25, 2_000, 25),
                    Measure::Sum("milligrams"),
                    ["of at least {} milligrams a day", "of at most {} milligrams a day"],
                    ["the {} with the highest daily dose", "the {} with the lowest daily dose"],
                ),
                status(
                    &["status", "state"],
                    &["prescribed", "given", "stopped"],
                    "with the status \"{}\"",
                    ("prescribed", "stopped"),
                    "Stop {} (set the status to stopped)",
                ),
            ],
        ),
    ],
};
