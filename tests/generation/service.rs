//! The engine on its own thread, and constraints.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use crate::generation_support::Mock;
use deepseek_v32::generation::{
    Cancel, Constraint, Engine, EngineOptions, Event, FinishReason, GenerationError, Load, Pages, Report, Request,
    Sampler, SamplingParams, Service, TokenSet,
};

fn request(prompt: &[u32], max_tokens: usize) -> Request {
    Request { max_tokens: Some(max_tokens), ..Request::new(prompt) }
}

fn service(mock: Mock) -> Service {
    Service::start(Engine::new(mock, EngineOptions::default()).unwrap()).unwrap()
}

/// All ids of an answer, and why it ended.
fn collect(updates: Receiver<Result<Event, GenerationError>>) -> (Vec<u32>, Result<FinishReason, GenerationError>) {
    let mut ids = Vec::new();
    for update in updates {
        match update {
            Ok(Event::Token(token)) => ids.push(token.id),
            Ok(Event::Finished { reason, .. }) => return (ids, Ok(reason)),
            Err(error) => return (ids, Err(error)),
        }
    }
    panic!("the updates ended without an end");
}

#[test]
fn requests_from_many_threads_get_their_own_answers() {
    let service = service(Mock::new(50, 4096));
    let alone = |prompt: &[u32]| {
        let mut engine = Engine::new(Mock::new(50, 4096), EngineOptions::default()).unwrap();
        engine.generate(request(prompt, 30), |_| {}).unwrap().ids()
    };
    std::thread::scope(|scope| {
        for salt in 0..16u32 {
            let service = service.clone();
            scope.spawn(move || {
                let prompt: Vec<u32> = (0..5 + salt).map(|i| (i * 7 + salt) % 50).collect();
                let (ids, reason) = collect(service.stream(request(&prompt, 30)).unwrap());
                assert_eq!((ids, reason.unwrap()), (alone(&prompt), FinishReason::MaxTokens));
            });
        }
    });
    assert_eq!(service.load().requests, 0);
    assert_eq!(service.load().stats.generated_tokens, 16 * 30);
}

#[test]
fn a_refused_request_says_why() {
    let service = service(Mock::new(50, 64));
    let (ids, end) = collect(service.stream(request(&[60], 3)).unwrap());
    assert!(ids.is_empty() && matches!(end, Err(GenerationError::TokenId { id: 60, .. })));
    assert_eq!(service.load().requests, 0);
}

