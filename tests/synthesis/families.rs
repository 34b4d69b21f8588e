//! The families' data, and the schemas that environments draw from them.

use std::collections::BTreeSet;

use deepseek_v32::environment::tables::Value;
use deepseek_v32::synthesis::family::{FAMILIES, Field, Sort};
use deepseek_v32::synthesis::{Category, Content, Output, Plan, Run};

/// The words that Python does not take as names.
const KEYWORDS: &[&str] = &[
    "and", "as", "assert", "async", "await", "break", "class", "continue", "def", "del", "elif", "else", "except",
    "finally", "for", "from", "global", "if", "import", "in", "is", "lambda", "nonlocal", "not", "or", "pass", "raise",
    "return", "try", "while", "with", "yield",
];

fn is_name(name: &str) -> bool {
    !KEYWORDS.contains(&name)
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.chars().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_')
}

/// The phrases of a column in which a value or rows are put.
fn phrases(field: &Field) -> Vec<&'static str> {
    match field.sort {
        Sort::Choice { phrase, .. } | Sort::Link { phrase, .. } => vec![phrase],
        Sort::Status { phrase, order, .. } => vec![phrase, order],
        Sort::Number { bounds: [a, b], extremes: [c, d], .. } | Sort::Date { bounds: [a, b], extremes: [c, d], .. } => {
            vec![a, b, c, d]
        }
        Sort::Flag { .. } => Vec::new(),
    }
}

#[test]
fn there_are_forty_families_and_no_two_alike() {
    assert!(FAMILIES.len() >= 42, "{}", FAMILIES.len());
    let names: BTreeSet<&str> = FAMILIES.iter().map(|family| family.name).collect();
    assert_eq!(names.len(), FAMILIES.len());
    let settings: BTreeSet<&str> = FAMILIES.iter().flat_map(|family| family.settings).copied().collect();
    assert_eq!(settings.len(), FAMILIES.len() * 3, "three settings each, none of them twice");
    let nouns: BTreeSet<Vec<&str>> =
        FAMILIES.iter().map(|family| family.tables.iter().map(|entity| entity.noun).collect()).collect();
    assert_eq!(nouns.len(), FAMILIES.len());
    let sizes: BTreeSet<usize> = FAMILIES.iter().map(|family| family.tables.len()).collect();
    assert!(sizes.len() >= 4, "{sizes:?}");
}

#[test]
fn the_data_of_a_family_agree() {
    for family in FAMILIES {
        let mut nouns = BTreeSet::new();
        for (place, entity) in family.tables.iter().enumerate() {
            let what = format!("{}, {}", family.name, entity.noun);
            assert!(nouns.insert(entity.noun), "{what}");
            assert!(!entity.keys.is_empty() && entity.keys.iter().all(|key| is_name(key)), "{what}");
            let first: BTreeSet<&str> = entity.fields.iter().map(|field| field.names[0]).collect();
            assert_eq!(first.len(), entity.fields.len(), "{what}: two columns of one name");
            assert!(entity.rows.0 >= 4 && entity.rows.0 <= entity.rows.1, "{what}");
            for field in entity.fields {
                let what = format!("{what}, {}", field.label);
                assert!(field.names.iter().all(|name| is_name(name)), "{what}");
                for phrase in phrases(field) {
                    assert_eq!(phrase.matches("{}").count(), 1, "{what}: {phrase}");
                }
                match &field.sort {
                    Sort::Link { table, .. } => assert!(*table < place, "{what} refers to a later table"),
                    Sort::Status { values, change, .. } => {
                        assert!(values.contains(&change.0) && values.contains(&change.1), "{what}");
                        assert!(!field.optional, "{what}: a status is always there");
                    }
                    Sort::Choice { values, .. } => {
                        assert!(values.iter().collect::<BTreeSet<_>>().len() == values.len() && values.len() > 1);
                    }
                    Sort::Number { range: (low, high, step), .. } => {
                        assert!(low < high && *step > 0 && (high - low) % step == 0, "{what}");
                    }
                    Sort::Date { range: (_, days), .. } => assert!(*days > 1, "{what}"),
                    Sort::Flag { phrases } => assert_ne!(phrases[0], phrases[1], "{what}"),
                }
            }
        }
    }
}

