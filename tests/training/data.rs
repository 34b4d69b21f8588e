//! Schedules, packing, text and files.

use deepseek_v32::generation::Tokenizer;
use deepseek_v32::training::{
    CorpusOptions, Decay, Example, LongExamples, Packer, PackingOptions, Position, Schedule, document, read_corpus,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::support::tiny_tokenizer;

#[test]
fn schedules_at_their_corners() {
    let schedule = Schedule {
        learning_rate: 8.0,
        warmup_steps: 4,
        hold_steps: 3,
        decay: Decay::Linear,
        decay_steps: 10,
        final_learning_rate: 3.0,
    };
    let at = |schedule: &Schedule, steps: &[u64]| steps.iter().map(|&step| schedule.at(step)).collect::<Vec<_>>();
    assert_eq!(
        at(&schedule, &[0, 1, 3, 4, 6, 7, 8, 12, 16, 17, 18]),
        [2.0, 4.0, 8.0, 8.0, 8.0, 8.0, 7.5, 5.5, 3.5, 3.0, 3.0]
    );
    let cosine = Schedule { decay: Decay::Cosine, ..schedule };
    for (step, expected) in [(7, 8.0), (12, 5.5), (17, 3.0), (u64::MAX, 3.0)] {
        assert!((cosine.at(step) - expected).abs() < 1e-12, "{step}");
    }
    // A cosine is above the line at first and below it at last.
    assert!(cosine.at(9) > schedule.at(9) && cosine.at(15) < schedule.at(15));
    let constant = Schedule { decay: Decay::Constant, ..schedule };
    assert_eq!(at(&constant, &[3, 1000]), [8.0, 8.0]);
    assert_eq!(at(&Schedule::constant(0.5), &[0, 9]), [0.5, 0.5]);
    schedule.validate().unwrap();
    let refused = |schedule: Schedule, expected: &str| {
        assert_eq!(schedule.validate().unwrap_err().to_string(), expected);
    };
    refused(Schedule { learning_rate: f64::NAN, ..schedule }, "learning_rate is NaN, expected at least 0");
    refused(Schedule { decay_steps: 0, ..schedule }, "decay_steps is 0, expected at least 1");
    let json = r#"{"learning_rate": 0.001, "warmup_steps": 5, "decay": "cosine", "decay_steps": 9}"#;
    let read: Schedule = serde_json::from_str(json).unwrap();
    assert_eq!((read.decay, read.warmup_steps, read.final_learning_rate), (Decay::Cosine, 5, 0.0));
}

/// Examples whose first id is their number.
fn examples(count: usize) -> Vec<Example> {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let mut example = |number: usize| {
        let mut ids = vec![1_000_000; rng.random_range(1..=40)];
        ids[0] = number as u32;
        Example::whole(ids)
    };
    (0..count).map(&mut example).collect()
}

/// The numbers of the examples in a batch.
fn numbers(batch: &deepseek_v32::training::Batch) -> Vec<u32> {
    batch.layout().spans.iter().map(|span| batch.ids()[span.tokens.start]).collect()
}

#[test]
fn every_epoch_has_every_example_once_in_full_batches() {
    let options = PackingOptions { window: 50, seed: 3, ..PackingOptions::new(100) };
    let mut packer = Packer::new(examples(333), options).unwrap();
    let total: usize = packer.examples().iter().map(|example| example.ids.len()).sum();
    let mut epochs = Vec::new();
    for epoch in 0..3 {
        let batches = packer.batches();
        // Nearly as few batches as can hold the tokens.
        assert!(batches * 100 < total * 110 / 100, "{batches} batches of 100 for {total} tokens");
        let mut order = Vec::new();
        for _ in 0..batches {
            let batch = packer.next_batch().unwrap();
            assert!(batch.tokens() <= 100);
            order.extend(numbers(&batch));
        }
        assert_eq!(packer.position(), Position { epoch, batch: batches });
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert!(sorted.into_iter().eq(0..333));
        epochs.push(order);
        if epoch < 2 {
            // The first batch of the next epoch moves the position there.
            let batch = packer.clone().next_batch().unwrap();
            assert!(batch.tokens() > 0);
            packer.seek(Position { epoch: epoch + 1, batch: 0 }).unwrap();
        }
    }
    assert!(epochs[0] != epochs[1] && epochs[1] != epochs[2]);
}

#[test]
fn a_position_goes_on_with_the_same_batches() {
    let options = PackingOptions { window: 7, seed: 9, ..PackingOptions::new(64) };
    let mut whole = Packer::new(examples(40), options).unwrap();
    let mut given = Vec::new();
    let mut positions = Vec::new();
    for _ in 0..60 {
        positions.push(whole.position());
        given.push(whole.next_batch().unwrap());
    }
    assert!(positions[59].epoch > 0);
    for at in [0, 1, 17, 42, 59] {
        let json = serde_json::to_string(&positions[at]).unwrap();
        let mut second = Packer::new(examples(40), options).unwrap();
        second.seek(serde_json::from_str(&json).unwrap()).unwrap();
        for expected in &given[at..] {
            assert_eq!(&second.next_batch().unwrap(), expected);
        }
    }
    let other = PackingOptions { seed: 10, ..options };
    let mut other = Packer::new(examples(40), other).unwrap();
    assert!((0..10).any(|at| other.next_batch().unwrap() != given[at]));
    let beyond = Position { epoch: 1, batch: 1000 };
    assert!(whole.seek(beyond).unwrap_err().to_string().starts_with("position.batch is 1000, expected at most"));
}

#[test]
fn long_examples() {
    let long = || vec![Example::whole((0..10).collect()), Example::whole(vec![77])];
    let packer = |long_examples| Packer::new(long(), PackingOptions { long_examples, ..PackingOptions::new(4) });
    let error = packer(LongExamples::Refuse).unwrap_err().to_string();
    assert_eq!(error, "example 0 is 10 ids, expected at most batch_tokens = 4 ids");
    let ids = |packer: &Packer| packer.examples().iter().map(|example| example.ids.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&packer(LongExamples::Cut).unwrap()), [vec![0, 1, 2, 3], vec![77]]);
    let split = [vec![0, 1, 2, 3], vec![4, 5, 6, 7], vec![8, 9], vec![77]];
    assert_eq!(ids(&packer(LongExamples::Split).unwrap()), split);
    let refused = |examples: Vec<Example>, options: PackingOptions, expected: &str| {
        assert_eq!(Packer::new(examples, options).unwrap_err().to_string(), expected);
    };
    refused(vec![], PackingOptions::new(4), "examples is none, expected at least one");
    refused(long(), PackingOptions::new(0), "batch_tokens is 0, expected at least 1");
    refused(vec![Example::default()], PackingOptions::new(4), "example 0 is empty, expected at least one id");
}

