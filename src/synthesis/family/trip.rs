//! A trip planner: cities, hotels, restaurants, attractions, with fifteen tools of fixed names.

use super::{Entity, Family, Measure, Naming, choice, flag, link, number};
use crate::environment::tables::{Action, Column, Date, Kind, Parameter, Role, Table, TableError, TableTool, Value};
use crate::synthesis::seed::Stream;

/// The first day of a trip: 2025-10-01, in days since 1970.
pub const FIRST_DAY: i64 = 20_362;

/// The family.
pub const TRIP: Family = Family {
    name: "trip",
    settings: &[
        "I'm going on a short holiday and would like your help with planning it.",
        "My parents visit me in autumn and we want to travel around a little.",
        "Please help me with a few questions about our trip.",
    ],
    tables: &[
        Entity {
            noun: "city",
            plural: "cities",
            who: false,
            keys: &["city"],
            naming: Naming::Place,
            rows: (9, 12),
            fields: &[
                choice(&["climate"], "climate", &["mild", "dry", "humid", "windy"], "with a {} climate"),
                number(
                    &["population"],
                    "population",
                    (40_000, 2_400_000, 1_000),
                    Measure::Sum("people"),
                    ["with at least {} inhabitants", "with at most {} inhabitants"],
                    ["the largest {} by population", "the smallest {} by population"],
                ),
                flag(&["airport"], "whether there is an airport", ["with an airport", "without an airport"]),
            ],
        },
        Entity {
            noun: "hotel",
            plural: "hotels",
            who: false,
            keys: &["hotel"],
            naming: Naming::Pair(
                &[
                    "Amber",
                    "Blue Heron",
                    "Cedar",
                    "Golden Lion",
                    "Lakeside",
                    "Old Mill",
                    "Silver Birch",
                    "Three Kings",
                    "White Swan",
                    "Moonlight",
                ],
                &["Inn", "Hotel", "Lodge", "Residence", "Guesthouse", "Palace"],
            ),
            rows: (38, 48),
            fields: &[
                link(&["city"], "city", 0, "in {}"),
                number(
                    &["price"],
                    "price of a night",
                    (200, 1_100, 10),
                    Measure::Money("¥"),
                    ["costing at least {} a night", "costing at most {} a night"],
                    ["the most expensive {}", "the cheapest {}"],
                ),
                number(
                    &["rating"],
                    "rating",
                    (25, 50, 1),
                    Measure::Tenths("star"),
                    ["rated at least {} stars", "rated at most {} stars"],
                    ["the best rated {}", "the worst rated {}"],
                ),
                flag(&["breakfast"], "whether breakfast is included", ["with breakfast included", "without breakfast"]),
            ],
        },
        Entity {
            noun: "restaurant",
            plural: "restaurants",
            who: false,
            keys: &["restaurant"],
            naming: Naming::Pair(
                &[
                    "Bamboo",
                    "Copper Pot",
                    "Jade",
                    "Lucky",
                    "Olive",
                    "Paper Lantern",
                    "Red Maple",
                    "Saffron",
                    "Salt",
                    "Stone Bridge",
                    "Wild Thyme",
                    "Harvest",
                ],
                &["Kitchen", "House", "Table", "Garden", "Corner", "Bistro", "Terrace", "Noodles"],
            ),
            rows: (60, 80),
            fields: &[
                link(&["city"], "city", 0, "in {}"),
                choice(
                    &["cuisine"],
                    "cuisine",
                    &["noodles", "seafood", "vegetarian", "grill", "dumplings"],
                    "with {} on the menu",
                ),
                number(
                    &["price"],
                    "price of a meal",
                    (40, 320, 5),
                    Measure::Money("¥"),
                    ["where a meal costs at least {}", "where a meal costs at most {}"],
                    ["the most expensive {}", "the cheapest {}"],
                ),
                number(
                    &["rating"],
                    "rating",
                    (25, 50, 1),
                    Measure::Tenths("star"),
                    ["rated at least {} stars", "rated at most {} stars"],
                    ["the best rated {}", "the worst rated {}"],
                ),
            ],
        },
        Entity {
            noun: "attraction",
            plural: "attractions",
            who: false,
            keys: &["attraction"],
            naming: Naming::Pair(
                &["Bell", "Cloud", "Dragon", "Emerald", "Lotus", "Mirror", "Old Town", "Pearl", "Phoenix", "Willow"],
                &["Tower", "Lake", "Temple", "Museum", "Gardens", "Market", "Cave"],
            ),
            rows: (38, 52),
            fields: &[
                link(&["city"], "city", 0, "in {}"),
                number(
                    &["ticket"],
                    "ticket price",
                    (20, 260, 5),
                    Measure::Money("¥"),
                    ["with tickets of at least {}", "with tickets of at most {}"],
                    ["the {} with the most expensive ticket", "the {} with the cheapest ticket"],
                ),
                number(
                    &["rating"],
                    "rating",
                    (25, 50, 1),
                    Measure::Tenths("star"),
                    ["rated at least {} stars", "rated at most {} stars"],
                    ["the best rated {}", "the worst rated {}"],
                ),
            ],
        },
    ],
};