fn output(index: u64) -> Output {
    let plan = Plan::only(Category::General, 200, 300);
    Run { seed: 5, plan, ..Run::default() }.make(Category::General, index).unwrap()
}

#[test]
fn schemas_lose_columns_and_tables_and_cells_may_be_null() {
    let (mut hashes, mut fewer_tables, mut fewer_columns, mut nulls) = (BTreeSet::new(), 0, 0, 0);
    let count = u64::try_from(FAMILIES.len()).unwrap();
    for index in count..2 * count {
        let output = output(index);
        let family = FAMILIES[usize::try_from(index - count).unwrap()];
        assert_eq!(output.environment.family, family.name);
        let Content::General(tables) = &output.environment.content;
        let database = tables.database().unwrap();
        hashes.insert(output.environment.schema_hash.clone());
        if family.name == "trip" {
            continue;
        }
        assert!(database.tables().len() >= 3.min(family.tables.len()));
        fewer_tables += usize::from(database.tables().len() < family.tables.len());
        let columns: usize = database.tables().iter().map(|table| table.columns().len() - 1).sum();
        let all: usize = family.tables.iter().map(|entity| entity.fields.len()).sum();
        fewer_columns += usize::from(columns < all);
        for table in database.tables() {
            for (at, column) in table.columns().iter().enumerate() {
                let found = table.rows().iter().filter(|row| row[at] == Value::Null).count();
                assert!(found == 0 || (column.nullable && column.references.is_none()));
                nulls += found;
            }
        }
    }
    assert_eq!(hashes.len(), FAMILIES.len());
    assert!(fewer_tables > 5 && fewer_columns > 20 && nulls > 50, "{fewer_tables}, {fewer_columns}, {nulls}");
}

#[test]
fn answers_name_their_entries_as_the_style_does() {
    let (mut camel, mut snake) = (0, 0);
    for index in 0..60 {
        let output = output(index);
        let is_camel = output.environment.style.starts_with("camel");
        for task in output.tasks.iter().filter(|task| task.family != "trip") {
            let answer: serde_json::Value = serde_json::from_str(&task.gold.answer).unwrap();
            let objects = answer.as_array().cloned().unwrap_or_else(|| vec![answer.clone()]);
            for name in objects.iter().flat_map(|object| object.as_object().unwrap().keys()) {
                let styled = if is_camel { !name.contains('_') } else { *name == name.to_lowercase() };
                assert!(styled, "{}: {name}", output.environment.style);
                camel += usize::from(is_camel && *name != name.to_lowercase());
                snake += usize::from(!is_camel && name.contains('_'));
            }
        }
    }
    assert!(camel > 5 && snake > 5, "{camel}, {snake}");
}

/// Phrases are for several rows; a sentence about one changes the verb after "that" or "who", and has to know it.
#[test]
fn the_verbs_of_relative_clauses_are_known() {
    let present = ["are", "have", "do", "belong", "eat", "play", "run", "sell", "sing", "sit", "work"];
    let same = ["can", "must", "cost", "drove"];
    let fields = FAMILIES.iter().flat_map(|family| family.tables).flat_map(|entity| entity.fields);
    for field in fields {
        let flags = if let Sort::Flag { phrases } = field.sort { phrases.to_vec() } else { Vec::new() };
        for phrase in phrases(field).into_iter().chain(flags) {
            let mut words = phrase.split(' ');
            let (Some("that" | "who"), Some(verb)) = (words.next(), words.next()) else { continue };
            assert!(present.contains(&verb) || same.contains(&verb) || verb.ends_with("ed"), "{phrase}");
        }
    }
}
