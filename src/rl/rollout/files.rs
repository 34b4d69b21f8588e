//! Episodes in files: JSON lines for what is text, safetensors for what is numbers.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use super::episode::Episode;
use super::sequence::Sequence;
use crate::generation::Routes;
use crate::rl::error::{Result, RlError};

/// The version of the format.
const SCHEMA_VERSION: u32 = 1;

/// The first line of the JSON file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    schema_version: u32,
    episodes: usize,
    /// Bytes of the safetensors file: one of another size belongs to other episodes.
    tensor_bytes: u64,
    /// The MoE layers of the routes, and experts a token; absent where no routes were recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    route_layers: Option<(Vec<usize>, usize)>,
}

/// Every other line.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    episode: Episode,
    sequences: Vec<Stretch>,
}

/// Where the numbers of a sequence stand: they follow those of the sequence before it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stretch {
    weights_version: u64,
    temperature: f64,
    tokens: usize,
    /// Whether its kept sets were recorded.
    kept: bool,
    /// Whether it has routes, of one token less than `tokens`.
    routes: bool,
}

/// The numbers of all sequences, one behind the other.
#[derive(Default)]
struct Numbers {
    ids: Vec<u32>,
    generated: Vec<u8>,
    sampled_logprobs: Vec<f32>,
    kept_lengths: Vec<u32>,
    kept_ids: Vec<u32>,
    expert_ids: Vec<u16>,
}

/// Writes episodes to `DIR/NAME.jsonl` and `DIR/NAME.safetensors`, replacing both.
///
/// The first has a line with the format's version and one for each episode; the second has, for all sequences one behind
/// the other, `ids` `[L]` u32, `generated` `[L]` u8, `sampled_logprobs` `[L]` f32, `kept_lengths` `[L]` u32 (0 = the whole
/// vocabulary), `kept_ids` u32 and `expert_ids` `[R, layers, experts_per_token]` u16. The JSON lines are written last, under
/// another name and then renamed: where they are, everything is.
///
/// # Errors
/// [`RlError::File`] if a file cannot be written, [`RlError::Rollout`] if a sequence is not whole or routes differ in kind.
pub fn write_episodes(dir: impl AsRef<Path>, name: &str, episodes: &[Episode]) -> Result<()> {
    let (lines_path, tensors_path) = paths(dir.as_ref(), name);
    let mut numbers = Numbers::default();
    let mut kind: Option<(Vec<usize>, usize)> = None;
    let mut lines = Vec::new();
    for episode in episodes {
        let mut stretches = Vec::new();
        for sequence in &episode.sequences {
            sequence.validate()?;
            if let Some(routes) = &sequence.routes {
                let found = (routes.layers.clone(), routes.experts_per_token);
                if *kind.get_or_insert_with(|| found.clone()) != found {
                    let problem = "routes of different models, expected one for all".to_string();
                    return Err(RlError::Rollout { place: "routes".to_string(), problem });
                }
            }
            numbers.push(sequence);
            stretches.push(Stretch {
                weights_version: sequence.weights_version,
                temperature: sequence.temperature,
                tokens: sequence.len(),
                kept: sequence.kept.is_some(),
                routes: sequence.routes.is_some(),
            });
        }
        let episode = Episode { sequences: Vec::new(), ..episode.clone() };
        lines.push(Line { episode, sequences: stretches });
    }
    let tensors = numbers.to_bytes(kind.as_ref()).map_err(|error| file_error(&tensors_path, error))?;
    let head = Head {
        schema_version: SCHEMA_VERSION,
        episodes: lines.len(),
        tensor_bytes: tensors.len() as u64,
        route_layers: kind,
    };
    let mut text = json(&lines_path, &head)?;
    for line in &lines {
        text.push_str(&json(&lines_path, line)?);
    }
    fs::create_dir_all(dir.as_ref()).map_err(|error| file_error(dir.as_ref(), error))?;
    replace(&tensors_path, &tensors)?;
    replace(&lines_path, text.as_bytes())
}