/// Waits until the engine has nothing to do.
fn wait_idle(service: &Service) {
    let began = Instant::now();
    while service.load().requests > 0 {
        assert!(began.elapsed() < Duration::from_secs(30), "the request did not end");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_listener_that_leaves_ends_its_request() {
    let service = service(Mock::new(50, 1 << 20));
    let updates = service.stream(Request::new([1, 2, 3])).unwrap();
    assert!(matches!(updates.recv(), Ok(Ok(Event::Token(_)))));
    drop(updates);
    wait_idle(&service);
    let cancel = Cancel::new();
    let endless = Request { cancel: Some(cancel.clone()), ..Request::new([1, 2, 3]) };
    let updates = service.stream(endless).unwrap();
    cancel.cancel();
    assert_eq!(collect(updates).1.unwrap(), FinishReason::Cancelled);
}

#[test]
fn a_failing_model_fails_the_requests_and_not_the_service() {
    let mut mock = Mock::new(50, 4096);
    mock.fail_in = Some(Arc::new(AtomicUsize::new(8)));
    let service = service(mock);
    let (ids, end) = collect(service.stream(request(&[1, 2, 3], 100)).unwrap());
    assert!(!ids.is_empty() && ids.len() < 100);
    assert!(matches!(end, Err(GenerationError::Step(_))), "{end:?}");
    let (ids, end) = collect(service.stream(request(&[1, 2, 3], 5)).unwrap());
    assert_eq!((ids.len(), end.unwrap()), (5, FinishReason::MaxTokens));
}

/// Panics in the engine's thread.
#[derive(Debug, Clone)]
struct Panics;

impl Constraint for Panics {
    fn allowed(&mut self) -> Result<Option<TokenSet>, String> {
        panic!("on purpose")
    }

    fn accept(&mut self, _: u32) -> Result<(), String> {
        Ok(())
    }

    fn boxed_clone(&self) -> Box<dyn Constraint> {
        Box::new(self.clone())
    }
}

#[test]
fn a_panic_in_the_engines_thread_ends_every_request_with_an_error() {
    let in_constraint = |service: &Service| {
        let panics = Request { constraint: Some(Box::new(Panics)), ..request(&[4, 5], 5) };
        let (ids, end) = collect(service.stream(panics).unwrap());
        assert!(
            ids.is_empty() && matches!(&end, Err(GenerationError::Panicked(why)) if why == "on purpose"),
            "{end:?}"
        );
    };
    let in_sink = |service: &Service| {
        let told = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&told);
        let sink = move |_| if count.fetch_add(1, Ordering::Relaxed) == 0 { panic!("on purpose") } else { true };
        service.submit(request(&[4, 5], 5), Box::new(sink)).unwrap();
        // The token that it panics at, then the end.
        let began = Instant::now();
        while told.load(Ordering::Relaxed) < 2 {
            assert!(began.elapsed() < Duration::from_secs(30), "the sink was not told of the end");
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    for panic in [&in_constraint as &dyn Fn(&Service), &in_sink] {
        let service = service(Mock::new(50, 1 << 20));
        let other = service.stream(Request::new([1, 2, 3])).unwrap();
        assert!(matches!(other.recv(), Ok(Ok(Event::Token(_)))));
        panic(&service);
        assert!(matches!(collect(other).1, Err(GenerationError::Panicked(_))));
        let (ids, end) = collect(service.stream(request(&[1], 1)).unwrap());
        assert!(ids.is_empty() && matches!(end, Err(GenerationError::Stopped)), "{end:?}");
        assert!(matches!(service.flush_prefixes(), Err(GenerationError::Stopped)));
        wait_idle(&service);
    }
}

#[test]
fn prefixes_are_counted_and_flushed() {
    let options = EngineOptions { prefix_tokens: 1024, ..EngineOptions::default() };
    let service = Service::start(Engine::new(Mock::new(50, 4096), options).unwrap()).unwrap();
    assert_eq!(service.load(), Load { pages: Some(Pages::default()), ..Load::default() });
    let prompt: Vec<u32> = (0..140).map(|i| i % 50).collect();
    for expected in [0, 1] {
        collect(service.stream(request(&prompt, 3)).unwrap()).1.unwrap();
        // The counts follow the last event.
        let began = Instant::now();
        while service.load().running > 0 {
            assert!(began.elapsed() < Duration::from_secs(30), "the request did not end");
        }
        let load = service.load();
        assert_eq!((load.requests, load.running, load.waiting(), load.prefix_tokens), (0, 0, 0, 128));
        assert_eq!((load.stats.prefix_hits, load.stats.cached_tokens), (expected, 128 * expected));
        let pages = load.pages.unwrap();
        assert_eq!((pages.used, load.stats.prompt_tokens), (2, 140 + expected * 12));
    }
    assert_eq!(service.flush_prefixes().unwrap(), 128);
    let load = service.load();
    assert_eq!((load.prefix_tokens, load.pages.unwrap().used), (0, 0));
    collect(service.stream(request(&prompt, 3)).unwrap()).1.unwrap();
    assert_eq!(service.flush_prefixes().unwrap(), 128);
    assert_eq!(service.load().stats.prefix_hits, 1);
}

/// Allows the ids of one residue at each place, in turn.
#[derive(Debug, Clone)]
struct Residues {
    at: u32,
    modulus: u32,
    vocab_size: u32,
}

impl Constraint for Residues {
    fn allowed(&mut self) -> Result<Option<TokenSet>, String> {
        if self.at == 20 {
            return Err("the grammar ends at 20 tokens".to_string());
        }
        Ok((self.at % 3 != 2).then(|| (0..self.vocab_size).filter(|id| id % self.modulus == self.at % 2).collect()))
    }

    fn accept(&mut self, id: u32) -> Result<(), String> {
        let wanted = self.allowed()?.is_none_or(|set| set.contains(id));
        self.at += 1;
        if wanted { Ok(()) } else { Err(format!("token {id} is not allowed")) }
    }

    fn boxed_clone(&self) -> Box<dyn Constraint> {
        Box::new(self.clone())
    }
}

#[test]
fn a_constraint_rules_every_token_also_with_drafts() {
    let constraint = || -> Box<dyn Constraint> { Box::new(Residues { at: 0, modulus: 5, vocab_size: 50 }) };
    for params in [SamplingParams::greedy(), SamplingParams::sampled(1.0, 7)] {
        let asked = |max_tokens| Request {
            params: params.clone(),
            constraint: Some(constraint()),
            ..request(&[4, 5, 6], max_tokens)
        };
        let mut plain = Engine::new(Mock::new(50, 4096), EngineOptions::default()).unwrap();
        let ids = plain.generate(asked(18), |_| {}).unwrap().ids();
        for (at, id) in ids.iter().enumerate().filter(|(at, _)| at % 3 != 2) {
            assert_eq!(id % 5, at as u32 % 2, "token {at} of {ids:?}");
        }
        let drafting = EngineOptions { draft_tokens: 2, ..EngineOptions::default() };
        let mut drafting = Engine::new(Mock::new(50, 4096).with_mtp(|hash| hash % 3 > 0), drafting).unwrap();
        assert_eq!(drafting.generate(asked(18), |_| {}).unwrap().ids(), ids);
        let error = plain.generate(asked(40), |_| {});
        assert!(matches!(&error, Err(GenerationError::Constraint(line)) if line.contains("20 tokens")), "{error:?}");
    }
}

#[test]
fn a_mask_leaves_the_models_log_probabilities() {
    let logits: Vec<f32> = (0..40).map(|id| (id as f32 * 1.7).sin()).collect();
    let set: TokenSet = [3, 35].into_iter().collect();
    assert!(set.contains(35) && !set.contains(34) && !set.contains(1000));
    assert_eq!(TokenSet::from_words(vec![1 << 3, 1 << 3]), set);
    let mut sampler = Sampler::new(SamplingParams::greedy(), &[0], 40, 0).unwrap();
    let report = Report { logprobs: Some(1), kept: true };
    let sampled = sampler.sample_among(&logits, Some(&set), report).unwrap();
    let best = if logits[3] > logits[35] { 3 } else { 35 };
    assert_eq!((sampled.id, sampled.kept), (best, Some(vec![best])));
    let total: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum();
    let logprob = f64::from(logits[best as usize]) - total.ln();
    assert!((f64::from(sampled.logprobs.unwrap().logprob) - logprob).abs() < 1e-6);
    let none = sampler.sample_among(&logits, Some(&TokenSet::from_words(Vec::new())), Report::default());
    assert!(matches!(none, Err(GenerationError::NoCandidate { .. })));
}
