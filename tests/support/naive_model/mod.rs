//! The model a second time, in plain f64 loops over a checkpoint's bytes: nothing of the crate but its configuration.

use std::collections::BTreeMap;

use deepseek_v32::config::{Config, IndexerType, MlpType, Yarn};

use crate::checkpoint_writer::{Files, RawTensor};

type Rows = Vec<Vec<f64>>;

/// What a prompt comes to.
#[derive(Debug, Default)]
pub struct Expected {
    pub logits: Rows,
    /// The residual stream after each layer.
    pub hidden: Vec<Rows>,
    /// Positions that each row of a layer attends to, ascending; of layers with an indexer.
    pub topk: BTreeMap<usize, Vec<Vec<i64>>>,
    /// Experts that each row of a sparse layer is sent to, ascending.
    pub experts: BTreeMap<usize, Vec<Vec<u32>>>,
    /// The smallest distance between what was chosen and what was not, over all choices.
    pub margin: f64,
}

pub struct Naive<'a> {
    config: &'a Config,
    matrices: BTreeMap<String, (Vec<usize>, Vec<f64>)>,
}

/// The value of an e4m3 code, from its bits.
fn e4m3(code: u8) -> f64 {
    let (exponent, mantissa) = (i32::from(code >> 3 & 15), f64::from(code & 7));
    let size =
        if exponent == 0 { mantissa / 8.0 * 2f64.powi(-6) } else { (1.0 + mantissa / 8.0) * 2f64.powi(exponent - 7) };
    if code >> 7 == 1 { -size } else { size }
}

fn decode(tensor: &RawTensor) -> Vec<f64> {
    let two = |bytes: &[u8]| [bytes[0], bytes[1]];
    match tensor.dtype.as_str() {
        "F32" => tensor.bytes.chunks(4).map(|b| f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]]))).collect(),
        "BF16" => tensor.bytes.chunks(2).map(|b| half::bf16::from_le_bytes(two(b)).to_f64()).collect(),
        "F16" => tensor.bytes.chunks(2).map(|b| half::f16::from_le_bytes(two(b)).to_f64()).collect(),
        "F8_E4M3" => tensor.bytes.iter().map(|&code| e4m3(code)).collect(),
        other => panic!("{other}"),
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Indices of the `k` largest values, ascending, and the distance to the next one.
fn largest(values: &[f64], k: usize) -> (Vec<usize>, f64) {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[b].total_cmp(&values[a]).then(a.cmp(&b)));
    let margin = if k < order.len() { values[order[k - 1]] - values[order[k]] } else { f64::INFINITY };
    order.truncate(k);
    order.sort_unstable();
    (order, margin)
}

impl<'a> Naive<'a> {
    pub fn new(config: &'a Config, files: &Files) -> Self {
        let mut matrices = BTreeMap::new();
        for (name, tensor) in files.tensors.iter().filter(|(name, _)| !name.ends_with("_scale_inv")) {
            let mut values = decode(tensor);
            if let Some(scales) = files.tensors.get(&format!("{name}_scale_inv")) {
                let (columns, blocks, scales) = (tensor.shape[1], scales.shape[1], decode(scales));
                for (i, value) in values.iter_mut().enumerate() {
                    *value *= scales[i / columns / 128 * blocks + i % columns / 128];
                }
            }
            matrices.insert(name.clone(), (tensor.shape.clone(), values));
        }
        Self { config, matrices }
    }

    fn values(&self, name: &str) -> &[f64] {
        &self.matrices.get(name).unwrap_or_else(|| panic!("{name}")).1
    }

    fn linear(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let (shape, values) = &self.matrices[&format!("{name}.weight")];
        assert_eq!(shape[1], x.len(), "{name}");
        values.chunks(shape[1]).map(|row| dot(row, x)).collect()
    }