/// Reads what [`write_episodes`] wrote; `None` if it did not come to its end, or never began.
///
/// # Errors
/// [`RlError::File`] with the path, and the line or tensor at fault: unreadable, another version, or files that do not
/// belong together.
pub fn read_episodes(dir: impl AsRef<Path>, name: &str) -> Result<Option<Vec<Episode>>> {
    let (lines_path, tensors_path) = paths(dir.as_ref(), name);
    let text = match fs::read_to_string(&lines_path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(file_error(&lines_path, error)),
    };
    let of_line = |at: usize, problem: String| file_error(&lines_path, format!("line {}: {problem}", at + 1));
    let mut lines = text.lines().enumerate();
    let (_, first) = lines.next().ok_or_else(|| of_line(0, "missing".to_string()))?;
    let head: Head = serde_json::from_str(first).map_err(|error| of_line(0, error.to_string()))?;
    if head.schema_version != SCHEMA_VERSION {
        return Err(of_line(0, format!("schema_version is {}, expected {SCHEMA_VERSION}", head.schema_version)));
    }
    let bytes = fs::read(&tensors_path).map_err(|error| file_error(&tensors_path, error))?;
    if bytes.len() as u64 != head.tensor_bytes {
        let problem = format!("has {} bytes, expected {} as {name}.jsonl says", bytes.len(), head.tensor_bytes);
        return Err(file_error(&tensors_path, problem));
    }
    let mut numbers = Numbers::from_bytes(&bytes).map_err(|problem| file_error(&tensors_path, problem))?.reader();
    let mut episodes = Vec::new();
    for (at, line) in lines {
        let Line { mut episode, sequences } =
            serde_json::from_str(line).map_err(|error| of_line(at, error.to_string()))?;
        for stretch in sequences {
            let sequence = numbers.take(&stretch, head.route_layers.as_ref());
            let sequence =
                sequence.ok_or_else(|| of_line(at, "more tokens than the safetensors file has".to_string()))?;
            sequence.validate().map_err(|error| of_line(at, error.to_string()))?;
            episode.sequences.push(sequence);
        }
        episodes.push(episode);
    }
    if episodes.len() != head.episodes {
        return Err(of_line(0, format!("episodes is {}, but {} follow", head.episodes, episodes.len())));
    }
    Ok(Some(episodes))
}

impl Numbers {
    fn push(&mut self, sequence: &Sequence) {
        self.ids.extend(&sequence.ids);
        self.generated.extend(sequence.generated.iter().map(|generated| u8::from(*generated)));
        self.sampled_logprobs.extend(&sequence.sampled_logprobs);
        for token in 0..sequence.len() {
            let kept = sequence.kept.as_ref().and_then(|kept| kept.get(token)?.as_deref()).unwrap_or_default();
            self.kept_lengths.push(kept.len() as u32);
            self.kept_ids.extend(kept);
        }
        if let Some(routes) = &sequence.routes {
            self.expert_ids.extend(&routes.expert_ids);
        }
    }

    fn to_bytes(
        &self,
        kind: Option<&(Vec<usize>, usize)>,
    ) -> std::result::Result<Vec<u8>, safetensors::SafeTensorError> {
        let (layers, experts) = kind.map_or((1, 1), |(layers, experts)| (layers.len().max(1), (*experts).max(1)));
        let routes = vec![self.expert_ids.len() / (layers * experts), layers, experts];
        let tensors = [
            ("ids", Dtype::U32, vec![self.ids.len()], le(&self.ids, |id| id.to_le_bytes())),
            ("generated", Dtype::U8, vec![self.generated.len()], self.generated.clone()),
            (
                "sampled_logprobs",
                Dtype::F32,
                vec![self.sampled_logprobs.len()],
                le(&self.sampled_logprobs, |logp| logp.to_le_bytes()),
            ),
            ("kept_lengths", Dtype::U32, vec![self.kept_lengths.len()], le(&self.kept_lengths, |n| n.to_le_bytes())),
            ("kept_ids", Dtype::U32, vec![self.kept_ids.len()], le(&self.kept_ids, |id| id.to_le_bytes())),
            ("expert_ids", Dtype::U16, routes, le(&self.expert_ids, |id| id.to_le_bytes())),
        ];
        let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
            TensorView::new(*dtype, shape.clone(), bytes).map(|view| ((*name).to_string(), view))
        });
        let views: HashMap<String, TensorView> = views.collect::<std::result::Result<_, _>>()?;
        safetensors::serialize(&views, None)
    }

    fn from_bytes(bytes: &[u8]) -> std::result::Result<Self, String> {
        let tensors = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
        let read = |name: &str, dtype: Dtype| {
            let view = tensors.tensor(name).map_err(|error| format!("{name}: {error}"))?;
            if view.dtype() != dtype {
                return Err(format!("{name}: dtype {:?}, expected {dtype:?}", view.dtype()));
            }
            Ok(view.data().to_vec())
        };
        let u32s = |name: &str| read(name, Dtype::U32).map(|bytes| from_le(&bytes, u32::from_le_bytes));
        Ok(Self {
            ids: u32s("ids")?,
            generated: read("generated", Dtype::U8)?,
            sampled_logprobs: from_le(&read("sampled_logprobs", Dtype::F32)?, f32::from_le_bytes),
            kept_lengths: u32s("kept_lengths")?,
            kept_ids: u32s("kept_ids")?,
            expert_ids: from_le(&read("expert_ids", Dtype::U16)?, u16::from_le_bytes),
        })
    }

    fn reader(self) -> Reader {
        Reader { numbers: self, token: 0, kept: 0, expert: 0 }
    }
}

