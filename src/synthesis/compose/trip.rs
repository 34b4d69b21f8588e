//! Trips: for every day a city, a hotel, two restaurants and an attraction.

use super::phrase::day;
use crate::environment::tables::{Date, Value};
use crate::synthesis::family::trip::FIRST_DAY;
use crate::synthesis::instance::Instance;
use crate::synthesis::program::{Comparison, Constraint, Group, Rows, Slot, Slots};
use crate::synthesis::seed::Stream;

/// A plan that is asked for.
#[derive(Debug, Clone)]
pub(super) struct Trip {
    days: usize,
    start: String,
    /// The lowest rating of every hotel, in tenths.
    hotel_rating: Option<i64>,
    /// Days whose budget depends on the hotel, from 0.
    budgets: Vec<Budget>,
}

/// What a day may cost beside the hotel, by the hotel's price.
#[derive(Debug, Clone)]
struct Budget {
    day: usize,
    /// From which price on a hotel is dear, and from which it is of middle price; in yuan.
    dear: i64,
    middle: i64,
    /// The most for both meals, and for the ticket by dear and middle hotels.
    meals: i64,
    dear_ticket: i64,
    middle_ticket: i64,
    /// Lowest ratings in tenths.
    good: i64,
    fair: i64,
}

const FIELDS: [(&str, &str); 5] = [
    ("city", "cities"),
    ("hotel", "hotels"),
    ("afternoon_restaurant", "restaurants"),
    ("afternoon_attraction", "attractions"),
    ("evening_restaurant", "restaurants"),
];

impl Trip {
    pub fn first(instance: &Instance, stream: &mut Stream) -> Option<Self> {
        let table = instance.database.table("cities")?;
        let Value::Text(start) = &stream.pick(table.rows())?[0] else { return None };
        Some(Self { days: 1, start: start.clone(), hotel_rating: None, budgets: Vec::new() })
    }

    pub fn harder(&self, _: &Instance, stream: &mut Stream) -> Option<Self> {
        let mut trip = self.clone();
        if trip.days < 3 {
            trip.days += 1;
            if trip.days == 2 {
                trip.hotel_rating = Some(stream.between(28, 34));
            }
            return Some(trip);
        }
        let day = [1, 2, 0].get(trip.budgets.len()).copied()?;
        trip.budgets.push(Budget {
            day,
            dear: stream.between(7, 9) * 100,
            middle: stream.between(4, 6) * 100,
            meals: stream.between(20, 36) * 10,
            dear_ticket: stream.between(9, 14) * 10,
            middle_ticket: stream.between(15, 19) * 10,
            good: stream.between(38, 42),
            fair: stream.between(31, 35),
        });
        Some(trip)
    }

    fn date(day: usize) -> Date {
        Date::from_days(FIRST_DAY + i64::try_from(day).unwrap_or_default())
    }