    fn rms_norm(&self, name: &str, x: &[f64], eps: f64) -> Vec<f64> {
        let scale = (dot(x, x) / x.len() as f64 + eps).powf(-0.5);
        x.iter().zip(self.values(&format!("{name}.weight"))).map(|(x, w)| x * scale * w).collect()
    }

    /// Rotates `x` in place: pairs of neighbours, or of the two halves.
    fn rotate(&self, x: &mut [f64], position: usize, neighbours: bool) {
        let n = x.len();
        for i in 0..n / 2 {
            let (frequency, factor) = self.frequency(i, n);
            // The angle is an f32 product in every implementation.
            let angle = f64::from(position as f32 * frequency as f32);
            let (sin, cos) = (angle.sin() * factor, angle.cos() * factor);
            let (a, b) = if neighbours { (2 * i, 2 * i + 1) } else { (i, i + n / 2) };
            (x[a], x[b]) = (x[a] * cos - x[b] * sin, x[b] * cos + x[a] * sin);
        }
    }

    fn frequency(&self, i: usize, n: usize) -> (f64, f64) {
        let theta = self.config.rope.rope_theta;
        let frequency = theta.powf(-2.0 * i as f64 / n as f64);
        let Some(yarn) = &self.config.rope.yarn else { return (frequency, 1.0) };
        let turns = |turns: f64| {
            let original = yarn.original_max_position_embeddings as f64;
            n as f64 * (original / (turns * 2.0 * std::f64::consts::PI)).ln() / (2.0 * theta.ln())
        };
        let (low, high) = (turns(yarn.beta_fast).floor().max(0.0), turns(yarn.beta_slow).ceil().min(n as f64 - 1.0));
        let width = if low == high { 0.001 } else { high - low };
        let ramp = ((i as f64 - low) / width).clamp(0.0, 1.0);
        let mscale = |mscale: Option<f64>| 0.1 * mscale.unwrap_or(1.0) * yarn.factor.ln() + 1.0;
        let factor = match (yarn.mscale, yarn.mscale_all_dim) {
            (Some(_), Some(_)) => mscale(yarn.mscale) / mscale(yarn.mscale_all_dim),
            _ => mscale(None),
        };
        (frequency / yarn.factor * ramp + frequency * (1.0 - ramp), factor)
    }

    fn softmax_scale(&self) -> f64 {
        let c = self.config;
        let plain = ((c.qk_nope_head_dim + c.qk_rope_head_dim) as f64).powf(-0.5);
        let correction =
            |yarn: &Yarn| yarn.mscale_all_dim.map_or(1.0, |all| (0.1 * all * yarn.factor.ln() + 1.0).powi(2));
        plain * c.rope.yarn.as_ref().map_or(1.0, correction)
    }

    /// The whole prompt, one sequence from position 0.
    pub fn forward(&self, ids: &[u32]) -> Expected {
        let c = self.config;
        let mut out = Expected { margin: f64::INFINITY, ..Expected::default() };
        let table = self.values("model.embed_tokens.weight");
        let mut x: Rows =
            ids.iter().map(|&id| table[id as usize * c.hidden_size..][..c.hidden_size].to_vec()).collect();
        let mut seen: Vec<Vec<usize>> = Vec::new();
        for layer in 0..c.num_hidden_layers {
            let prefix = format!("model.layers.{layer}");
            let norm = |name: &str, x: &Rows| -> Rows {
                x.iter().map(|row| self.rms_norm(&format!("{prefix}.{name}"), row, c.rms_norm_eps)).collect()
            };
            let normed = norm("input_layernorm", &x);
            if c.indexer_type(layer) == Some(IndexerType::Full) {
                seen = self.select(&prefix, &normed, &mut out.margin);
                out.topk.insert(layer, seen.iter().map(|row| row.iter().map(|&p| p as i64).collect()).collect());
            } else if !c.has_indexer() {
                seen = (0..ids.len()).map(|t| (0..=t).collect()).collect();
            }
            add(&mut x, &self.attention(&prefix, &normed, &seen));
            let normed = norm("post_attention_layernorm", &x);
            let mlp = match c.mlp_type(layer) {
                MlpType::Dense => normed.iter().map(|row| self.mlp(&format!("{prefix}.mlp"), row)).collect(),
                MlpType::Sparse => {
                    let experts = out.experts.entry(layer).or_default();
                    normed.iter().map(|row| self.moe(&prefix, row, experts, &mut out.margin)).collect()
                }
            };
            add(&mut x, &mlp);
            out.hidden.push(x.clone());
        }
        let head = if c.tie_word_embeddings { "model.embed_tokens" } else { "lm_head" };
        let last = |row: &Vec<f64>| self.linear(head, &self.rms_norm("model.norm", row, c.rms_norm_eps));
        out.logits = x.iter().map(last).collect();
        out
    }

