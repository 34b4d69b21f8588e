//! Values, tables, states, tools and the world.

use std::sync::Arc;

use deepseek_v32::chat::{Message, ToolCall};
use deepseek_v32::environment::tables::{
    Action, Column, Database, Date, Kind, Parameter, Role, Table, TableTool, TableVerifier, TableWorld, Value,
};
use deepseek_v32::environment::{Environment, World};
use serde_json::{Map, Value as JsonValue, json};

fn database(names: &[(&str, i64)]) -> Database {
    let rows = names.iter().map(|(name, stock)| vec![Value::from(*name), Value::Integer(*stock)]).collect();
    let items = vec![Column::new("item", Kind::Text), Column::new("stock", Kind::Integer).with_unit("units")];
    let owners = vec![Column::new("owner", Kind::Text), Column::new("item", Kind::Text).referring("items")];
    let owned = vec![vec![Value::from("Ada"), Value::from(names[0].0)]];
    Database::new(vec![Table::new("items", items, rows).unwrap(), Table::new("owners", owners, owned).unwrap()])
        .unwrap()
}

fn tool(name: &str, parameters: Vec<Parameter>, action: Action) -> TableTool {
    TableTool { name: name.to_string(), description: String::new(), parameters, action }
}

fn arguments(value: JsonValue) -> Map<String, JsonValue> {
    value.as_object().cloned().unwrap()
}

#[test]
fn dates_are_those_of_the_calendar() {
    for (text, days) in [("1970-01-01", 0), ("2000-02-29", 11_016), ("2025-10-01", 20_362), ("1969-12-31", -1)] {
        let date = Date::parse(text).unwrap();
        assert_eq!((date.days(), date.to_string().as_str()), (days, text));
    }
    for text in ["2025-02-29", "2025-13-01", "2025-1-01", "1900-02-29", "", "2025-10-01T00", "+025-10-01"] {
        assert_eq!(Date::parse(text), None, "{text}");
    }
    let mut expected = Date::new(1999, 1, 1).unwrap().days();
    for year in 1999..2102 {
        for month in 1..=12 {
            for day in 1..=31 {
                let Some(date) = Date::new(year, month, day) else { continue };
                assert_eq!((date.days(), date.parts()), (expected, (year, month, day)));
                expected += 1;
            }
        }
    }
}

#[test]
fn a_state_has_the_same_hash_in_any_order_of_rows() {
    let (a, b) = (database(&[("pen", 3), ("ink", 5)]), database(&[("ink", 5), ("pen", 3)]));
    assert_ne!(a.hash(), b.hash(), "Ada owns another item");
    let mut b = b;
    b.set("owners", &"Ada".into(), "item", "pen".into()).unwrap();
    assert_eq!(a.hash(), b.hash());
}

#[test]
fn a_copy_changes_alone_and_tells_what_changed() {
    let first = database(&[("pen", 3), ("ink", 5)]);
    let mut copy = first.clone();
    copy.set("items", &"ink".into(), "stock", Value::Integer(4)).unwrap();
    let changes = first.changes(&copy);
    assert_eq!(changes.len(), 1);
    assert_eq!((&changes[0].key, &changes[0].after), (&Value::from("ink"), &Value::Integer(4)));
    copy.set("items", &"ink".into(), "stock", Value::Integer(5)).unwrap();
    assert!(first.changes(&copy).is_empty());
    assert_eq!(first.table("items").unwrap().row(&"ink".into()).unwrap()[1], Value::Integer(5));
}

