//! What a cell of a table holds.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value as JsonValue;

/// The type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// `true` or `false`.
    Boolean,
    /// A whole number.
    Integer,
    /// An amount of money in cents.
    Money,
    /// A day.
    Date,
    /// A text.
    Text,
}

impl Kind {
    /// Its JSON Schema.
    pub fn schema(self) -> JsonValue {
        match self {
            Self::Boolean => serde_json::json!({"type": "boolean"}),
            Self::Integer | Self::Money => serde_json::json!({"type": "integer"}),
            Self::Date => serde_json::json!({"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"}),
            Self::Text => serde_json::json!({"type": "string"}),
        }
    }

    /// What it is called in an error.
    pub fn name(self) -> &'static str {
        match self {
            Self::Boolean => "true or false",
            Self::Integer => "a whole number",
            Self::Money => "a whole number of cents",
            Self::Date => "a date as YYYY-MM-DD",
            Self::Text => "a text",
        }
    }
}

/// A cell. Numbers are whole, so that a value is the same on every machine; values of one kind have an order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Value {
    /// Nothing.
    Null,
    /// `true` or `false`.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// An amount in cents.
    Money(i64),
    /// A day.
    Date(Date),
    /// A text.
    Text(String),
}

impl Value {
    /// The value in JSON: money as whole cents, a date as `YYYY-MM-DD`.
    pub fn to_json(&self) -> JsonValue {
        match self {
            Self::Null => JsonValue::Null,
            Self::Boolean(value) => JsonValue::from(*value),
            Self::Integer(value) | Self::Money(value) => JsonValue::from(*value),
            Self::Date(date) => JsonValue::from(date.to_string()),
            Self::Text(text) => JsonValue::from(text.as_str()),
        }
    }

    /// Reads JSON as a value of a kind; `null` is [`Self::Null`].
    ///
    /// # Errors
    /// The JSON is of another kind; the text says what was expected.
    pub fn from_json(kind: Kind, json: &JsonValue) -> Result<Self, String> {
        let value = match (kind, json) {
            (_, JsonValue::Null) => Some(Self::Null),
            (Kind::Boolean, JsonValue::Bool(value)) => Some(Self::Boolean(*value)),
            (Kind::Integer, JsonValue::Number(number)) => number.as_i64().map(Self::Integer),
            (Kind::Money, JsonValue::Number(number)) => number.as_i64().map(Self::Money),
            (Kind::Date, JsonValue::String(text)) => Date::parse(text).map(Self::Date),
            (Kind::Text, JsonValue::String(text)) => Some(Self::Text(text.clone())),
            _ => None,
        };
        value.ok_or_else(|| format!("{json} is not {}", kind.name()))
    }

    /// Whether the value may stand in a column of a kind.
    pub fn is_a(&self, kind: Kind) -> bool {
        match self {
            Self::Null => true,
            Self::Boolean(_) => kind == Kind::Boolean,
            Self::Integer(_) => kind == Kind::Integer,
            Self::Money(_) => kind == Kind::Money,
            Self::Date(_) => kind == Kind::Date,
            Self::Text(_) => kind == Kind::Text,
        }
    }

    /// The number that the value is: cents of money, days since 1970 of a date.
    pub fn number(&self) -> Option<i64> {
        match self {
            Self::Integer(value) | Self::Money(value) => Some(*value),
            Self::Date(date) => Some(i64::from(date.days)),
            _ => None,
        }
    }

    /// The value of the same kind with another number.
    pub fn with_number(&self, number: i64) -> Self {
        match self {
            Self::Money(_) => Self::Money(number),
            Self::Date(_) => Self::Date(Date::from_days(number)),
            _ => Self::Integer(number),
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_string())
    }
}

/// A day of the Gregorian calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Date {
    days: i32,
}

/// The days from 0001-01-01 and to 9999-12-31, counted from 1970-01-01.
const DAYS: std::ops::RangeInclusive<i64> = -719_162..=2_932_896;

impl Date {
    /// The day so many days after 1970-01-01; a day before the year 1 or after 9999 becomes the nearest one there is.
    pub fn from_days(days: i64) -> Self {
        let days = days.clamp(*DAYS.start(), *DAYS.end());
        Self { days: i32::try_from(days).unwrap_or_default() }
    }

    /// A day by its year, month and day; `None` if there is no such day.
    pub fn new(year: i32, month: u32, day: u32) -> Option<Self> {
        if !(1..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
            return None;
        }
        // Years begin in March here, so that the leap day is the last one.
        let (y, m) = (i64::from(year) - i64::from(month <= 2), i64::from((month + 9) % 12));
        let (era, of_era) = (y.div_euclid(400), y.rem_euclid(400));
        let of_year = (153 * m + 2) / 5 + i64::from(day) - 1;
        let date = Self::from_days(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468);
        (date.parts() == (year, month, day)).then_some(date)
    }

    /// Reads `YYYY-MM-DD`.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse::<u32>().ok())?;
        let (year, rest) = text.split_once('-')?;
        let (month, day) = rest.split_once('-')?;
        if (year.len(), month.len(), day.len()) != (4, 2, 2) {
            return None;
        }
        Self::new(i32::try_from(digits(year)?).ok()?, digits(month)?, digits(day)?)
    }

    /// Days since 1970-01-01.
    pub fn days(self) -> i64 {
        i64::from(self.days)
    }

    /// Year, month and day.
    pub fn parts(self) -> (i32, u32, u32) {
        let shifted = i64::from(self.days) + 719_468;
        let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let m = (5 * of_year + 2) / 153;
        let (day, month) = (of_year - (153 * m + 2) / 5 + 1, if m < 10 { m + 3 } else { m - 9 });
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        let small = |number: i64| u32::try_from(number).unwrap_or_default();
        (i32::try_from(year).unwrap_or_default(), small(month), small(day))
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.parts();
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

impl Serialize for Date {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Date {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom(format!("{text:?} is no date")))
    }
}
