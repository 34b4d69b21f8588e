//! Constraints made from grammars, with llguidance.

mod guard;
mod vocabulary;

use std::fmt;
use std::sync::Arc;

use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::InferenceCapabilities;
use llguidance::{Matcher, ParserFactory};

use self::guard::Guard;
use self::vocabulary::Vocabulary;
use super::constraint::{Constraint, TokenSet};
use super::error::{GenerationError, Result};
use super::params::parameter;
use super::tokenizer::Tokenizer;
use crate::grammar::Grammar;

/// Kinds of tokens that are allowed or not as one, which spares the walk over them: those of JSON.
const SLICES: [&str; 4] =
    [r"[\x20\x0A\x0D\x09]+", r#"[^"\\\x00-\x1F\x7F]{1,10}"#, r#"[^"\\\x00-\x1F\x7F]{1,30}"#, r#"[^"\\\x00-\x1F\x7F]+"#];

/// What one token's mask may cost at most. Long bounds of strings take some 5 ms of it, all of it takes some 50 ms.
const STEP_FUEL: u64 = 5_000_000;

/// Stack to compile on: schemas are compiled by recursion, to depths that their size bounds.
const STACK: usize = 64 << 20;

/// Compiles grammars for one tokenizer and model. Cheap to clone.
#[derive(Clone)]
pub struct GrammarCompiler {
    inner: Arc<Inner>,
}

struct Inner {
    factory: ParserFactory,
    vocabulary: Arc<Vocabulary>,
}

impl fmt::Debug for GrammarCompiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrammarCompiler").field("vocab_size", &self.inner.vocabulary.size()).finish()
    }
}

impl GrammarCompiler {
    /// Prepares a tokenizer's vocabulary; for one of 129,280 tokens this takes a second or so.
    ///
    /// - `eos_ids`: what may end an answer where the grammar lets it end: the stop ids of the requests.
    /// - `vocab_size`: the model's number of logits; ids that have no token are never allowed.
    /// - `breaks`: the characters that texts begin with which grammars forbid in plain text. Tokens without them are
    ///   allowed or not as one, which makes masks cheaper; grammars are held to whatever these are.
    ///
    /// # Errors
    /// If the tokenizer is not byte-level, has ids that the model has not, or there is no id to end with.
    pub fn new(tokenizer: &Tokenizer, eos_ids: &[u32], vocab_size: usize, breaks: &[char]) -> Result<Self> {
        tokenizer.check_vocab_size(vocab_size)?;
        if eos_ids.is_empty() || eos_ids.iter().any(|&id| id as usize >= vocab_size) {
            return Err(parameter("eos_ids", format!("{eos_ids:?}"), "at least one id, all of the model's vocabulary"));
        }
        let vocabulary = Arc::new(Vocabulary::new(tokenizer, eos_ids, vocab_size)?);
        let environment = vocabulary.environment(tokenizer);
        let breaks: String = breaks.iter().map(|c| format!("\\u{{{:x}}}", *c as u32)).collect();
        let plain = (!breaks.is_empty()).then(|| format!("[^{breaks}]+"));
        let slices: Vec<String> = plain.into_iter().chain(SLICES.map(String::from)).collect();
        let mut factory = ParserFactory::new(&environment, InferenceCapabilities::default(), &slices)
            .map_err(|error| GenerationError::Grammar(error.to_string()))?;
        factory.quiet();
        let limits = factory.limits_mut();
        limits.verbose_errors = false;
        limits.step_lexer_fuel = STEP_FUEL;
        Ok(Self { inner: Arc::new(Inner { factory, vocabulary }) })
    }

