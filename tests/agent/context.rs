//! What the strategies of context management leave, and what they cost.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::agent_support::{Scripted, calls, looker, respond, shared, tokens};
use deepseek_v32::agent::{Agent, AgentEventKind, AgentOptions, ContextManagement, Managed, Outcome, Stop};
use deepseek_v32::chat::{Message, Role, ToolChoice};
use deepseek_v32::chat_model::ChatModelError;
use deepseek_v32::chat_model::{ChatUsage, Finish};
use deepseek_v32::generation::{Cancel, SamplingParams};

const QUESTION: &str = "Go on forever.";

/// The `n`-th step: 1 token of the call and 5 of the result.
fn step(n: usize) -> [Message; 2] {
    let id = format!("c{n}");
    [calls("", &[(&id, "look", r#"{"at": "sky"}"#)]), Message::tool(&id, "sky is there, I see")]
}

/// Makes steps until the request `last`, which it answers. Summaries are requests, too.
fn searcher(last: usize) -> Scripted {
    let model = Scripted::new(move |n, request| {
        let message = if request.tool_choice == ToolChoice::None {
            Message::assistant(format!("  Nothing until {n}. "))
        } else if n == last {
            Message::assistant("It is there.")
        } else {
            step(n)[0].clone()
        };
        respond(request, message)
    });
    model.with_context(400)
}

/// The context is full at more than 32 tokens: with the sixth prompt, for prompts have 3, 9, 15, 21, 27, 33 tokens.
fn options(context: ContextManagement) -> AgentOptions {
    let params = SamplingParams::sampled(1.0, 1);
    AgentOptions { context, context_threshold: 0.08, params, ..AgentOptions::default() }
}

fn run(model: Scripted, context: ContextManagement) -> Outcome {
    let (_, model) = shared(model);
    let agent = Agent::new(model, looker()).with_options(options(context));
    agent.run([Message::system(""), Message::user(QUESTION)], &mut |_| ()).unwrap()
}

fn conversation(question: &str, steps: impl IntoIterator<Item = usize>, answer: &str) -> Vec<Message> {
    let start = vec![Message::system(""), Message::user(question)];
    [start, steps.into_iter().flat_map(step).collect(), vec![Message::assistant(answer)]].concat()
}

fn managed(strategy: ContextManagement, step: usize, tokens_after: usize, discarded_steps: usize) -> Managed {
    Managed {
        strategy,
        step,
        tokens_before: 33,
        tokens_after: Some(tokens_after),
        discarded_steps,
        summary: None,
        summary_usage: None,
    }
}

#[test]
fn none() {
    let outcome = run(searcher(7), ContextManagement::None);
    assert_eq!(outcome.messages, conversation(QUESTION, 0..7, "It is there."));
    assert_eq!((outcome.stop, outcome.steps, outcome.managed.len()), (Stop::Answer, 8, 0));
    // Prompts of 3, 9, …, 45 tokens; 7 calls and 3 words.
    let usage = ChatUsage { prompt_tokens: 192, completion_tokens: 10, ..ChatUsage::default() };
    assert_eq!(outcome.usage, usage);
}

#[test]
fn discard_all() {
    let outcome = run(searcher(7), ContextManagement::DiscardAll);
    assert_eq!(outcome.messages, conversation(QUESTION, 5..7, "It is there."));
    assert_eq!((outcome.stop, outcome.steps), (Stop::Answer, 8));
    assert_eq!(outcome.managed, [managed(ContextManagement::DiscardAll, 5, 3, 5)]);
    // 3, 9, 15, 21, 27, and 3, 9, 15 again.
    let usage = ChatUsage { prompt_tokens: 102, completion_tokens: 10, ..ChatUsage::default() };
    assert_eq!(outcome.usage, usage);
}

#[test]
fn discard_75() {
    let outcome = run(searcher(7), ContextManagement::Discard75);
    // Three of five steps go.
    assert_eq!(outcome.messages, conversation(QUESTION, 3..7, "It is there."));
    assert_eq!((outcome.stop, outcome.steps), (Stop::Answer, 8));
    assert_eq!(outcome.managed, [managed(ContextManagement::Discard75, 5, 15, 3)]);
    // 3, 9, 15, 21, 27, then 15, 21, 27.
    let usage = ChatUsage { prompt_tokens: 138, completion_tokens: 10, ..ChatUsage::default() };
    assert_eq!(outcome.usage, usage);
}

#[test]
fn summary() {
    let (model, shared) = shared(searcher(14));
    let agent = Agent::new(shared, looker()).with_options(options(ContextManagement::Summary));
    let mut told = Vec::new();
    let outcome = agent
        .run([Message::system(""), Message::user(QUESTION)], &mut |event| {
            if let AgentEventKind::ContextManaged(managed) = event.kind {
                told.push(managed);
            }
        })
        .unwrap();
    // Steps 0 to 4, summary 5, steps 6 to 8 (prompts of 17, 23, 29, then 35 tokens), summary 9, and so on.
    let head = "\n\nSummary of the work so far, whose steps are no longer shown:\n";
    let question = format!("{QUESTION}{head}Nothing until 13.");
    assert_eq!(outcome.messages, conversation(&question, [], "It is there."));
    assert_eq!((outcome.stop, outcome.steps, outcome.managed.len()), (Stop::Answer, 15, 3));
    assert_eq!(outcome.managed, told);

    let requests = model.requests();
    let (asked, restarted) = (&requests[5], &requests[6]);
    assert_eq!(asked.messages.len(), 2 + 2 * 5 + 1);
    assert_eq!(asked.messages[..2], requests[0].messages);
    assert!(asked.messages.last().unwrap().content.starts_with("The context is almost full"));
    assert!(asked.tools.is_empty() && asked.tool_choice == ToolChoice::None);
    assert_eq!(restarted.messages[1].content, format!("{QUESTION}{head}Nothing until 5."));
    assert_eq!((restarted.messages.len(), restarted.tools.len()), (2, 1));
    // What the summaries cost is in the sum.
    let prompts: usize = requests.iter().map(|request| tokens(&request.messages)).sum();
    assert_eq!(outcome.usage.prompt_tokens, prompts);
    assert_eq!(outcome.managed[0].summary.as_deref(), Some("  Nothing until 5. "));
    let summaries: usize = outcome.managed.iter().map(|managed| managed.summary_usage.unwrap().completion_tokens).sum();
    assert_eq!((summaries, outcome.usage.completion_tokens), (9, 9 + 11 + 3));
}

#[test]
fn a_summary_that_fails_discards_all() {
    let model = Scripted::fallible(|n, request| match (&request.tool_choice, n) {
        (ToolChoice::None, _) => Err(ChatModelError::Remote {
            url: String::new(),
            status: Some(400),
            message: "maximum context length exceeded".into(),
        }),
        (_, 7) => Ok(respond(request, Message::assistant("It is there."))),
        _ => Ok(respond(request, step(n)[0].clone())),
    });
    let outcome = run(model.with_context(400), ContextManagement::Summary);
    assert_eq!(outcome.messages, conversation(QUESTION, [6], "It is there."));
    // The attempt was a request, but no step.
    assert_eq!(outcome.managed, [managed(ContextManagement::DiscardAll, 5, 3, 5)]);
    assert_eq!(outcome.steps, 7);
}

#[test]
fn nothing_goes_for_half_a_summary() {
    let cancel = Cancel::new();
    let switch = cancel.clone();
    let model = Scripted::new(move |n, request| {
        if request.tool_choice != ToolChoice::None {
            return respond(request, step(n)[0].clone());
        }
        switch.cancel();
        let mut response = respond(request, Message::assistant("Nothing un"));
        response.finish = Finish::Cancelled;
        response
    });
    let (_, model) = shared(model.with_context(400));
    let agent = Agent::new(model, looker()).with_options(options(ContextManagement::Summary)).with_cancel(cancel);
    let outcome = agent.run([Message::system(""), Message::user(QUESTION)], &mut |_| ()).unwrap();
    assert_eq!((outcome.stop, outcome.steps), (Stop::Cancelled, 6));
    let expected = conversation(QUESTION, 0..5, "");
    assert_eq!(outcome.messages, expected[..expected.len() - 1]);
}

#[test]
fn other_turns_stay() {
    let turns = vec![
        Message::system("Be brief."),
        Message::user("First?"),
        step(90)[0].clone(),
        step(90)[1].clone(),
        Message::assistant("One."),
        Message::user(QUESTION),
    ];
    let (_, model) = shared(searcher(5));
    let agent = Agent::new(model, looker()).with_options(options(ContextManagement::DiscardAll));
    let outcome = agent.run(turns.clone(), &mut |_| ()).unwrap();
    // 13 tokens, 19, 25, 31, then 37: four steps and the one before go.
    assert_eq!(outcome.managed[0].discarded_steps, 5);
    let left = [turns[..2].to_vec(), turns[4..].to_vec(), step(4).to_vec(), vec![Message::assistant("It is there.")]];
    assert_eq!(outcome.messages, left.concat());
}

#[test]
fn without_steps_the_context_is_full() {
    let (_, model) = shared(searcher(3).with_context(50));
    let agent = Agent::new(model, looker()).with_options(options(ContextManagement::DiscardAll));
    let outcome = agent.run([Message::user("word ".repeat(50))], &mut |_| ()).unwrap();
    assert_eq!((outcome.stop, outcome.steps, outcome.message), (Stop::ContextFull, 0, None));
    // Beyond the threshold, but not full: it goes on as long as it can.
    let (_, model) = shared(searcher(0).with_context(50));
    let agent = Agent::new(model, looker()).with_options(options(ContextManagement::DiscardAll));
    assert_eq!(agent.run([Message::user("word ".repeat(40))], &mut |_| ()).unwrap().stop, Stop::Answer);
}

#[test]
fn usage_stands_in_for_counts() {
    let outcome = run(searcher(7).without_counts(), ContextManagement::DiscardAll);
    // The sixth answer made it 34; the results are not known before.
    let first = &outcome.managed[0];
    assert_eq!((first.step, first.tokens_before, first.tokens_after), (6, 34, None));
    assert_eq!(outcome.messages, conversation(QUESTION, [6], "It is there."));
}

#[test]
fn an_answer_that_fills_the_context_makes_room() {
    let model = Scripted::new(|n, request| match n {
        3 => {
            let mut response = respond(request, Message::assistant("and so on and so on"));
            response.usage.completion_tokens = 400 - response.usage.prompt_tokens;
            response.finish = Finish::Length;
            response
        }
        4 => respond(request, Message::assistant("It is there.")),
        n => respond(request, step(n)[0].clone()),
    });
    let outcome = run(model.with_context(400), ContextManagement::DiscardAll);
    assert_eq!(outcome.messages, conversation(QUESTION, [], "It is there."));
    assert_eq!(outcome.managed[0].discarded_steps, 3);
    assert!(outcome.messages.iter().all(|message| !message.content.starts_with("and")));
}

/// Run by run, the first answer decides how many steps it takes.
fn planner(plans: Vec<usize>) -> Scripted {
    let begun = AtomicUsize::new(0);
    Scripted::new(move |_, request| {
        let plan = request.messages.iter().find_map(|message| message.reasoning_content.clone());
        let plan = plan.map_or_else(|| plans[begun.fetch_add(1, Ordering::SeqCst)], |plan| plan.parse().unwrap());
        let made = request.messages.iter().filter(|message| message.role == Role::Assistant).count();
        let mut message =
            if made < plan { step(made)[0].clone() } else { Message::assistant(format!("After {plan}.")) };
        message.reasoning_content = Some(plan.to_string());
        respond(request, message)
    })
}

#[test]
fn parallel_fewest_step() {
    let strategy = ContextManagement::ParallelFewestStep { runs: 4 };
    let (model, shared) = shared(planner(vec![3, 100, 1, 2]));
    let params = SamplingParams::sampled(1.0, 7);
    let options = AgentOptions { max_steps: 6, params, ..options(strategy) };
    let mut finished = Vec::new();
    let outcome = Agent::new(shared, looker())
        .with_options(options)
        .run([Message::user(QUESTION)], &mut |event| {
            if let AgentEventKind::Finished(stop) = event.kind {
                finished.push((event.run, stop));
            }
        })
        .unwrap();
    assert_eq!(outcome.message.unwrap().content, "After 1.");
    assert_eq!((outcome.stop, outcome.messages.len()), (Stop::Answer, 4));
    // 4 + 6 + 2 + 3 answers, whichever run made which.
    let mut steps: Vec<usize> = outcome.runs.iter().map(|run| run.steps).collect();
    assert_eq!(outcome.runs[outcome.run].steps, 2);
    steps.sort_unstable();
    assert_eq!((steps, outcome.steps), (vec![2, 3, 4, 6], 15));
    let total: usize = outcome.runs.iter().map(|run| run.usage.total()).sum();
    assert_eq!(outcome.usage.total(), total);
    finished.sort_by_key(|(run, _)| *run);
    assert_eq!(finished.iter().map(|(run, _)| *run).collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert_eq!(finished.iter().filter(|(_, stop)| *stop == Stop::StepLimit).count(), 1);
    // No two answers had the same seed.
    let mut seeds: Vec<u64> = model.requests().iter().map(|request| request.params.seed.unwrap()).collect();
    seeds.sort_unstable();
    seeds.dedup();
    assert_eq!(seeds.len(), 15);
}

#[test]
fn runs_that_tie_and_runs_that_fail() {
    let strategy = ContextManagement::ParallelFewestStep { runs: 3 };
    let tie = run(planner(vec![1, 1, 1]), strategy);
    assert_eq!((tie.run, tie.steps), (0, 6));

    // A blank answer, of a malformed call, say, is found in fewer steps, but is none.
    let begun = AtomicUsize::new(0);
    let model = Scripted::new(move |_, request| match begun.fetch_add(1, Ordering::SeqCst) {
        0 => respond(request, Message::assistant(" \n")),
        1 | 2 => respond(request, step(0)[0].clone()),
        _ => respond(request, Message::assistant("It is there.")),
    });
    let outcome = run(model, strategy);
    assert_eq!((outcome.stop, outcome.message.unwrap().content.as_str()), (Stop::Answer, "It is there."));

    let begun = Arc::new(AtomicUsize::new(0));
    let model = Scripted::fallible(move |_, request| match begun.fetch_add(1, Ordering::SeqCst) {
        0 | 1 => Err(ChatModelError::Remote { url: "here".into(), status: Some(500), message: "broken".into() }),
        _ => Ok(respond(request, Message::assistant("It is there."))),
    });
    let outcome = run(model, strategy);
    assert_eq!(outcome.stop, Stop::Answer);
    let failed: Vec<_> = outcome.runs.iter().filter_map(|run| run.error.as_deref()).collect();
    assert_eq!(failed, ["here: broken", "here: broken"]);

    let (_, model) = shared(planner(vec![]));
    let options = options(ContextManagement::ParallelFewestStep { runs: 1000 });
    let error = Agent::new(model, looker()).with_options(options).run([], &mut |_| ()).unwrap_err();
    assert_eq!(error.to_string(), "runs is 1000: expected a number from 1 to 256");
}

#[test]
fn runs_that_would_all_be_the_same_are_refused() {
    let refused = |params: SamplingParams, runs: usize| {
        let options = AgentOptions { params, ..options(ContextManagement::ParallelFewestStep { runs }) };
        options.validate().err().map(|error| error.to_string())
    };
    let sampled = |top_k| SamplingParams { top_k, ..SamplingParams::sampled(0.6, 1) };
    let told = refused(SamplingParams::greedy(), 2).unwrap();
    assert_eq!(told, "temperature is 0: expected more than 0, for greedy parallel runs are all the same");
    assert!(refused(sampled(Some(1)), 2).unwrap().starts_with("top_k is 1: "));
    for (params, runs) in [(SamplingParams::greedy(), 1), (sampled(None), 2), (sampled(Some(2)), 2)] {
        assert_eq!(refused(params, runs), None);
    }
}

#[test]
fn names() {
    for name in ["none", "summary", "discard-75", "discard-all", "parallel-fewest-step:3"] {
        assert_eq!(name.parse::<ContextManagement>().unwrap().to_string(), name);
    }
    let four: ContextManagement = "parallel-fewest-step".parse().unwrap();
    assert_eq!(four, ContextManagement::ParallelFewestStep { runs: 4 });
    for bad in ["", "discard", "parallel-fewest-step:0", "parallel-fewest-step:x"] {
        assert!(bad.parse::<ContextManagement>().is_err(), "{bad}");
    }
}