    pub fn slots(&self, _: &Instance) -> Slots {
        let slot = |day: usize, field: usize| day * FIELDS.len() + field;
        let mut constraints = Vec::new();
        for day in 0..self.days {
            for field in 1..FIELDS.len() {
                constraints.push(Constraint::Link {
                    slot: slot(day, field),
                    column: "city".to_string(),
                    other: slot(day, 0),
                });
            }
            constraints.push(Constraint::Each {
                slots: vec![slot(day, 0)],
                column: "city".to_string(),
                comparison: Comparison::Unequal,
                value: Value::from(self.start.as_str()),
            });
            if let Some(rating) = self.hotel_rating {
                constraints.push(Constraint::Each {
                    slots: vec![slot(day, 1)],
                    column: "rating".to_string(),
                    comparison: Comparison::AtLeast,
                    value: Value::Integer(rating),
                });
            }
        }
        for (column, fields) in [("city", &[0][..]), ("hotel", &[1]), ("restaurant", &[2, 4]), ("attraction", &[3])] {
            let slots: Vec<usize> =
                (0..self.days).flat_map(|day| fields.iter().map(move |field| slot(day, *field))).collect();
            if slots.len() > 1 {
                constraints.push(Constraint::Distinct { slots, column: column.to_string() });
            }
        }
        for budget in &self.budgets {
            let (hotel, ticket) = (slot(budget.day, 1), slot(budget.day, 3));
            let meals = vec![slot(budget.day, 2), slot(budget.day, 4)];
            let rated = |value: i64| ("rating".to_string(), Comparison::AtLeast, Value::Integer(value));
            let below = |value: i64| Constraint::Each {
                slots: vec![ticket],
                column: "ticket_cents".to_string(),
                comparison: Comparison::Below,
                value: Value::Money(value * 100),
            };
            let when = |least: i64, most: i64, then: Vec<Constraint>| Constraint::When {
                slot: hotel,
                column: "price_cents".to_string(),
                least: least * 100,
                most: most * 100 - 1,
                then,
            };
            let (column, comparison, value) = rated(budget.good);
            let both =
                Constraint::Each { slots: meals.clone(), column: column.clone(), comparison, value: value.clone() };
            let one = Constraint::Some { slots: meals.clone(), column, comparison, value };
            let (column, comparison, value) = rated(budget.fair);
            let fair = Constraint::Some { slots: meals.clone(), column, comparison, value };
            let sum = Constraint::Sum {
                slots: meals,
                column: "price_cents".to_string(),
                comparison: Comparison::Below,
                value: budget.meals * 100,
            };
            constraints.push(when(budget.dear, 100_000, vec![sum, both, below(budget.dear_ticket)]));
            constraints.push(when(budget.middle, budget.dear, vec![one, below(budget.middle_ticket)]));
            constraints.push(when(0, budget.middle, vec![fair]));
        }
        let group = |day: usize| Group {
            given: vec![("time".to_string(), Self::date(day).to_string())],
            slots: FIELDS
                .iter()
                .map(|(name, table)| Slot { name: (*name).to_string(), rows: Rows::of(*table) })
                .collect(),
        };
        Slots { groups: (0..self.days).map(group).collect(), constraints }
    }

    pub fn question(&self, _: &Instance, wording: usize) -> String {
        let start = &self.start;
        let (first, last) = (day(Self::date(0)), day(Self::date(self.days - 1)));
        let when = if self.days == 1 { format!("on {first}") } else { format!("from {first} to {last}") };
        let length = ["a day trip", "a two-day trip", "a three-day trip"][self.days.clamp(1, 3) - 1];
        let mut text = match wording {
            0 => format!("I live in {start} and want to make {length} {when}."),
            1 => format!("We set out from {start} for {length} {when}."),
            _ => format!("Can you plan {length} for me, starting in {start}, {when}?"),
        };
        text.push_str(
            " For every day I need a city other than the one I start from, a hotel for the night, a restaurant and an \
             attraction for the afternoon, and a restaurant for the evening, all of them in that day's city.",
        );
        text.push_str(if self.days > 1 {
            " Don't repeat any city, hotel, attraction or restaurant during the whole trip."
        } else {
            " The two restaurants must be different ones."
        });
        let stars = |tenths: i64| format!("{}.{}", tenths / 10, tenths % 10);
        if let Some(rating) = self.hotel_rating {
            text.push_str(&format!(" Every hotel should have at least {} stars.", stars(rating)));
        }
        for budget in &self.budgets {
            let place = ["first", "second", "third"][budget.day.min(2)];
            let Budget { dear, middle, meals, dear_ticket, middle_ticket, .. } = budget;
            let (good, fair) = (stars(budget.good), stars(budget.fair));
            text.push_str(&format!(
                " I want to be careful with money on the {place} day. If the hotel costs ¥{dear} or more, both \
                 restaurants together have to cost less than ¥{meals}, each of them needs at least {good} stars, and \
                 the ticket for the attraction has to be below ¥{dear_ticket}. If the hotel costs at least ¥{middle} \
                 but less than ¥{dear}, at least one of the restaurants should have {good} stars or more, and the \
                 ticket has to be below ¥{middle_ticket}. If the hotel is cheaper than that, at least one of the \
                 restaurants should have {fair} stars or more."
            ));
        }
        text
    }

    pub fn form(&self) -> String {
        let fields: Vec<String> = FIELDS.iter().map(|(name, _)| format!("\"{name}\": \"...\"")).collect();
        format!(
            "Submit a JSON list with one object a day, in this form: [{{\"time\": \"{}\", {}}}{}].",
            Self::date(0),
            fields.join(", "),
            if self.days > 1 { ", ..." } else { "" }
        )
    }
}
