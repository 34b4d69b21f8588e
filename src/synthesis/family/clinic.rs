//! A clinic: doctors, rooms, patients, appointments.

use super::{Entity, Family, Measure, Naming, choice, date, flag, link, number, status};

pub(super) const CLINIC: Family = Family {
    name: "clinic",
    settings: &[
        "I organise the appointments of our clinic.",
        "I'm at the reception of the clinic and the phone does not stop ringing.",
        "We are planning next month's duty at the clinic.",
    ],
    tables: &[
        Entity {
            noun: "doctor",
            plural: "doctors",
            who: true,
            keys: &["doctor", "physician", "doctor_name"],
            naming: Naming::Person,
            rows: (14, 24),
            fields: &[
                choice(
                    &["speciality", "field"],
                    "speciality",
                    &["cardiology", "paediatrics", "surgery", "neurology", "dermatology"],
                    "working in {}",
                ),
                number(
                    &["fee", "consultation_fee"],
                    "fee",
                    (40, 320, 5),
                    Measure::Money("€"),
                    ["charging at least {}", "charging at most {}"],
                    ["the {} with the highest fee", "the {} with the lowest fee"],
                ),
                number(
                    &["experience", "years_in_practice"],
                    "experience",
                    (1, 38, 1),
                    Measure::Level("years"),
                    ["with at least {} years of experience", "with at most {} years of experience"],
                    ["the most experienced {}", "the least experienced {}"],
                ),
            ],
        },
        Entity {
            noun: "room",
            plural: "rooms",
            who: false,
            keys: &["room", "room_code"],
            naming: Naming::Code("R"),
            rows: (12, 20),
            fields: &[
                choice(&["wing", "building"], "wing", &["east wing", "west wing", "annex"], "in the {}"),
                number(
                    &["area", "size"],
                    "area",
                    (12, 70, 1),
                    Measure::Sum("square metres"),
                    ["of at least {} square metres", "of at most {} square metres"],
                    ["the largest {}", "the smallest {}"],
                ),
                flag(
                    &["accessible", "step_free"],
                    "step-free access",
                    ["with step-free access", "without step-free access"],
                ),
            ],
        },
        Entity {
            noun: "patient",
            plural: "patients",
            who: true,
            keys: &["patient", "patient_name"],
            naming: Naming::Person,
            rows: (26, 42),
            fields: &[
                choice(
                    &["insurance", "insurer"],
                    "insurance",
                    &["public", "private", "none"],
                    "with the insurance type \"{}\"",
                ),
                number(
                    &["age", "age_years"],
                    "age",
                    (2, 92, 1),
                    Measure::Level("years"),
                    ["aged {} or older", "aged {} or younger"],
                    ["the oldest {}", "the youngest {}"],
                ),
                date(
                    &["last_visit", "seen_last"],
                    "last visit",
                    (19_800, 480),
                    ["last seen on or after {}", "last seen on or before {}"],
                    ["the {} who was seen most recently", "the {} whose last visit is longest ago"],
                ),
            ],
        },
        Entity {
            noun: "appointment",
            plural: "appointments",
            who: false,
            keys: &["appointment_id", "appointment", "id"],
            naming: Naming::Code("AP"),
            rows: (50, 85),
            fields: &[
                link(&["doctor", "physician", "with_doctor"], "doctor", 0, "with {}"),
                link(&["patient", "patient_name"], "patient", 2, "of {}"),
                link(&["room", "room_code"], "room", 1, "in {}"),
                date(
                    &["day", "date", "scheduled_for"],
                    "date",
                    (20_400, 75),
                    ["on or after {}", "on or before {}"],
                    ["the latest {}", "the earliest {}"],
                ),
                number(
                    &["duration", "minutes", "length"],
                    "duration",
                    (10, 120, 5),
                    Measure::Sum("minutes"),
                    ["of at least {} minutes", "of at most {} minutes"],
                    ["the longest {}", "the shortest {}"],
                ),
                status(
                    &["status", "state"],
                    &["requested", "confirmed", "done", "missed"],
                    "with the status {}",
                    ("requested", "confirmed"),
                    "Confirm {} (set the status to confirmed)",
                ),
            ],
        },
    ],
};
