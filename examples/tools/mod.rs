//! Tools that really do something, without a network.

pub mod expression;

use std::time::{SystemTime, UNIX_EPOCH};

use deepseek_v32::chat::{Json, Tool, ToolError};
use deepseek_v32::environment::{ToolFailure, Toolbox};

/// Calculator, clock, unit conversion and the price list in `shop.csv`. The embedded checkpoint reads up to four
/// definitions with parameters of strings and numbers, worded as those it was trained on.
pub fn toolbox() -> Result<Toolbox, ToolError> {
    Toolbox::new()
        .with(tool("calculate_math", "Calculator for two numbers.", &[("expression", "string")]), |arguments| {
            Ok(number(expression::evaluate(text(arguments, "expression")?)?))
        })?
        .with(tool("get_time", "Local clock time for a city.", &[("city", "string")]), |arguments| {
            clock(text(arguments, "city")?)
        })?
        .with(
            tool(
                "convert_unit",
                "Converts a value between units.",
                &[("value", "number"), ("from", "string"), ("to", "string")],
            ),
            |arguments| {
                let value = arguments.get("value").ok_or("`value` is missing")?;
                let value: f64 = value.as_str().map_or_else(|| value.to_string(), str::to_string).parse()?;
                convert(value, text(arguments, "from")?, text(arguments, "to")?)
            },
        )?
        .with(tool("lookup_price", "Price of an article in the shop.", &[("article", "string")]), |arguments| {
            price(text(arguments, "article")?)
        })
}

/// A tool with parameters `(name, type)`, all of them required.
pub fn tool(name: &str, description: &str, parameters: &[(&str, &str)]) -> Tool {
    let string = |text: &str| Json::String(text.to_string());
    let object = |entries: Vec<(String, Json)>| Json::Object(entries);
    let kind = |(name, kind): &(&str, &str)| (name.to_string(), object(vec![("type".to_string(), string(kind))]));
    let schema = object(vec![
        ("type".to_string(), string("object")),
        ("properties".to_string(), object(parameters.iter().map(kind).collect())),
        ("required".to_string(), Json::Array(parameters.iter().map(|(name, _)| string(name)).collect())),
    ]);
    Tool::new(name, description, schema)
}

fn text<'a>(arguments: &'a Json, name: &str) -> Result<&'a str, ToolFailure> {
    Ok(arguments.get(name).and_then(Json::as_str).ok_or_else(|| format!("`{name}` is missing or no string"))?)
}

/// A number without needless digits.
fn number(value: f64) -> String {
    let rounded = (value * 1e6).round() / 1e6;
    if rounded.is_finite() { rounded.to_string() } else { value.to_string() }
}

/// Hours that standard time is ahead of UTC.
const CITIES: &[(&str, f64)] = &[
    ("Beijing", 8.0),
    ("Berlin", 1.0),
    ("Chicago", -6.0),
    ("Delhi", 5.5),
    ("Lisbon", 0.0),
    ("London", 0.0),
    ("Madrid", 1.0),
    ("Mumbai", 5.5),
    ("Nairobi", 3.0),
    ("Oslo", 1.0),
    ("Paris", 1.0),
    ("Shanghai", 8.0),
    ("Singapore", 8.0),
    ("Sydney", 10.0),
    ("Tokyo", 9.0),
];

/// The time in a city, without daylight saving.
fn clock(city: &str) -> Result<String, ToolFailure> {
    let known = CITIES.iter().find(|(name, _)| name.eq_ignore_ascii_case(city.trim()));
    let (_, hours) = known.ok_or_else(|| {
        let names: Vec<&str> = CITIES.iter().map(|(name, _)| *name).collect();
        format!("no such city; known are {}", names.join(", "))
    })?;
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() as i64 + (hours * 3600.0) as i64;
    let minutes = seconds.rem_euclid(24 * 3600) / 60;
    Ok(format!("{:02}:{:02}", minutes / 60, minutes % 60))
}

/// Units: what they measure, name, in the base unit of that.
const UNITS: &[(char, &str, f64)] = &[
    ('l', "meters", 1.0),
    ('l', "kilometers", 1000.0),
    ('l', "centimeters", 0.01),
    ('l', "miles", 1609.344),
    ('l', "feet", 0.3048),
    ('m', "grams", 1.0),
    ('m', "kilograms", 1000.0),
    ('m', "pounds", 453.592_37),
    ('t', "seconds", 1.0),
    ('t', "minutes", 60.0),
    ('t', "hours", 3600.0),
    ('t', "days", 86_400.0),
];

fn convert(value: f64, source: &str, target: &str) -> Result<String, ToolFailure> {
    let unit = |name: &str| {
        let name = name.trim().to_lowercase();
        let is = |unit: &&(char, &str, f64)| unit.1 == name || unit.1.strip_suffix('s') == Some(&name);
        UNITS.iter().find(is).ok_or_else(|| {
            let names: Vec<&str> = UNITS.iter().map(|unit| unit.1).collect();
            format!("no such unit: {name:?}; known are {}", names.join(", "))
        })
    };
    let (from, to) = (unit(source)?, unit(target)?);
    if from.0 != to.0 {
        return Err(format!("{} can't be converted to {}", from.1, to.1).into());
    }
    Ok(format!("{} {}", number(value * from.2 / to.2), to.1))
}

/// A price in `shop.csv`.
fn price(article: &str) -> Result<String, ToolFailure> {
    let mut rows = include_str!("shop.csv").lines().map(fields);
    let header = rows.next().ok_or("the price list is empty")?;
    let column = |name: &str| header.iter().position(|field| field == name).ok_or(format!("no column {name}"));
    let (name, price) = (column("article")?, column("price")?);
    let wanted = article.trim().to_lowercase();
    let is_wanted = |row: &Vec<String>| {
        let name = row.get(name).map(|name| name.to_lowercase()).unwrap_or_default();
        name == wanted || wanted.strip_suffix('s') == Some(&name)
    };
    let row = rows.find(is_wanted).ok_or_else(|| format!("the shop has no {article}"))?;
    Ok(row.get(price).cloned().unwrap_or_default())
}

/// The fields of a line; quoted ones may hold commas, and doubled quotes.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut letters = line.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '"' if quoted && letters.next_if_eq(&'"').is_some() => push(&mut fields, '"'),
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            letter => push(&mut fields, letter),
        }
    }
    fields
}

fn push(fields: &mut [String], letter: char) {
    if let Some(field) = fields.last_mut() {
        field.push(letter);
    }
}