    /// A constraint at the beginning of an answer. To use one grammar for many answers, compile once and clone.
    ///
    /// # Errors
    /// [`GenerationError::Schema`] says which schema cannot be held to: no value follows it, an expression is too large.
    /// [`GenerationError::Grammar`] if it is not one schema's fault.
    pub fn compile(&self, grammar: &Grammar) -> Result<Box<dyn Constraint>> {
        let failed = |message: String| located(&first_line(&message), grammar);
        let top = TopLevelGrammar::from_lark(grammar.lark.clone());
        let parser = std::thread::scope(|scope| {
            let compile = || self.inner.factory.create_parser(top);
            let thread = std::thread::Builder::new().name("grammar".into()).stack_size(STACK);
            let thread = thread.spawn_scoped(scope, compile).map_err(|error| error.to_string())?;
            thread.join().map_err(|_| "it made the compiler panic".to_string())?.map_err(|error| error.to_string())
        });
        let mut matcher = Matcher::new(Ok(parser.map_err(failed)?));
        if let Some(error) = matcher.get_error() {
            return Err(failed(error));
        }
        // What is wrong from the first token on is better known now.
        matcher.compute_mask_or_eos().map_err(|error| failed(error.to_string()))?;
        let vocabulary = self.inner.vocabulary.clone();
        Ok(Box::new(Following { matcher, guard: Guard::new(grammar, &vocabulary), vocabulary, ended: false }))
    }
}

/// The part of llguidance's messages that says what is wrong; the rest prints the grammar.
fn first_line(message: &str) -> String {
    let line = message.split("\n<").next().unwrap_or_default().lines().next().unwrap_or_default().trim();
    match line {
        "NoExtensionBias" => "no value that ends follows the schema".to_string(),
        line => line.to_string(),
    }
}

/// An error whose message begins with a line of a grammar, as that of the schema which the line comes from; without
/// one, as that of the only schema there is.
fn located(message: &str, grammar: &Grammar) -> GenerationError {
    let message = match message {
        message if message.starts_with("panic: ") => "it is too much for the grammar compiler",
        message => message,
    };
    let place = message.strip_prefix("at ").and_then(|rest| rest.split_once("): "));
    let Some((place, problem)) = place else {
        return match &grammar.schemas[..] {
            [of] => GenerationError::Schema { of: of.clone(), problem: message.to_string() },
            _ => GenerationError::Grammar(message.to_string()),
        };
    };
    let line = place.split('(').next().and_then(|line| line.parse().ok()).unwrap_or(0);
    let comment = grammar.lark.lines().take(line).filter_map(|line| line.strip_prefix("// ")).last();
    let of = grammar.schemas.iter().find(|of| comment == Some(of.to_string().as_str()));
    match of.cloned() {
        Some(of) => GenerationError::Schema { of, problem: problem.to_string() },
        None => GenerationError::Grammar(problem.to_string()),
    }
}

/// An answer on its way through a grammar.
#[derive(Clone)]
struct Following {
    matcher: Matcher,
    guard: Guard,
    vocabulary: Arc<Vocabulary>,
    ended: bool,
}

impl fmt::Debug for Following {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Following").field("guard", &self.guard).field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl Constraint for Following {
    fn allowed(&mut self) -> std::result::Result<Option<TokenSet>, String> {
        if self.ended || self.matcher.is_stopped() && !self.matcher.is_error() {
            return Ok(Some(self.vocabulary.eos_ids().iter().copied().collect()));
        }
        let mask = self.matcher.compute_mask().map_err(|error| first_line(&error.to_string()))?;
        let mut words = mask.as_slice().to_vec();
        self.guard.restrict(&mut words, &self.vocabulary);
        if words.iter().all(|&word| word == 0) {
            return Err("the grammar leaves no token".to_string());
        }
        Ok(Some(TokenSet::from_words(words)))
    }

    fn accept(&mut self, id: u32) -> std::result::Result<(), String> {
        let eos = self.vocabulary.eos_ids().contains(&id);
        if eos && (self.ended || self.matcher.is_stopped() && !self.matcher.is_error()) {
            self.ended = true;
            return Ok(());
        }
        if self.ended {
            return Err(format!("token {id} follows the end of the answer"));
        }
        self.matcher.consume_token(id).map_err(|error| first_line(&error.to_string()))?;
        if eos {
            self.ended = true;
        } else {
            self.guard.advance(self.vocabulary.text(id));
        }
        Ok(())
    }

    fn boxed_clone(&self) -> Box<dyn Constraint> {
        Box::new(self.clone())
    }
}