#[test]
fn documents_and_files() {
    let tokenizer: Tokenizer = tiny_tokenizer();
    let options = CorpusOptions { bos: Some(0), eos: Some(1) };
    let text = "Honey and </think> tea.";
    let example = document(text, &tokenizer, &options).unwrap();
    assert_eq!((example.ids[0], *example.ids.last().unwrap()), (0, 1));
    let inner = &example.ids[1..example.ids.len() - 1];
    let bytes: Vec<u8> = inner.iter().flat_map(|&id| tokenizer.token_bytes(id)).collect();
    assert_eq!(bytes, text.as_bytes());
    // What is written out in a text is no control token.
    assert!(!inner.contains(&tokenizer.token_to_id("</think>").unwrap()));
    assert!(example.learnt.iter().all(|&learnt| learnt));
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        std::fs::write(dir.path().join(name), text).unwrap();
        dir.path().join(name)
    };
    let whole = read_corpus(write("a.txt", text), &tokenizer, &options).unwrap();
    assert_eq!(whole, std::slice::from_ref(&example));
    let lines = "\u{feff}{\"text\": \"Honey and </think> tea.\", \"id\": 3}\r\n\n{\"text\": \"\"}\n{\"text\": \"Honey and </think> tea.\"}";
    let found = read_corpus(write("a.jsonl", lines), &tokenizer, &options).unwrap();
    assert_eq!(found, [example.clone(), example]);
    let refused = |name: &str, text: &str, part: &str| {
        let error = read_corpus(write(name, text), &tokenizer, &options).unwrap_err().to_string();
        assert!(error.contains(part) && error.lines().count() == 1, "{error}");
    };
    refused("b.jsonl", "{\"text\": \"a\"}\n{\"txt\": \"b\"}\n", "b.jsonl:2: missing field `text`");
    refused("c.jsonl", "{\"text\": 3}", "c.jsonl:1: invalid type");
    let error = read_corpus(dir.path().join("none.txt"), &tokenizer, &options).unwrap_err().to_string();
    assert!(error.contains("none.txt") && error.contains("No such file"), "{error}");
}