    fn query_latent(&self, prefix: &str, x: &[f64]) -> Vec<f64> {
        self.rms_norm(
            &format!("{prefix}.self_attn.q_a_layernorm"),
            &self.linear(&format!("{prefix}.self_attn.q_a_proj"), x),
            1e-6,
        )
    }

    /// What each row attends to.
    fn select(&self, prefix: &str, x: &Rows, margin: &mut f64) -> Vec<Vec<usize>> {
        let c = self.config;
        let (heads, dim, rope) = (c.index_n_heads.unwrap(), c.index_head_dim.unwrap(), c.qk_rope_head_dim);
        let p = format!("{prefix}.self_attn.indexer");
        let keys: Rows = x
            .iter()
            .enumerate()
            .map(|(s, row)| {
                let k = self.linear(&format!("{p}.wk"), row);
                let mean = k.iter().sum::<f64>() / dim as f64;
                let variance = k.iter().map(|k| (k - mean).powi(2)).sum::<f64>() / dim as f64;
                let affine =
                    self.values(&format!("{p}.k_norm.weight")).iter().zip(self.values(&format!("{p}.k_norm.bias")));
                let mut k: Vec<f64> =
                    k.iter().zip(affine).map(|(k, (w, b))| (k - mean) / (variance + 1e-6).sqrt() * w + b).collect();
                self.rotate(&mut k[..rope], s, c.indexer_rope_interleave);
                k
            })
            .collect();
        x.iter()
            .enumerate()
            .map(|(t, row)| {
                let mut q = self.linear(&format!("{p}.wq_b"), &self.query_latent(prefix, row));
                q.chunks_mut(dim).for_each(|head| self.rotate(&mut head[..rope], t, c.indexer_rope_interleave));
                let weights = self.linear(&format!("{p}.weights_proj"), row);
                let score = |key: &Vec<f64>| -> f64 {
                    q.chunks(dim).zip(&weights).map(|(head, weight)| weight * dot(head, key).max(0.0)).sum::<f64>()
                        * ((heads * dim) as f64).powf(-0.5)
                };
                let scores: Vec<f64> = keys[..=t].iter().map(score).collect();
                let (chosen, distance) = largest(&scores, c.index_topk.unwrap());
                *margin = margin.min(distance);
                chosen
            })
            .collect()
    }