/// Takes one sequence after the other.
struct Reader {
    numbers: Numbers,
    token: usize,
    kept: usize,
    expert: usize,
}

impl Reader {
    /// The next sequence; `None` if there is not enough left.
    fn take(&mut self, stretch: &Stretch, kind: Option<&(Vec<usize>, usize)>) -> Option<Sequence> {
        let numbers = &self.numbers;
        let tokens = self.token..self.token.checked_add(stretch.tokens)?;
        let mut kept = Vec::new();
        for length in numbers.kept_lengths.get(tokens.clone())? {
            let end = self.kept.checked_add(*length as usize)?;
            let ids = numbers.kept_ids.get(self.kept..end)?;
            kept.push((!ids.is_empty()).then(|| ids.to_vec()));
            self.kept = end;
        }
        let routes = match (stretch.routes, kind) {
            (false, _) => None,
            (true, None) => return None,
            (true, Some((layers, experts_per_token))) => {
                let row = layers.len().checked_mul(*experts_per_token)?;
                let end = self.expert.checked_add(stretch.tokens.saturating_sub(1).checked_mul(row)?)?;
                let expert_ids = numbers.expert_ids.get(self.expert..end)?.to_vec();
                self.expert = end;
                Some(Routes { layers: layers.clone(), experts_per_token: *experts_per_token, expert_ids })
            }
        };
        self.token = tokens.end;
        Some(Sequence {
            weights_version: stretch.weights_version,
            temperature: stretch.temperature,
            ids: numbers.ids.get(tokens.clone())?.to_vec(),
            generated: numbers.generated.get(tokens.clone())?.iter().map(|generated| *generated != 0).collect(),
            sampled_logprobs: numbers.sampled_logprobs.get(tokens)?.to_vec(),
            kept: stretch.kept.then_some(kept),
            routes,
        })
    }
}

fn paths(dir: &Path, name: &str) -> (PathBuf, PathBuf) {
    (dir.join(format!("{name}.jsonl")), dir.join(format!("{name}.safetensors")))
}

fn json(path: &Path, value: &impl Serialize) -> Result<String> {
    Ok(serde_json::to_string(value).map_err(|error| file_error(path, error))? + "\n")
}

/// Writes a file under another name, then renames it.
fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    let write = || {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().map_err(|error| {
        // What cannot be removed stays under its temporary name.
        let _ = fs::remove_file(&temporary);
        file_error(path, error)
    })
}

fn file_error(path: &Path, problem: impl ToString) -> RlError {
    RlError::File { path: path.to_path_buf(), problem: problem.to_string() }
}

fn le<T: Copy, const N: usize>(values: &[T], bytes: impl Fn(T) -> [u8; N]) -> Vec<u8> {
    values.iter().flat_map(|value| bytes(*value)).collect()
}

fn from_le<T, const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks::<N>().0.iter().map(|chunk| value(*chunk)).collect()
}