#[test]
fn tables_that_contradict_themselves_are_refused() {
    let columns = || vec![Column::new("a", Kind::Text), Column::new("b", Kind::Integer)];
    let row = |key: &str| vec![Value::from(key), Value::Integer(1)];
    for rows in [vec![row("x"), row("x")], vec![vec![Value::from("x")]], vec![vec![Value::from("x"), Value::from("y")]]]
    {
        assert!(Table::new("t", columns(), rows).is_err());
    }
    let refers = vec![Column::new("a", Kind::Text).referring("t")];
    let lost = Table::new("s", refers, vec![vec![Value::from("none")]]).unwrap();
    let table = Table::new("t", columns(), vec![row("x")]).unwrap();
    assert!(Database::new(vec![table.clone(), lost]).is_err());
    let mut database = database(&[("pen", 1)]);
    assert!(database.set("owners", &"Ada".into(), "item", "nothing".into()).is_err());
    assert!(database.set("items", &"pen".into(), "item", "ink".into()).is_err());
}

#[test]
fn every_wrong_call_gets_a_text() {
    let mut state = database(&[("pen", 3), ("ink", 5)]);
    let table = || "items".to_string();
    let list = Action::List { table: table(), columns: vec!["item".into()], page_size: Some(1) };
    let list = tool("list", vec![Parameter::new("page", Role::Page)], list);
    let add = Action::Add { table: table(), column: "stock".into() };
    let add = tool("add", vec![Parameter::new("item", Role::Key), Parameter::new("by", Role::Amount)], add);
    let infos = tool(
        "infos",
        vec![Parameter::new("keywords", Role::Keywords), Parameter::new("item", Role::Key)],
        Action::Infos { table: table() },
    );
    for (tool, wrong) in [
        (&list, json!({"page": 3})),
        (&list, json!({"page": "1"})),
        (&list, json!({"side": 1})),
        (&add, json!({"item": "pen"})),
        (&add, json!({"item": "pen", "by": -4})),
        (&add, json!({"item": "pen", "by": i64::MAX})),
        (&add, json!({"item": "cup", "by": 1})),
        (&infos, json!({"item": "pen", "keywords": "stock"})),
        (&infos, json!({"item": "pen", "keywords": ["colour"]})),
    ] {
        assert!(tool.call(&mut state, &arguments(wrong.clone())).is_err(), "{} {wrong}", tool.name);
    }
    assert_eq!(list.call(&mut state, &arguments(json!({"page": 2}))).unwrap()["items"], json!(["ink"]));
    assert_eq!(add.call(&mut state, &arguments(json!({"item": "pen", "by": -3}))), Ok(json!(0)));
}

struct Sold;

impl TableVerifier for Sold {
    fn problems(&self, initial: &Database, answer: Option<&str>, state: &Database) -> Vec<String> {
        let right = answer == Some("sold") && initial.changes(state).len() == 1;
        if right { Vec::new() } else { vec!["not sold".to_string()] }
    }
}

#[test]
fn a_world_forks_resets_and_judges() {
    let add = Action::Add { table: "items".into(), column: "stock".into() };
    let tools = vec![
        tool("add", vec![Parameter::new("item", Role::Key), Parameter::new("by", Role::Amount)], add),
        tool("submit_result", vec![Parameter::new("answer_text", Role::Answer)], Action::Submit),
    ];
    let mut world = TableWorld::new("w", "Sell a pen.", database(&[("pen", 3)]), tools.into(), Arc::new(Sold));
    assert_eq!(world.reset(), vec![Message::user("Sell a pen.")]);
    let fork = World::new(world.fork());
    let call = |name: &str, arguments: &str| {
        let call = ToolCall { id: None, name: name.into(), arguments: arguments.into() };
        fork.call(&call).unwrap()
    };
    assert!(call("add", r#"{"item": "cup", "by": -1}"#).failed);
    assert!(!call("add", r#"{"item": "pen", "by": -1}"#).failed);
    assert!(!fork.verify(Some(&Message::assistant("sold"))).solved, "nothing was submitted");
    assert!(!call("submit_result", r#"{"answer_text": "sold"}"#).failed);
    assert!(fork.verify(None).solved);
    assert!(!world.verify(None).solved, "a fork is on its own");
    fork.reset();
    assert!(!fork.verify(None).solved);
}
