//! The language of tasks, against plain loops.

use std::collections::BTreeSet;

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

/// Items `i0..` with a shop and a price, both of which may be null.
fn patchy(cells: &[(Option<&str>, Option<i64>)]) -> Database {
    let null = |column: Column| Column { nullable: true, ..column };
    let columns = vec![
        Column::new("item", Kind::Text),
        null(Column::new("shop", Kind::Text)),
        null(Column::new("price", Kind::Integer)),
    ];
    let rows = cells.iter().enumerate().map(|(at, (shop, price))| {
        let (shop, price) = (shop.map_or(Value::Null, Value::from), price.map_or(Value::Null, Value::Integer));
        vec![Value::Text(format!("i{at}")), shop, price]
    });
    Database::new(vec![Table::new("items", columns, rows.collect()).unwrap()]).unwrap()
}

#[test]
fn null_compares_with_nothing_and_is_no_part_of_a_figure() {
    let database = patchy(&[(Some("a"), None), (None, Some(4)), (Some("b"), Some(9)), (None, None)]);
    let found = |query: &Rows| {
        let rows = query.find(&mut &database, &[]).unwrap();
        rows.iter().map(|row| row[0].to_json().as_str().unwrap().to_string()).collect::<Vec<_>>()
    };
    for (comparison, expected) in [
        (Comparison::Equal, &["i1"][..]),
        (Comparison::Unequal, &["i2"]),
        (Comparison::Below, &[]),
        (Comparison::AtMost, &["i1"]),
        (Comparison::Above, &["i2"]),
        (Comparison::AtLeast, &["i1", "i2"]),
    ] {
        let query = rows("items", vec![compare("price", comparison, Value::Integer(4))]);
        assert_eq!(found(&query), expected, "{comparison:?}");
    }
    let missing = rows("items", vec![Filter::Missing { column: "price".into() }]);
    assert_eq!(found(&missing), ["i0", "i3"]);
    for (most, expected) in [(true, "i2"), (false, "i1")] {
        let query = Rows { extreme: Some(Extreme { column: "price".into(), most }), ..Rows::of("items") };
        assert_eq!(found(&query), [expected]);
        let none = Rows { extreme: Some(Extreme { column: "price".into(), most }), ..missing.clone() };
        assert!(found(&none).is_empty());
    }
    let sum = |rows: Rows| Scalar::Sum { rows, column: "price".into() }.value(&mut &database);
    assert_eq!(sum(Rows::of("items")), Ok(Value::Integer(13)));
    assert_eq!(sum(missing), Ok(Value::Integer(0)));
}

/// A small generator, so that every run sees the same cases.
fn next(state: &mut u64, below: u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) % below
}

