//! The loop of reinforcement learning: episodes, loss, optimizer, new weights for the engine.

mod checkpoint;
mod options;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use candle_core::{DType, Tensor};
use candle_nn::{VarBuilder, VarMap};
use serde::{Deserialize, Serialize};

pub use options::GrpoOptions;

use super::advantage::Plan;
use super::batch::Policy;
use super::config::{GrpoConfig, Kl};
use super::error::{Result, RlError};
use super::logprob::head_log_probs;
use super::loss::evaluate;
use super::metrics::Metrics;
use super::reward::RewardMix;
use super::rollout::{Episode, Group, Packed, collect};
use crate::chat_model::{ChatModel, LocalChat};
use crate::environment::Environment;
use crate::generation::Service;
use crate::model::{Model, TrainingOptions, backward};
use crate::training::{Gradients, Optimizer, Parameters, Stage};

/// The task of a number, counted from 0; `None` if there are no more. The same number always gives the same task.
pub type Tasks = Box<dyn Fn(u64) -> Option<Box<dyn Environment>> + Send>;

/// What a step came to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct GrpoReport {
    /// The step, from 0.
    pub step: u64,
    /// Episodes played, those of dropped groups among them.
    pub episodes: usize,
    /// Groups that were trained on.
    pub groups: usize,
    /// Groups that were dropped, since their rewards were all equal.
    pub equal_groups: usize,
    /// Mean reward of all episodes.
    pub reward: f64,
    /// Share of all episodes that solved their task.
    pub solved: f64,
    /// Share of all episodes that were cut off.
    pub truncated: f64,
    /// Generated tokens of all episodes.
    pub tokens: usize,
    /// Mean ratio of policy and sampler in the first mini-batch, which is on policy: 1 up to rounding. 1 if no group was
    /// trained on.
    pub on_policy_ratio: f64,
    /// The learning rate.
    pub learning_rate: f64,
    /// The longest gradient of the mini-batches, before it was shortened.
    pub gradient_norm: f64,
    /// The loss's numbers.
    pub metrics: Metrics,
    /// Seconds that the episodes took.
    pub rollout_seconds: f64,
    /// Seconds that the step took.
    pub seconds: f64,
}

/// Trains the variables of a model by GRPO on tasks that the engine of a [`LocalChat`] plays.
///
/// A step plays groups of episodes, drops those whose rewards are all equal, and takes an optimizer step on each
/// mini-batch of the others, with the experts and kept sets of the rollouts. Then the engine gets the new weights, whose
/// version is the number of steps taken. Indexers and the routers' selection biases stay as they are.
pub struct GrpoTrainer {
    model: Model,
    varmap: VarMap,
    parameters: Parameters,
    optimizer: Box<dyn Optimizer>,
    chat: Arc<dyn ChatModel>,
    service: Service,
    tasks: Tasks,
    rewards: RewardMix,
    options: GrpoOptions,
    /// The weights of the engine, and with them those of the last step.
    weights: HashMap<String, Tensor>,
    reference: Option<Reference>,
    steps: u64,
    next_task: u64,
    next_group: u64,
}

/// The policy that the divergence is measured from.
#[derive(Debug)]
struct Reference {
    weights: HashMap<String, Tensor>,
    model: Arc<Model>,
}

impl GrpoTrainer {
    /// A trainer at its first step. `model`, in f32, must have been made from `varmap`, and `chat` play a model of the same
    /// config on the same device; its engine gets the weights of `varmap`.
    ///
    /// # Errors
    /// [`RlError::Config`] for an option, or a model that is not f32; [`RlError::Generation`] if the engine refuses the
    /// weights.
    pub fn new(
        model: Model,
        varmap: VarMap,
        chat: &LocalChat,
        tasks: Tasks,
        rewards: RewardMix,
        options: GrpoOptions,
    ) -> Result<Self> {
        options.validate()?;
        if model.dtype() != DType::F32 {
            let message = format!("is {}, expected f32, as the sampler's copy of it is", model.dtype().as_str());
            return Err(RlError::config("model.dtype", message));
        }
        let parameters = Parameters::of(&varmap, |name| Stage::Language.learns(name));
        let optimizer = options.optimizer.build(&parameters)?;
        let mut trainer = Self {
            model,
            varmap,
            parameters,
            optimizer,
            chat: Arc::new(chat.clone()),
            service: chat.service().clone(),
            tasks,
            rewards,
            options,
            weights: HashMap::new(),
            reference: None,
            steps: 0,
            next_task: 0,
            next_group: 0,
        };
        let frozen = trainer.publish()?;
        if trainer.options.has_reference() {
            trainer.reference = Some(Reference { weights: trainer.weights.clone(), model: frozen });
        }
        Ok(trainer)
    }

