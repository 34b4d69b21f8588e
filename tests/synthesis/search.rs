//! The search category: ranking as a reference in floating point ranks, and questions in the worlds that pose them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use deepseek_v32::environment::corpus::{SearchIndex, tokens};
use deepseek_v32::synthesis::{Category, Content, Output, Plan, Run, Stream};
use serde_json::json;

fn run(seed: u64) -> Run {
    Run { seed, plan: Plan::only(Category::Search, 2, 40), ..Run::default() }
}

fn outputs() -> &'static [Output] {
    static OUTPUTS: OnceLock<Vec<Output>> = OnceLock::new();
    OUTPUTS.get_or_init(|| (0..2).map(|index| run(11).make(Category::Search, index).unwrap()).collect())
}

/// BM25 with k1 = 1.2 and b = 0.75, straight from its definition.
fn bm25(texts: &[Vec<String>], query: &BTreeSet<String>) -> Vec<f64> {
    let count = texts.len() as f64;
    let mean = texts.iter().map(Vec::len).sum::<usize>() as f64 / count;
    let score = |text: &Vec<String>| {
        let of_word = query.iter().map(|word| {
            let times = text.iter().filter(|other| *other == word).count() as f64;
            let having = texts.iter().filter(|text| text.contains(word)).count() as f64;
            let weight = (1.0 + (count - having + 0.5) / (having + 0.5)).ln();
            weight * times * 2.2 / (times + 1.2 * (0.25 + 0.75 * text.len() as f64 / mean))
        });
        of_word.sum::<f64>()
    };
    texts.iter().map(score).collect()
}

#[test]
fn scores_are_those_of_bm25() {
    let words = ["amber", "bridge", "candle", "drum", "east", "falcon", "garden"];
    let mut stream = Stream::new(3, "bm25");
    let texts: Vec<String> = (0..60)
        .map(|_| (0..stream.between(3, 40)).map(|_| stream.word(&words)).collect::<Vec<_>>().join(", "))
        .collect();
    let index = SearchIndex::new(texts.iter().map(String::as_str));
    let split: Vec<Vec<String>> = texts.iter().map(|text| tokens(text).collect()).collect();
    for query in ["amber", "Bridge drum", "falcon east garden", "candle nothing amber amber", "nothing"] {
        let expected = bm25(&split, &tokens(query).collect());
        let hits = index.search(query);
        assert_eq!(hits.len(), expected.iter().filter(|score| **score > 0.0).count(), "{query}");
        for pair in hits.windows(2) {
            assert!((pair[1].score, pair[0].document) < (pair[0].score, pair[1].document), "{query}: {pair:?}");
        }
        for hit in hits {
            // The index takes logarithms to base 2.
            let score = hit.score as f64 / 65_536.0 * std::f64::consts::LN_2;
            assert!((score - expected[hit.document]).abs() < 1e-3, "{query}: {score}, {}", expected[hit.document]);
        }
    }
}

#[test]
fn right_answers_pass_and_wrong_ones_fail_in_the_world_that_poses_the_task() {
    let mut tasks = 0;
    for output in outputs() {
        let opened = output.environment.content.open().unwrap();
        for task in &output.tasks {
            let mut world = opened.world(task).unwrap();
            world.reset();
            for call in &task.trace {
                world.step(&call.tool, &(&call.arguments).into()).unwrap();
            }
            assert!(world.verify(None).solved, "{}: the solution fails", task.prompt);
            let mut submitted = |answer: &str| {
                world.reset();
                world.step("submit_result", &(&json!({"answer_text": answer})).into()).unwrap();
                world.verify(None).solved
            };
            for right in task.alternatives.iter().chain([&task.gold]) {
                assert!(submitted(&right.answer), "{}: {} fails", task.prompt, right.answer);
            }
            assert!(task.wrong.len() > 2, "{}", task.prompt);
            for wrong in &task.wrong {
                assert!(!submitted(&wrong.answer), "{}: {} passes", task.prompt, wrong.answer);
            }
            world.reset();
            assert!(!world.verify(None).solved, "{}: no answer passes", task.prompt);
            assert!(task.quality.random >= 100 && task.quality.random_passed * 100 <= task.quality.random);
            tasks += 1;
        }
    }
    assert_eq!(tasks, 40, "the run has as many tasks as were asked for");
}

#[test]
fn articles_of_what_is_asked_for_have_no_name_of_the_question() {
    for output in outputs() {
        let Content::Search(record) = &output.environment.content else { panic!("{:?}", output.environment) };
        let names: BTreeMap<&str, &str> =
            record.documents.iter().map(|document| (document.title.as_str(), document.text.as_str())).collect();
        for task in output.tasks.iter().filter(|task| task.goal.search().is_some_and(|goal| goal.of.clues.len() < 2)) {
            // The article of what is asked for has none of the names that the question mentions.
            let question = task.goal.search().unwrap();
            let Some(article) = names.get(task.gold.answer.as_str()) else { continue };
            for name in question.of.names() {
                assert!(!article.contains(name), "{}: {article}", task.prompt);
            }
        }
    }
}

#[test]
fn a_seed_makes_the_same_corpus_and_another_seed_another_one() {
    assert_eq!(run(11).make(Category::Search, 1).unwrap(), outputs()[1]);
    let other = run(12).make(Category::Search, 1).unwrap();
    assert_ne!(other.environment.id, outputs()[1].environment.id);
    let prompts: BTreeSet<&str> = outputs()[1].tasks.iter().map(|task| task.prompt.as_str()).collect();
    assert_eq!(prompts.len(), outputs()[1].tasks.len());
}