/// Four slots over items with nulls and conditions of every kind: there is a solution exactly if trying all finds one,
/// and what is found fits.
#[test]
fn slots_are_filled_where_trying_all_finds_something() {
    let (mut state, mut solved, mut unsolved) = (1, 0, 0);
    for case in 0..400 {
        let cells: Vec<(Option<&str>, Option<i64>)> = (0..6)
            .map(|_| {
                let shop = [Some("a"), Some("b"), Some("c"), None][usize::try_from(next(&mut state, 4)).unwrap()];
                let price = i64::try_from(next(&mut state, 9)).unwrap();
                (shop, (price < 7).then_some(price))
            })
            .collect();
        let database = patchy(&cells);
        let mut draw = |below: i64| i64::try_from(next(&mut state, u64::try_from(below).unwrap())).unwrap();
        let (pools, total, one, each, bound) =
            ([draw(7), draw(7), draw(7), draw(7)], draw(16), draw(7), draw(4), draw(7));
        let distinct_shops = draw(3) == 0;
        let comparison =
            [Comparison::AtMost, Comparison::AtLeast, Comparison::Equal][usize::try_from(draw(3)).unwrap()];
        let price = || "price".to_string();
        let all = || vec![0, 1, 2, 3];
        let at_least = |value: i64| (Comparison::AtLeast, Value::Integer(value));
        let mut constraints = vec![
            Constraint::Distinct { slots: all(), column: "item".into() },
            Constraint::Sum { slots: all(), column: price(), comparison, value: total },
            Constraint::Some {
                slots: vec![1, 3],
                column: price(),
                comparison: at_least(one).0,
                value: at_least(one).1,
            },
            Constraint::Each {
                slots: vec![0, 2],
                column: price(),
                comparison: at_least(each).0,
                value: at_least(each).1,
            },
            Constraint::When {
                slot: 3,
                column: price(),
                least: 2,
                most: 5,
                then: vec![Constraint::Each {
                    slots: vec![0],
                    column: price(),
                    comparison: Comparison::AtMost,
                    value: Value::Integer(bound),
                }],
            },
        ];
        if distinct_shops {
            constraints.push(Constraint::Distinct { slots: vec![2, 0], column: "shop".into() });
        }
        // Items that a slot may be: all of them, or those whose price is known and not `pool`.
        let slot = |pool: i64| {
            let filters = vec![compare("price", Comparison::Unequal, Value::Integer(pool))];
            Slot { name: "item".into(), rows: rows("items", if pool < 4 { filters } else { Vec::new() }) }
        };
        let groups = pools.iter().map(|pool| Group { given: Vec::new(), slots: vec![slot(*pool)] }).collect();
        let slots = Slots { groups, constraints };
        let fits = |chosen: [usize; 4]| {
            let price = |slot: usize| cells[chosen[slot]].1;
            let sum: i64 = (0..4).filter_map(price).sum();
            (0..4).all(|slot| pools[slot] >= 4 || price(slot).is_some_and(|price| price != pools[slot]))
                && (0..4).all(|a| (0..a).all(|b| chosen[a] != chosen[b]))
                && comparison.holds(&sum, &total)
                && [1, 3].into_iter().any(|slot| price(slot).is_some_and(|price| price >= one))
                && [0, 2].into_iter().all(|slot| price(slot).is_some_and(|price| price >= each))
                && (!price(3).is_some_and(|price| (2..=5).contains(&price))
                    || price(0).is_some_and(|first| first <= bound))
                && (!distinct_shops || cells[chosen[0]].0 != cells[chosen[2]].0)
        };
        let naive: BTreeSet<[usize; 4]> = (0..6 * 6 * 6 * 6)
            .map(|at| [at / 216, at / 36 % 6, at / 6 % 6, at % 6])
            .filter(|chosen| fits(*chosen))
            .collect();
        let filling = slots.filling(&mut &database).unwrap();
        for backwards in [false, true] {
            let found = filling.solve(backwards);
            assert_eq!(found.is_ok(), !naive.is_empty(), "case {case}: {found:?}");
            let Ok(keys) = found else { continue };
            assert_eq!(filling.problem(&slots.answer(&keys)), None, "case {case}");
            let at = |key: &Value| key.to_json().as_str().unwrap()[1..].parse::<usize>().unwrap();
            assert!(naive.contains(&[at(&keys[0]), at(&keys[1]), at(&keys[2]), at(&keys[3])]), "case {case}");
        }
        if naive.is_empty() {
            unsolved += 1;
        } else {
            solved += 1;
        }
    }
    assert!(solved > 40 && unsolved > 40, "{solved} solved, {unsolved} not");
}

/// In the order of the slots a search would try some 500,000 choices of the others before the first slot gives up the
/// only item that the last one can be.
#[test]
fn the_slot_with_the_fewest_rows_is_filled_first() {
    let database = database();
    let any = || Slot { name: "item".into(), rows: Rows::of("items") };
    let only =
        Slot { name: "item".into(), rows: rows("items", vec![compare("item", Comparison::Equal, "i00".into())]) };
    let groups =
        (0..5).map(|_| any()).chain([only]).map(|slot| Group { given: Vec::new(), slots: vec![slot] }).collect();
    let distinct = Constraint::Distinct { slots: (0..6).collect(), column: "item".into() };
    let slots = Slots { groups, constraints: vec![distinct] };
    let keys = slots.filling(&mut &database).unwrap().solve(false).unwrap();
    let expected = ["i01", "i02", "i03", "i04", "i05", "i00"].map(Value::from);
    assert_eq!(keys, expected);
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