    /// The model, whose weights are those after the last step.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The variables.
    pub fn varmap(&self) -> &VarMap {
        &self.varmap
    }

    /// What is trained.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// Steps taken, those before a resumption among them.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Takes one step, telling `on_episode` of each episode as it ends.
    ///
    /// # Errors
    /// As [`collect`]; [`RlError::Rollout`] if there is no task left; [`RlError::NotFinite`] or
    /// [`RlError::Training`] for a number that is not finite. Parameters, optimizer and the position in the tasks are then
    /// as they were before the step.
    pub fn step(&mut self, on_episode: &mut dyn FnMut(&Episode)) -> Result<GrpoReport> {
        let optimizer: HashMap<String, Tensor> = self.optimizer.state()?.into_iter().collect();
        let position = (self.steps, self.next_task, self.next_group);
        let result = self.try_step(on_episode);
        if result.is_err() {
            self.restore(&self.weights)?;
            self.optimizer.load_state(&optimizer)?;
            (self.steps, self.next_task, self.next_group) = position;
        }
        result
    }

    fn try_step(&mut self, on_episode: &mut dyn FnMut(&Episode)) -> Result<GrpoReport> {
        let started = Instant::now();
        let mut taken = 0;
        let first = self.next_task;
        let tasks = &self.tasks;
        let mut tasks = (first..).map_while(tasks).inspect(|_| taken += 1);
        let wanted = self.options.groups_per_step;
        let rollout = &self.options.rollout;
        let rollouts = collect(&self.chat, &mut tasks, wanted, self.next_group, &self.rewards, rollout, on_episode)?;
        drop(tasks);
        if taken == 0 {
            let problem = format!("there is no task {first}");
            return Err(RlError::Rollout { place: "tasks".to_string(), problem });
        }
        let rollout_seconds = started.elapsed().as_secs_f64();
        let learning_rate = self.options.schedule.at(self.steps);
        let groups = &rollouts.groups;
        let (mut parts, mut on_policy_ratio, mut gradient_norm) = (Vec::new(), 1.0, 0f64);
        for mini_batch in groups.chunks(groups.len().div_ceil(self.options.mini_batches).max(1)) {
            let (mut gradients, metrics) = self.gradients(mini_batch)?;
            if parts.is_empty() {
                on_policy_ratio = metrics.mean_ratio;
            }
            gradient_norm = gradient_norm.max(gradients.clip(self.options.max_norm)?);
            self.optimizer.step(&gradients, learning_rate)?;
            parts.push(metrics);
        }
        let step = self.steps;
        self.steps += 1;
        self.next_task += taken;
        self.next_group += (groups.len() + rollouts.equal.len()) as u64;
        let frozen = self.publish()?;
        if self.reference.is_some() && self.options.refresh_steps.is_some_and(|every| self.steps.is_multiple_of(every))
        {
            self.reference = Some(Reference { weights: self.weights.clone(), model: frozen });
        }
        let episodes: Vec<&Episode> = groups.iter().chain(&rollouts.equal).flat_map(|group| &group.episodes).collect();
        let mean = |value: &dyn Fn(&Episode) -> f64| {
            episodes.iter().map(|episode| value(episode)).sum::<f64>() / episodes.len().max(1) as f64
        };
        Ok(GrpoReport {
            step,
            episodes: episodes.len(),
            groups: groups.len(),
            equal_groups: rollouts.equal.len(),
            reward: mean(&|episode| episode.reward),
            solved: mean(&|episode| f64::from(u8::from(episode.verdict.solved))),
            truncated: mean(&|episode| f64::from(u8::from(episode.truncated()))),
            tokens: episodes.iter().map(|episode| episode.generated_tokens()).sum(),
            on_policy_ratio,
            learning_rate,
            gradient_norm,
            metrics: Metrics::merged(&parts),
            rollout_seconds,
            seconds: started.elapsed().as_secs_f64(),
        })
    }