    fn attention(&self, prefix: &str, x: &Rows, seen: &[Vec<usize>]) -> Rows {
        let c = self.config;
        let p = format!("{prefix}.self_attn");
        let (heads, nope, rope, v_dim) = (c.num_attention_heads, c.qk_nope_head_dim, c.qk_rope_head_dim, c.v_head_dim);
        let (mut k_pe, mut expanded) = (Rows::new(), Rows::new());
        for (s, row) in x.iter().enumerate() {
            let mut kv = self.linear(&format!("{p}.kv_a_proj_with_mqa"), row);
            let mut pe = kv.split_off(c.kv_lora_rank);
            self.rotate(&mut pe, s, true);
            k_pe.push(pe);
            expanded.push(
                self.linear(&format!("{p}.kv_b_proj"), &self.rms_norm(&format!("{p}.kv_a_layernorm"), &kv, 1e-6)),
            );
        }
        let scale = self.softmax_scale();
        let attend = |t: usize, row: &Vec<f64>| -> Vec<f64> {
            let mut q = match c.q_lora_rank {
                Some(_) => self.linear(&format!("{p}.q_b_proj"), &self.query_latent(prefix, row)),
                None => self.linear(&format!("{p}.q_proj"), row),
            };
            let mut out = vec![0.0; heads * v_dim];
            for head in 0..heads {
                let q = &mut q[head * (nope + rope)..][..nope + rope];
                self.rotate(&mut q[nope..], t, true);
                let kv = |s: usize| &expanded[s][head * (nope + v_dim)..][..nope + v_dim];
                let score = |&s: &usize| scale * (dot(&q[..nope], &kv(s)[..nope]) + dot(&q[nope..], &k_pe[s]));
                let scores: Vec<f64> = seen[t].iter().map(score).collect();
                let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let sum: f64 = scores.iter().map(|score| (score - top).exp()).sum();
                for (&s, score) in seen[t].iter().zip(&scores) {
                    let weight = (score - top).exp() / sum;
                    out[head * v_dim..][..v_dim].iter_mut().zip(&kv(s)[nope..]).for_each(|(o, v)| *o += weight * v);
                }
            }
            self.linear(&format!("{p}.o_proj"), &out)
        };
        x.iter().enumerate().map(|(t, row)| attend(t, row)).collect()
    }

    fn mlp(&self, prefix: &str, x: &[f64]) -> Vec<f64> {
        let (gate, up) = (self.linear(&format!("{prefix}.gate_proj"), x), self.linear(&format!("{prefix}.up_proj"), x));
        let product: Vec<f64> = gate.iter().zip(&up).map(|(gate, up)| gate * sigmoid(*gate) * up).collect();
        self.linear(&format!("{prefix}.down_proj"), &product)
    }

    fn moe(&self, prefix: &str, x: &[f64], experts: &mut Vec<Vec<u32>>, margin: &mut f64) -> Vec<f64> {
        let c = self.config;
        let scores: Vec<f64> = self.linear(&format!("{prefix}.mlp.gate"), x).into_iter().map(sigmoid).collect();
        let bias = self.values(&format!("{prefix}.mlp.gate.e_score_correction_bias"));
        let mut choice: Vec<f64> = scores.iter().zip(bias).map(|(score, bias)| score + bias).collect();
        let size = choice.len() / c.n_group;
        let best_two = |group: &[f64]| largest(group, 2.min(size)).0.iter().map(|&i| group[i]).sum::<f64>();
        let groups: Vec<f64> = choice.chunks(size).map(best_two).collect();
        let (kept, distance) = largest(&groups, c.topk_group);
        *margin = margin.min(distance);
        for group in (0..c.n_group).filter(|group| !kept.contains(group)) {
            choice[group * size..][..size].fill(f64::NEG_INFINITY);
        }
        let (chosen, distance) = largest(&choice, c.num_experts_per_tok);
        *margin = margin.min(distance);
        let sum = if c.norm_topk_prob { chosen.iter().map(|&e| scores[e]).sum() } else { 1.0 };
        let mut y = vec![0.0; x.len()];
        for &e in &chosen {
            let weight = scores[e] / sum * c.routed_scaling_factor;
            let out = self.mlp(&format!("{prefix}.mlp.experts.{e}"), x);
            y.iter_mut().zip(out).for_each(|(y, out)| *y += weight * out);
        }
        if c.n_shared_experts > 0 {
            let shared = self.mlp(&format!("{prefix}.mlp.shared_experts"), x);
            y.iter_mut().zip(shared).for_each(|(y, out)| *y += out);
        }
        experts.push(chosen.into_iter().map(|e| e as u32).collect());
        y
    }
}

fn add(x: &mut Rows, y: &Rows) {
    for (x, y) in x.iter_mut().zip(y) {
        x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
    }
}