/// Tables that no task needs: trains, local transport, weather.
///
/// # Errors
/// None with the cities of an instance.
pub fn more_tables(cities: &[String], stream: &mut Stream) -> Result<Vec<Table>, TableError> {
    let city = |name: &str| Column::new(name, Kind::Text).referring("cities");
    let columns = vec![
        Column::new("connection", Kind::Text),
        city("from_city"),
        city("to_city"),
        Column::new("minutes", Kind::Integer).with_unit("minutes"),
        Column::new("fare_cents", Kind::Money).with_unit("cents"),
    ];
    let mut connections = Vec::new();
    for from in cities {
        for to in cities.iter().filter(|to| *to != from) {
            connections.push(vec![
                Value::from(format!("{from} to {to}").as_str()),
                Value::from(from.as_str()),
                Value::from(to.as_str()),
                Value::Integer(stream.between(35, 420)),
                Value::Money(stream.between(20, 300) * 100),
            ]);
        }
    }
    let local = cities.iter().map(|name| {
        vec![
            Value::from(name.as_str()),
            Value::from(stream.word(&["metro and bus", "tram", "bus", "ferry and bus"])),
            Value::Money(stream.between(2, 9) * 100),
        ]
    });
    let local_columns = vec![city("city"), Column::new("kinds", Kind::Text), Column::new("fare_cents", Kind::Money)];
    let local = Table::new("city_transport", local_columns, local.collect())?;
    let mut days = Vec::new();
    for name in cities {
        for day in 0..5 {
            let date = Date::from_days(FIRST_DAY + day);
            days.push(vec![
                Value::from(format!("{name} {date}").as_str()),
                Value::from(name.as_str()),
                Value::Date(date),
                Value::from(stream.word(&["sunny", "cloudy", "rain", "storm", "fog"])),
                Value::Integer(stream.between(9, 31)),
            ]);
        }
    }
    let weather = vec![
        Column::new("day", Kind::Text),
        city("city"),
        Column::new("date", Kind::Date),
        Column::new("weather", Kind::Text),
        Column::new("degrees", Kind::Integer),
    ];
    Ok(vec![Table::new("inter_city_transport", columns, connections)?, local, Table::new("weather", weather, days)?])
}

/// The fifteen tools.
pub fn tools() -> Vec<TableTool> {
    let by = |name: &str| Parameter::new(name, Role::Where(name.to_string()));
    let list = |table: &str, columns: &[&str]| Action::List {
        table: table.to_string(),
        columns: columns.iter().map(|column| (*column).to_string()).collect(),
        page_size: None,
    };
    let tool =
        |name: String, description: String, parameters, action| TableTool { name, description, parameters, action };
    let mut tools = Vec::new();
    let places = [("attraction", "attractions"), ("hotel", "hotels"), ("restaurant", "restaurants")];
    for (noun, table) in places {
        let description = format!("The names of all {table} of a city.");
        tools.push(tool(format!("get_all_{table}_by_city"), description, vec![by("city")], list(table, &[noun])));
    }
    tools.push(tool("get_all_cities".into(), "The names of all cities.".into(), Vec::new(), list("cities", &["city"])));
    for (noun, table) in places {
        let action = Action::Field { table: table.to_string(), column: "city".to_string() };
        let parameters = vec![Parameter::new(noun, Role::Key)];
        tools.push(tool(format!("get_city_by_{noun}"), format!("The city that a {noun} is in."), parameters, action));
    }
    let transport = list("city_transport", &["kinds", "fare_cents"]);
    let local = "How one gets around in a city, and the fare in cents.".to_string();
    tools.push(tool("get_city_transport".into(), local, vec![by("city")], transport));
    for (noun, table) in
        [("attraction", "attractions"), ("city", "cities"), ("hotel", "hotels"), ("restaurant", "restaurants")]
    {
        let money = match noun {
            "city" => "climate, population, airport",
            "hotel" => {
                "city, price_cents (a night, in cents), rating (in tenths of a star: 40 is 4.0 stars), breakfast"
            }
            "restaurant" => "city, cuisine, price_cents (a meal, in cents), rating (in tenths of a star)",
            _ => "city, ticket_cents (in cents), rating (in tenths of a star)",
        };
        let description = format!("What is known about a {noun}, by keywords. Keywords: {money}.");
        let parameters = vec![Parameter::new("info_keywords", Role::Keywords), Parameter::new(noun, Role::Key)];
        let action = Action::Infos { table: table.to_string() };
        tools.push(tool(format!("get_infos_by_{noun}"), description, parameters, action));
    }
    tools.push(tool(
        "get_inter_city_transport".into(),
        "The train from one city to another: minutes, and the fare in cents.".into(),
        vec![by("from_city"), by("to_city")],
        list("inter_city_transport", &["minutes", "fare_cents"]),
    ));
    tools.push(tool(
        "get_weather_by_city_date".into(),
        "The weather forecast of a city for a day.".into(),
        vec![by("city"), by("date")],
        list("weather", &["weather", "degrees"]),
    ));
    tools.push(tool(
        "submit_result".into(),
        "Submit the result.".into(),
        vec![Parameter::new("answer_text", Role::Answer)],
        Action::Submit,
    ));
    tools
}
