//! Worlds of documents: a search engine, documents that are opened page by page, and a question.

mod index;
mod world;

pub use index::{Hit, SearchIndex, tokens};
pub use world::{AnswerVerifier, Corpus, CorpusWorld, Document};
