//! Episodes as the rows of a training step.

use candle_core::{Device, Tensor};

use super::episode::Group;
use super::sequence::Sequence;
use crate::generation::Routes;
use crate::ops::layout::BatchLayout;
use crate::rl::batch::{Batch, KeptSets, Policy};
use crate::rl::config::GrpoConfig;
use crate::rl::error::{Result, RlError};

/// The sequences of some episodes behind each other, as the model is trained on them.
///
/// A sequence of `L` tokens has `L - 1` rows: row t goes through the model as token t, and its logits are the distribution
/// that token t + 1 was drawn from. So the rows of routes are those of the rollout, and the loss looks at tokens 1 to
/// `L - 1`. Every sequence of an episode has the episode's reward; a group's mean is taken over its sequences. Kept sets
/// that were not recorded count as the whole vocabulary.
#[derive(Debug, Clone)]
pub struct Packed {
    /// What goes through the model, `[T]`.
    pub ids: Vec<u32>,
    /// Rows of each sequence; their sum is `T`.
    pub lengths: Vec<usize>,
    /// The temperature that all tokens were chosen at.
    pub temperature: f64,
    /// The experts of each row in each MoE layer, `[T, layers, experts_per_token]`; `None` if a sequence has none recorded.
    pub routes: Option<Routes>,
    /// What the loss compares; its policy is empty until [`Self::batch`].
    targets: Targets,
}

#[derive(Debug, Clone)]
struct Targets {
    tokens: Vec<u32>,
    seq_id: Vec<u32>,
    gen_mask: Vec<bool>,
    old_logp: Vec<f64>,
    kept: KeptSets,
    rewards: Vec<f64>,
    group_id: Vec<i64>,
    beta: Vec<f64>,
    truncated: Vec<bool>,
}

impl Packed {
    /// Packs the groups' sequences in their order. `beta` is the weight of the divergence in a domain.
    ///
    /// # Errors
    /// [`RlError::Rollout`] if there is no sequence of two tokens, a sequence is not whole
    /// ([`Sequence::validate`]), or two have different temperatures or kinds of routes.
    pub fn new(groups: &[Group], beta: impl Fn(&str) -> f64) -> Result<Self> {
        let fault = |problem: &str| RlError::Rollout { place: "rollouts".to_string(), problem: problem.to_string() };
        let mut packed: Option<Self> = None;
        let mut kept = Vec::new();
        for group in groups {
            for episode in &group.episodes {
                for sequence in episode.sequences.iter().filter(|sequence| sequence.len() > 1) {
                    sequence.validate()?;
                    let packed = packed.get_or_insert_with(|| Self::empty(sequence));
                    if packed.temperature != sequence.temperature {
                        return Err(fault("sequences of different temperatures, expected one for all"));
                    }
                    packed.push(sequence, &mut kept).map_err(|problem| fault(&problem))?;
                    packed.targets.rewards.push(episode.reward);
                    packed.targets.group_id.push(group.id as i64);
                    packed.targets.beta.push(beta(&episode.domain));
                    packed.targets.truncated.push(episode.truncated());
                }
            }
        }
        let mut packed = packed.ok_or_else(|| fault("no sequence of two tokens or more"))?;
        packed.targets.kept = KeptSets::from_rows(&kept)?;
        Ok(packed)
    }

    /// Rows, `T`.
    pub fn rows(&self) -> usize {
        self.ids.len()
    }

    /// Sequences, `N`.
    pub fn sequences(&self) -> usize {
        self.lengths.len()
    }

    /// The layout of the rows for [`Model::forward_training`](crate::model::Model::forward_training).
    pub fn layout(&self) -> BatchLayout {
        BatchLayout::uncached(&self.lengths)
    }

    /// The experts of the rows for [`Model::replay`](crate::model::Model::replay): for each of the `num_hidden_layers`
    /// layers `[T, experts_per_token]` u32 on the CPU, `None` where the layer has no experts. Empty if none were recorded.
    ///
    /// # Errors
    /// [`RlError::Rollout`] if the routes are those of a model of more layers.
    pub fn expert_indices(&self, num_hidden_layers: usize) -> Result<Vec<Option<Tensor>>> {
        let Some(routes) = &self.routes else { return Ok(Vec::new()) };
        let mut layers = vec![None; num_hidden_layers];
        for (at, &layer) in routes.layers.iter().enumerate() {
            let experts = (0..self.rows()).filter_map(|row| routes.of(row, at)).flatten();
            let experts: Vec<u32> = experts.map(|&expert| u32::from(expert)).collect();
            let place = layers.get_mut(layer).ok_or_else(|| RlError::Rollout {
                place: "routes.layers".to_string(),
                problem: format!("has layer {layer}, but the model has {num_hidden_layers} layers"),
            })?;
            *place = Some(Tensor::from_vec(experts, (self.rows(), routes.experts_per_token), &Device::Cpu)?);
        }
        Ok(layers)
    }

    /// The loss's batch, of the policy's logits or log-probabilities of the rows, and the reference's.
    ///
    /// # Errors
    /// [`RlError::Config`] if `config` has another temperature than the rollouts.
    pub fn batch(&self, policy: Policy, ref_logp: Option<Vec<f64>>, config: &GrpoConfig) -> Result<Batch> {
        if config.temperature != self.temperature {
            let message = format!("{}, but the rollouts were sampled at {}", config.temperature, self.temperature);
            return Err(RlError::Config { key: "temperature".to_string(), message });
        }
        let Targets { tokens, seq_id, gen_mask, old_logp, kept, rewards, group_id, beta, truncated } =
            self.targets.clone();
        Ok(Batch { policy, tokens, seq_id, gen_mask, old_logp, ref_logp, kept, rewards, group_id, beta, truncated })
    }

    fn empty(first: &Sequence) -> Self {
        let routes = first.routes.as_ref().map(|routes| Routes { expert_ids: Vec::new(), ..routes.clone() });
        let targets = Targets {
            tokens: Vec::new(),
            seq_id: Vec::new(),
            gen_mask: Vec::new(),
            old_logp: Vec::new(),
            kept: KeptSets::full(0),
            rewards: Vec::new(),
            group_id: Vec::new(),
            beta: Vec::new(),
            truncated: Vec::new(),
        };
        Self { ids: Vec::new(), lengths: Vec::new(), temperature: first.temperature, routes, targets }
    }

    fn push(&mut self, sequence: &Sequence, kept: &mut Vec<Option<Vec<u32>>>) -> std::result::Result<(), String> {
        let rows = sequence.len() - 1;
        match (&mut self.routes, &sequence.routes) {
            (Some(all), Some(routes)) => {
                if (&all.layers, all.experts_per_token) != (&routes.layers, routes.experts_per_token) {
                    return Err("routes of different models".to_string());
                }
                all.expert_ids.extend(&routes.expert_ids);
            }
            (None, None) => {}
            _ => return Err("routes of some sequences only".to_string()),
        }
        self.ids.extend(&sequence.ids[..rows]);
        let targets = &mut self.targets;
        targets.tokens.extend(&sequence.ids[1..]);
        targets.seq_id.resize(self.ids.len(), self.lengths.len() as u32);
        targets.gen_mask.extend(&sequence.generated[1..]);
        targets.old_logp.extend(sequence.sampled_logprobs[1..].iter().map(|logp| f64::from(*logp)));
        match &sequence.kept {
            Some(sets) => kept.extend(sets[1..].iter().cloned()),
            None => kept.resize(self.ids.len(), None),
        }
        self.lengths.push(rows);
        Ok(())
    }
}
