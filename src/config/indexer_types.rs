//! Which layers have their own indexer: `indexer_types`, `index_topk_pattern` or `index_topk_freq`.

use serde_json::Value;

use super::parse::{Object, Result, check_length};
use super::{IndexerType, ModelType};
use crate::show::quoted;

/// `index_skip_topk_offset` where the key is absent, as in transformers.
const DEFAULT_SKIP_TOPK_OFFSET: usize = 2;

const LIST: &str = "indexer_types";
const PATTERN: &str = "index_topk_pattern";
const FREQ: &str = "index_topk_freq";

/// One entry per layer; empty for a family without an indexer. Keys that are there must agree; a frequency of 1, the
/// default that programs write beside anything, says nothing.
pub(super) fn indexer_types(o: Object, model_type: ModelType, num_hidden_layers: usize) -> Result<Vec<IndexerType>> {
    if !model_type.has_indexer() {
        return match [LIST, PATTERN, FREQ].iter().find(|key| o.get(key).is_some()) {
            Some(key) => Err(o.error(key, format!("a {} model has no indexer", model_type.as_str()))),
            None => Ok(Vec::new()),
        };
    }
    let mut found: Option<(&str, Vec<IndexerType>)> = None;
    for (key, types) in [
        (LIST, listed(o, LIST, num_hidden_layers)?),
        (PATTERN, listed(o, PATTERN, num_hidden_layers)?),
        (FREQ, scheduled(o, num_hidden_layers)?),
    ] {
        let Some(types) = types else { continue };
        match &found {
            None => found = Some((key, types)),
            Some((first, expected)) => {
                if let Some(layer) = (0..num_hidden_layers).find(|&layer| types[layer] != expected[layer]) {
                    return Err(o.error(key, format!("contradicts `{first}` about layer {layer}")));
                }
            }
        }
    }
    Ok(found.map_or_else(|| vec![IndexerType::Full; num_hidden_layers], |(_, types)| types))
}

/// One name per layer, or for the pattern one letter.
fn listed(o: Object, key: &str, num_hidden_layers: usize) -> Result<Option<Vec<IndexerType>>> {
    let kind = |name: &str| match name {
        "full" | "F" => Ok(IndexerType::Full),
        "shared" | "S" => Ok(IndexerType::Shared),
        other => Err(o.error(key, format!("expected \"full\" or \"shared\", found {}", quoted(other)))),
    };
    match o.get(key) {
        None => Ok(None),
        Some(Value::String(pattern)) if key == PATTERN => {
            check_length(o, key, pattern.chars().count(), num_hidden_layers)?;
            pattern.chars().map(|c| kind(c.encode_utf8(&mut [0; 4]))).collect::<Result<_>>().map(Some)
        }
        Some(Value::Array(list)) => {
            check_length(o, key, list.len(), num_hidden_layers)?;
            let name = |value: &'_ Value| match value.as_str() {
                Some(name) => kind(name),
                None => Err(o.wrong_type(key, "\"full\" or \"shared\"", value)),
            };
            list.iter().map(name).collect::<Result<_>>().map(Some)
        }
        Some(value) => Err(o.wrong_type(key, "one entry per layer", value)),
    }
}

/// Every `index_topk_freq`-th layer, after the first few.
fn scheduled(o: Object, num_hidden_layers: usize) -> Result<Option<Vec<IndexerType>>> {
    let freq = o.usize(FREQ)?.unwrap_or(1);
    if freq == 0 {
        return Err(o.error(FREQ, "must be positive, found 0"));
    }
    let offset = o.usize("index_skip_topk_offset")?.unwrap_or(DEFAULT_SKIP_TOPK_OFFSET);
    if freq == 1 {
        return Ok(None);
    }
    let full = |layer: usize| (layer + 1).saturating_sub(offset) % freq == 0;
    Ok(Some((0..num_hidden_layers).map(|i| if full(i) { IndexerType::Full } else { IndexerType::Shared }).collect()))
}
