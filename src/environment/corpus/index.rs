//! A search engine that ranks by BM25 in whole numbers, so that the order of its results is the same on every machine
//! and in every language that has whole numbers.

use std::collections::{BTreeSet, HashMap};

/// Bits behind the point of a term's weight.
const FRACTION: u32 = 16;

/// A document that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hit {
    /// Its place among the documents.
    pub document: usize,
    /// Its score: BM25 with k1 = 1.2 and b = 0.75, times 2^16, rounded down for each term.
    pub score: u64,
}

/// An index of the words of documents.
#[derive(Debug, Clone, Default)]
pub struct SearchIndex {
    /// For each word the documents that have it, in their order, and how often.
    postings: HashMap<String, Vec<(u32, u32)>>,
    lengths: Vec<u64>,
    total: u64,
}

/// The words of a text: runs of letters and digits, with A to Z in lower case.
pub fn tokens(text: &str) -> impl Iterator<Item = String> + '_ {
    let words = text.split(|c: char| c.is_ascii() && !c.is_ascii_alphanumeric());
    words.filter(|word| !word.is_empty()).map(str::to_ascii_lowercase)
}

/// The logarithm to base 2 of `number / of`, times 2^16 and rounded down; 0 where the ratio is below 1.
fn logarithm(number: u64, of: u64) -> u64 {
    let mut ratio = (u128::from(number) << 32) / u128::from(of.max(1));
    if ratio < 1 << 32 {
        return 0;
    }
    let whole = ratio.ilog2() - 32;
    ratio >>= whole;
    let mut log = u64::from(whole);
    for _ in 0..FRACTION {
        ratio = (ratio * ratio) >> 32;
        log <<= 1;
        if ratio >= 2 << 32 {
            log |= 1;
            ratio >>= 1;
        }
    }
    log
}

impl SearchIndex {
    /// The index of some texts.
    pub fn new<'a>(texts: impl IntoIterator<Item = &'a str>) -> Self {
        let mut index = Self::default();
        for (document, text) in (0u32..).zip(texts) {
            let mut length = 0;
            for token in tokens(text) {
                length += 1;
                let postings = index.postings.entry(token).or_default();
                match postings.last_mut() {
                    Some((last, count)) if *last == document => *count += 1,
                    _ => postings.push((document, 1)),
                }
            }
            index.lengths.push(length);
            index.total += length;
        }
        index
    }

    /// All documents that have a word of the query, best first; of equal ones the first one.
    pub fn search(&self, query: &str) -> Vec<Hit> {
        let mut scores = vec![0u64; self.lengths.len()];
        let count = self.lengths.len() as u64;
        for token in tokens(query).collect::<BTreeSet<_>>() {
            let Some(postings) = self.postings.get(&token) else { continue };
            // ln(1 + (N - n + 1/2) / (n + 1/2)), to base 2.
            let weight = logarithm(2 * count + 2, 2 * postings.len() as u64 + 1);
            for (document, times) in postings {
                let place = *document as usize;
                let (times, length) = (u128::from(*times), u128::from(self.lengths[place]));
                let total = u128::from(self.total);
                let below = 40 * times * total + 12 * total + 36 * length * u128::from(count);
                let score = u128::from(weight) * 88 * times * total / below.max(1);
                scores[place] += u64::try_from(score).unwrap_or(u64::MAX >> 16);
            }
        }
        let hits = scores.into_iter().enumerate().filter(|(_, score)| *score > 0);
        let mut hits: Vec<Hit> = hits.map(|(document, score)| Hit { document, score }).collect();
        hits.sort_by_key(|hit| (std::cmp::Reverse(hit.score), hit.document));
        hits
    }
}
