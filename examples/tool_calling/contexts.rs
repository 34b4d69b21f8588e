//! One chat that does not fit the context, under each strategy of context management: what it answers, and what it costs.

use std::io::Write;
use std::sync::Arc;

use anyhow::{Context, Result};
use deepseek_v32::agent::{Agent, AgentOptions, ContextManagement, Stop};
use deepseek_v32::chat::Message;
use deepseek_v32::chat_model::{ChatModel, ChatUsage};

use crate::common::printer::stop_name;
use crate::tools;

/// Questions, one turn each, and what the answers must hold. The embedded checkpoint's context holds about ten.
const QUESTIONS: &[(&str, &[&str])] = &[
    ("Calculate 177 times 579.", &["102483"]),
    ("What is the price of the lamp?", &["40 euros"]),
    ("Convert 5 kilometers to meters.", &["5000 meters"]),
    ("Calculate 12 plus 30. And: What is the price of the chair?", &["42", "85 euros"]),
    ("Convert 3 hours to minutes.", &["180 minutes"]),
    ("What is the price of the radio?", &["60 euros"]),
    ("Calculate 90 minus 41.", &["49"]),
    ("What is the price of the umbrella?", &["25 euros"]),
    ("Convert 2 miles to feet.", &["10560 feet"]),
    ("Calculate 6 times 7.", &["42"]),
    ("What is the price of the pencil?", &["2 euros"]),
    ("Calculate 1000 plus 1. And: Convert 4 kilograms to grams.", &["1001", "4000 grams"]),
    ("Convert 7 days to hours.", &["168 hours"]),
    ("Calculate 15 times 4.", &["60"]),
];

const STRATEGIES: [ContextManagement; 5] = [
    ContextManagement::None,
    ContextManagement::Summary,
    ContextManagement::Discard75,
    ContextManagement::DiscardAll,
    ContextManagement::ParallelFewestStep { runs: 2 },
];

/// The temperature of parallel runs where none is asked for: greedy ones would all be the same.
const PARALLEL_TEMPERATURE: f64 = 0.7;

/// What the chat came to.
struct Row {
    right: usize,
    /// Why the last turn stopped, and which that was.
    end: (Stop, usize),
    steps: usize,
    usage: ChatUsage,
    /// What was done each time that the context was managed.
    managed: Vec<ContextManagement>,
}

/// Prints a table with a row for each strategy as it is done.
pub fn table(model: &Arc<dyn ChatModel>, system: &str, options: &AgentOptions, out: &mut impl Write) -> Result<()> {
    let tokens = model.context_length();
    let mut print = |line: &str| writeln!(out, "{line}").and_then(|()| out.flush()).context("standard output");
    print(&format!("A chat of {} questions, a context of {tokens} tokens:\n", QUESTIONS.len()))?;
    print("| context | right answers | ended | steps | prompt tokens | generated | managed |")?;
    print("|---|---|---|---|---|---|---|")?;
    for context in STRATEGIES {
        let mut options = AgentOptions { context, ..options.clone() };
        let mut name = context.to_string();
        if matches!(context, ContextManagement::ParallelFewestStep { .. }) && options.params.is_greedy() {
            options.params.temperature = PARALLEL_TEMPERATURE;
            name = format!("{name}, temperature {PARALLEL_TEMPERATURE}");
        }
        let row = chat(model, system, options)?;
        let (stop, turn) = (stop_name(row.end.0), row.end.1);
        let (prompts, generated) = (row.usage.prompt_tokens, row.usage.completion_tokens);
        let managed = managed(&row.managed);
        print(&format!(
            "| {name} | {} | {stop}, question {turn} | {} | {prompts} | {generated} | {managed} |",
            row.right, row.steps
        ))?;
    }
    Ok(())
}

/// How often, and what was really done: a model that writes no summary has its steps discarded.
fn managed(strategies: &[ContextManagement]) -> String {
    let mut text = String::new();
    for (i, strategy) in strategies.iter().enumerate() {
        if !strategies[..i].contains(strategy) {
            let times = strategies.iter().filter(|other| *other == strategy).count();
            let comma = if text.is_empty() { "" } else { ", " };
            text.push_str(&format!("{comma}{times} × {strategy}"));
        }
    }
    if text.is_empty() { "never".to_string() } else { text }
}

/// Asks one question after the other, until the context is full.
fn chat(model: &Arc<dyn ChatModel>, system: &str, options: AgentOptions) -> Result<Row> {
    let agent = Agent::new(model.clone(), tools::toolbox()?).with_options(options);
    let mut row = Row { right: 0, end: (Stop::Answer, 0), steps: 0, usage: ChatUsage::default(), managed: Vec::new() };
    let mut messages = vec![Message::system(system)];
    for (turn, (question, expected)) in QUESTIONS.iter().enumerate() {
        messages.push(Message::user(*question));
        let outcome = agent.run(messages, &mut |_| ())?;
        row.steps += outcome.steps;
        row.usage += outcome.usage;
        row.managed.extend(outcome.managed.iter().map(|managed| managed.strategy));
        row.end = (outcome.stop, turn + 1);
        let holds = |text: &str| expected.iter().all(|part| text.contains(part));
        let answer = outcome.message.filter(|_| outcome.stop == Stop::Answer);
        row.right += usize::from(answer.is_some_and(|message| holds(&message.content)));
        if outcome.stop == Stop::ContextFull {
            break;
        }
        messages = outcome.messages;
    }
    Ok(row)
}