    /// The gradients of one mini-batch. Each of its groups goes through the model alone; they add up.
    fn gradients(&self, groups: &[Group]) -> Result<(Gradients, Metrics)> {
        let beta = |domain: &str| self.options.beta_of(domain);
        let kl = if self.reference.is_some() { self.options.loss.kl } else { Kl::None };
        let config = GrpoConfig { kl, ..self.options.loss.clone() };
        let whole = Packed::new(groups, beta)?;
        let nothing = Tensor::zeros(whole.rows(), DType::F32, self.model.device())?;
        let plan = Plan::of(&whole.batch(Policy::LogProbs(nothing), None, &config)?, &config)?;
        let (mut gradients, mut parts, mut at) = (Gradients::default(), Vec::new(), 0);
        for group in groups {
            let packed = Packed::new(std::slice::from_ref(group), beta)?;
            let indices: Vec<usize> = (at..at + packed.sequences()).collect();
            at += packed.sequences();
            let ref_logp = match (&self.reference, kl) {
                (Some(reference), kl) if kl != Kl::None => Some(reference.log_probs(&packed, &config)?),
                _ => None,
            };
            let layout = packed.layout();
            let replay = match self.options.keep_routing {
                true => {
                    let experts = packed.expert_indices(self.model.config().num_hidden_layers)?;
                    Some(self.model.replay(&layout, &experts, &[])?)
                }
                false => None,
            };
            let options = TrainingOptions {
                replay: replay.as_ref(),
                checkpointing: self.options.checkpointing,
                ..TrainingOptions::default()
            };
            let hidden = self.model.forward_training(&packed.ids, &layout, options, None)?.hidden;
            let head = self.model.lm_head().weight.clone();
            let batch = packed.batch(Policy::Hidden { hidden, head }, ref_logp, &config)?;
            let found = evaluate(&batch, &plan.select(&indices)?, &config)?;
            // The graph is freed where its backward pass ran, on a stack that is large enough.
            drop(batch);
            gradients.add(Gradients::of(&backward(found.loss)?, &self.parameters)?)?;
            parts.push(found.metrics);
        }
        Ok((gradients, Metrics::merged(&parts)))
    }

    /// Gives the engine the variables as they are, under the number of steps; returns that model.
    fn publish(&mut self) -> Result<Arc<Model>> {
        let mut weights = HashMap::new();
        for (name, variable) in Parameters::of(&self.varmap, |_| true).iter() {
            // The optimizer changes variables in place.
            weights.insert(name.to_string(), variable.as_tensor().detach().copy()?);
        }
        let frozen = self.frozen(&weights)?;
        self.service.swap_weights(Arc::clone(&frozen), self.steps)?;
        self.weights = weights;
        Ok(frozen)
    }

    /// A model of some weights, without gradients.
    fn frozen(&self, weights: &HashMap<String, Tensor>) -> Result<Arc<Model>> {
        let vb = VarBuilder::from_tensors(weights.clone(), DType::F32, self.model.device());
        Ok(Arc::new(Model::with_options(self.model.config(), self.model.options(), vb)?))
    }

    /// Sets the variables.
    fn restore(&self, weights: &HashMap<String, Tensor>) -> Result<()> {
        for (name, variable) in Parameters::of(&self.varmap, |_| true).iter() {
            if let Some(tensor) = weights.get(name) {
                variable.set(tensor)?;
            }
        }
        Ok(())
    }
}

impl Reference {
    /// The log-probability of each row's token `[T]`, with the reference's own choice of experts.
    fn log_probs(&self, packed: &Packed, config: &GrpoConfig) -> Result<Vec<f64>> {
        let output = self.model.forward_training(&packed.ids, &packed.layout(), TrainingOptions::default(), None)?;
        // Of the batch only tokens, mask and kept sets are needed here.
        let nothing = Tensor::zeros(packed.rows(), DType::F32, self.model.device())?;
        let batch = packed.batch(Policy::LogProbs(nothing), None, config)?;
        let kept = (config.keep_sampling_mask && config.ref_renormalise).then_some(&batch.kept);
        let head = &self.model.lm_head().weight;
        let found = head_log_probs(&output.hidden, head, &batch.tokens, &batch.gen_mask, kept, config.temperature)?;
        Ok(found.logp.to_dtype(DType::F64)?.to_vec1()?)
    }
}

impl std::fmt::Debug for GrpoTrainer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = f.debug_struct("GrpoTrainer");
        debug.field("options", &self.options).field("steps", &self.steps).field("next_task", &self.next_task);
        debug.finish_non_exhaustive()
    }
}
