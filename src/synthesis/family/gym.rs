//! A gym: trainers, classes, members, class bookings.

use super::{Family, Measure, Naming, choice, date, link, number, people, status, things};

pub(super) const GYM: Family = Family {
    name: "gym",
    settings: &["I run a gym.", "I do the members' service at a gym.", "We're planning the next timetable of our gym."],
    tables: &[
        people(
            ["trainer", "trainers"],
            &["trainer", "coach", "trainer_name"],
            (10, 16),
            &[
                choice(&["focus", "discipline"], "focus", &["strength", "yoga", "boxing", "cycling"], "teaching {}"),
                number(
                    &["hourly_pay", "pay"],
                    "hourly pay",
                    (15, 60, 1),
                    Measure::Money("€"),
                    ["with a hourly pay of at least {}", "with a hourly pay of at most {}"],
                    ["the {} with the highest hourly pay", "the {} with the lowest hourly pay"],
                ),
            ],
        ),
        things(
            ["class", "classes"],
            &["class_name", "course", "session"],
            Naming::Pair(
                &["Morning", "Evening", "Lunch", "Power", "Gentle", "Deep"],
                &["Flow", "Spin", "Circuit", "Stretch", "Core", "Cardio"],
            ),
            (18, 28),
            &[
                link(&["trainer", "led_by"], "trainer", 0, "led by {}"),
                number(
                    &["minutes", "length"],
                    "length",
                    (20, 90, 5),
                    Measure::Sum("minutes"),
                    ["lasting at least {} minutes", "lasting at most {} minutes"],
                    ["the longest {}", "the shortest {}"],
                ),
                number(
                    &["places", "max_places"],
                    "number of places",
                    (6, 40, 1),
                    Measure::Sum("places"),
                    ["with at least {} places", "with at most {} places"],
                    ["the {} with the most places", "the {} with the fewest places"],
                ),
                choice(&["level", "difficulty"], "level", &["beginner", "intermediate", "advanced"], "at the {} level"),
            ],
        ),
        people(
            ["member", "members"],
            &["member", "member_name"],
            (30, 46),
            &[
                choice(&["plan", "membership"], "plan", &["basic", "plus", "family"], "on the {} plan"),
                date(
                    &["joined", "member_since"],
                    "joining date",
                    (18_000, 2_400),
                    ["who joined on or after {}", "who joined on or before {}"],
                    ["the {} who joined last", "the {} who joined first"],
                ),
                number(
                    &["age", "age_years"],
                    "age",
                    (16, 78, 1),
                    Measure::Level("years"),
                    ["aged {} or more", "aged {} or less"],
                    ["the oldest {}", "the youngest {}"],
                )
                .optional(),
                number(
                    &["visits", "visits_this_year"],
                    "number of visits this year",
                    (0, 190, 1),
                    Measure::Sum("visits this year"),
                    ["with at least {} visits this year", "with at most {} visits this year"],
                    ["the {} with the most visits this year", "the {} with the fewest visits this year"],
                ),
            ],
        ),
        things(
            ["class booking", "class bookings"],
            &["booking_id", "booking", "id"],
            Naming::Code("CB"),
            (56, 90),
            &[
                link(&["member", "booked_by"], "member", 2, "made by {}"),
                link(&["course", "booked_class"], "class", 1, "for {}"),
                date(
                    &["day", "class_date"],
                    "date",
                    (20_440, 30),
                    ["on or after {}", "on or before {}"],
                    ["the latest {}", "the earliest {}"],
                ),
                number(
                    &["credits", "credits_used"],
                    "number of credits",
                    (1, 6, 1),
                    Measure::Sum("credits"),
                    ["with at least {} credits", "with at most {} credits"],
                    ["the {} with the most credits", "the {} with the fewest credits"],
                ),
                status(
                    &["status", "state"],
                    &["booked", "attended", "missed"],
                    "with the status {}",
                    ("booked", "attended"),
                    "Check in {} (set the status to attended)",
                ),
            ],
        ),
    ],
};
