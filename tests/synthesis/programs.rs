//! The language of tasks, against plain loops.

use deepseek_v32::environment::tables::{Column, Database, Kind, Table, TableVerifier, Value};
use deepseek_v32::synthesis::program::{
    Comparison, Constraint, Extreme, Filter, Goal, Group, Rows, Scalar, Slot, Slots,
};

/// Shops `s0..s4` in areas, items `i0..i29` with a price and a shop.
fn database() -> Database {
    let shops = (0..5).map(|at| vec![Value::Text(format!("s{at}")), Value::from(["north", "south"][at % 2])]);
    let items = (0..30).map(|at: i64| {
        vec![Value::Text(format!("i{at:02}")), Value::Text(format!("s{}", at % 4)), Value::Integer(at * 7 % 31)]
    });
    let shop = vec![Column::new("shop", Kind::Text), Column::new("area", Kind::Text)];
    let item = vec![
        Column::new("item", Kind::Text),
        Column::new("shop", Kind::Text).referring("shops"),
        Column::new("price", Kind::Integer),
    ];
    let tables = vec![Table::new("shops", shop, shops.collect()), Table::new("items", item, items.collect())];
    Database::new(tables.into_iter().collect::<Result<_, _>>().unwrap()).unwrap()
}

fn compare(column: &str, comparison: Comparison, value: Value) -> Filter {
    Filter::Compare { column: column.to_string(), comparison, value }
}

fn rows(table: &str, filters: Vec<Filter>) -> Rows {
    Rows { table: table.to_string(), filters, extreme: None }
}

fn passes(goal: &Goal, database: &Database, answer: &str) -> bool {
    goal.problems(database, Some(answer), database).is_empty()
}

#[test]
fn filters_hop_between_tables() {
    let database = database();
    let north = rows("shops", vec![compare("area", Comparison::Equal, "north".into())]);
    let linked = Filter::Linked { column: "shop".into(), rows: Box::new(north) };
    let query = rows("items", vec![linked, compare("price", Comparison::AtLeast, Value::Integer(15))]);
    let naive: i64 = (0..30).filter(|at| at % 4 % 2 == 0).map(|at| at * 7 % 31).filter(|price| *price >= 15).sum();
    let sum = Scalar::Sum { rows: query, column: "price".into() };
    assert_eq!(sum.value(&mut &database), Ok(Value::Integer(naive)));
    let dear = rows("items", vec![compare("price", Comparison::Above, Value::Integer(-1))]);
    let lacks = Filter::Lacks { column: "shop".into(), rows: Box::new(dear) };
    let found = rows("shops", vec![lacks]).find(&mut &database, &[]).unwrap();
    assert_eq!(found.iter().map(|row| row[0].clone()).collect::<Vec<_>>(), [Value::from("s4")]);
}

#[test]
fn any_of_several_best_rows_is_right() {
    let database = database();
    let query = Rows { extreme: Some(Extreme { column: "area".into(), most: false }), ..Rows::of("shops") };
    let goal = Goal::Row { rows: query, fields: vec![("shop".into(), "shop".into()), ("area".into(), "area".into())] };
    for (answer, right) in [
        (r#"{"shop": "s0", "area": "north"}"#, true),
        (r#"{"area": "north", "shop": "s4"}"#, true),
        (r#"{"shop": "s1", "area": "south"}"#, false),
        (r#"{"shop": "s0"}"#, false),
        (r#"{"shop": "s0", "area": "north", "more": 1}"#, false),
        ("s0", false),
    ] {
        assert_eq!(passes(&goal, &database, answer), right, "{answer}");
    }
}

#[test]
fn lists_are_right_in_any_order_and_without_doubles() {
    let database = database();
    let query = rows("shops", vec![compare("area", Comparison::Equal, "south".into())]);
    let goal = Goal::Keys { rows: query, name: "shops".into() };
    for (answer, right) in [
        (r#"{"shops": ["s3", "s1"]}"#, true),
        (r#"{"shops": ["s1"]}"#, false),
        (r#"{"shops": ["s1", "s1"]}"#, false),
        (r#"{"shops": ["s1", "s3", "s3"]}"#, false),
    ] {
        assert_eq!(passes(&goal, &database, answer), right, "{answer}");
    }
}

#[test]
fn slots_are_filled_as_loops_would() {
    let database = database();
    let slot = || Slot { name: "item".into(), rows: Rows::of("items") };
    let sum =
        |value| Constraint::Sum { slots: vec![0, 1], column: "price".into(), comparison: Comparison::Equal, value };
    let shop = Constraint::Distinct { slots: vec![0, 1], column: "shop".into() };
    let when = Constraint::When {
        slot: 0,
        column: "price".into(),
        least: 10,
        most: 99,
        then: vec![Constraint::Each {
            slots: vec![1],
            column: "price".into(),
            comparison: Comparison::Below,
            value: Value::Integer(3),
        }],
    };
    let groups = || (0..2).map(|_| Group { given: Vec::new(), slots: vec![slot()] }).collect::<Vec<_>>();
    for total in 0..62 {
        let slots = Slots { groups: groups(), constraints: vec![sum(total), shop.clone(), when.clone()] };
        let price = |at: i64| at * 7 % 31;
        let naive: Vec<(i64, i64)> = (0..30)
            .flat_map(|a| (0..30).map(move |b| (a, b)))
            .filter(|(a, b)| price(*a) + price(*b) == total && a % 4 != b % 4 && (price(*a) < 10 || price(*b) < 3))
            .collect();
        let filling = slots.filling(&mut &database).unwrap();
        let found = filling.solve(false).ok().map(|keys| slots.answer(&keys).to_string());
        let text = |(a, b): &(i64, i64)| format!(r#"[{{"item":"i{a:02}"}},{{"item":"i{b:02}"}}]"#);
        assert_eq!(found, naive.first().map(text), "{total}");
        let goal = Goal::Fit { slots: slots.clone() };
        let right =
            (0..30).flat_map(|a| (0..30).map(move |b| (a, b))).filter(|pair| passes(&goal, &database, &text(pair)));
        assert_eq!(right.collect::<Vec<_>>(), naive, "{total}");
    }
}

#[test]
fn a_change_is_right_alone() {
    let database = database();
    let query = rows("items", vec![compare("price", Comparison::Above, Value::Integer(28))]);
    let count = query.find(&mut &database, &[]).unwrap().len();
    let goal =
        Goal::Change { rows: query.clone(), column: "price".into(), value: Value::Integer(28), name: "n".into() };
    let answer = format!(r#"{{"n": {count}}}"#);
    assert!(!goal.problems(&database, Some(&answer), &database).is_empty(), "nothing was done");
    let mut state = database.clone();
    for row in query.find(&mut &database, &[]).unwrap() {
        state.set("items", &row[0], "price", Value::Integer(28)).unwrap();
    }
    assert!(goal.problems(&database, Some(&answer), &state).is_empty());
    assert!(!goal.problems(&database, Some("{\"n\": 0}"), &state).is_empty());
    state.set("shops", &"s0".into(), "area", "south".into()).unwrap();
    assert!(!goal.problems(&database, Some(&answer), &state).is_empty(), "a shop was changed, too");
}
