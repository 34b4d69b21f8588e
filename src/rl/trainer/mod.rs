//! The loop of reinforcement learning: episodes, loss, optimizer, new weights for the engine.

mod checkpoint;
mod options;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use candle_core::{DType, Tensor};
use candle_nn::{VarBuilder, VarMap};
use serde::{Deserialize, Serialize};

pub use options::{GrpoOptions, Selection};

use super::advantage::Plan;
use super::batch::Policy;
use super::config::{GrpoConfig, Kl};
use super::error::{Result, RlError};
use super::logprob::head_log_probs;
use super::loss::evaluate;
use super::metrics::Metrics;
use super::reward::RewardMix;
use super::rollout::{Episode, Group, Packed, Rollouts, collect};
use crate::chat_model::{ChatModel, LocalChat};
use crate::config::MlpType;
use crate::environment::Environment;
use crate::generation::Service;
use crate::model::{Model, Trace, TrainingOptions, backward};
use crate::training::{Gradients, Optimizer, Parameters, Stage, TrainingError};

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
    /// Mean ratio of policy and sampler in the first mini-batch, which is on policy if the episodes were played in this
    /// step: 1 up to rounding. 1 if no group was trained on.
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
    /// The engine's model.
    sampler: Arc<Model>,
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
    /// config on the same device in the dtype of [`GrpoOptions::dtype`]; its engine gets the weights of `varmap`.
    ///
    /// # Errors
    /// [`RlError::Config`] for an option, or a model that is not f32; [`RlError::Generation`] if the engine refuses the
    /// weights, as one of another dtype does; [`RlError::Training`] if a weight is not finite.
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
            let message = format!("is {}, expected f32: the variables are the master weights", model.dtype().as_str());
            return Err(RlError::config("model.dtype", message));
        }
        let parameters = Parameters::of(&varmap, |name| Stage::Language.learns(name));
        let optimizer = options.optimizer.build(&parameters)?;
        let weights = copied(&varmap)?;
        let sampler = frozen(&model, &weights, options.sampler_dtype())?;
        let first = || Reference { weights: weights.clone(), model: Arc::clone(&sampler) };
        let reference = options.has_reference().then(first);
        let trainer = Self {
            model,
            varmap,
            parameters,
            optimizer,
            chat: Arc::new(chat.clone()),
            service: chat.service().clone(),
            tasks,
            rewards,
            options,
            weights,
            sampler,
            reference,
            steps: 0,
            next_task: 0,
            next_group: 0,
        };
        trainer.check_parameters()?;
        trainer.service.swap_weights(Arc::clone(&trainer.sampler), 0)?;
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
    /// As [`collect`]; [`RlError::Rollout`] if there is no task left; [`RlError::NotRecorded`] if the episodes lack what a
    /// technique needs; [`RlError::NotFinite`] or [`RlError::Training`] for a number that is not finite, by the name of the
    /// parameter if it is one. Parameters, optimizer and the position in the tasks are then as they were before the step.
    pub fn step(&mut self, on_episode: &mut dyn FnMut(&Episode)) -> Result<GrpoReport> {
        self.guarded(|trainer| {
            let started = Instant::now();
            let rollouts = trainer.play(on_episode)?;
            let played = started.elapsed().as_secs_f64();
            let report = trainer.learn(&rollouts)?;
            Ok(GrpoReport { rollout_seconds: played, seconds: report.seconds + played, ..report })
        })
    }

    /// Takes one step on episodes that were played before: of files, or of a model behind a server. The position in the
    /// tasks moves on by the number of groups.
    ///
    /// # Errors
    /// As [`Self::step`]; [`RlError::Rollout`] if there is no group.
    pub fn step_on(&mut self, rollouts: &Rollouts) -> Result<GrpoReport> {
        self.guarded(|trainer| match rollouts.groups.len() + rollouts.equal.len() {
            0 => Err(RlError::Rollout { place: "rollouts".to_string(), problem: "there is no group".to_string() }),
            _ => trainer.learn(rollouts),
        })
    }

    /// Carries out a step; if it fails, everything is as it was before.
    fn guarded(&mut self, step: impl FnOnce(&mut Self) -> Result<GrpoReport>) -> Result<GrpoReport> {
        let optimizer: HashMap<String, Tensor> = self.optimizer.state()?.into_iter().collect();
        let position = (self.steps, self.next_task, self.next_group);
        let result = step(self);
        if result.is_err() {
            // What failed may be an op far behind the cause.
            let broken = self.check_parameters();
            self.restore(&self.weights)?;
            self.optimizer.load_state(&optimizer)?;
            (self.steps, self.next_task, self.next_group) = position;
            broken?;
        }
        result
    }

    /// Refuses parameters that are not finite.
    fn check_parameters(&self) -> Result<()> {
        match Parameters::of(&self.varmap, |_| true).not_finite()? {
            Some(name) => Err(TrainingError::NotFinite { name: format!("the parameter {name}") }.into()),
            None => Ok(()),
        }
    }

    /// Plays the groups of the next step without learning from them, for [`Self::step_on`]. The same step plays the same
    /// episodes, however often it is asked.
    ///
    /// # Errors
    /// As [`collect`]; [`RlError::Rollout`] if there is no task left.
    pub fn play(&self, on_episode: &mut dyn FnMut(&Episode)) -> Result<Rollouts> {
        let GrpoOptions { groups_per_step, rollout, .. } = &self.options;
        let first = self.next_task;
        let mut tasks = (first..).map_while(&self.tasks);
        let played =
            collect(&self.chat, &mut tasks, *groups_per_step, self.next_group, &self.rewards, rollout, on_episode)?;
        if played.groups.is_empty() && played.equal.is_empty() {
            let problem = format!("there is no task {first}");
            return Err(RlError::Rollout { place: "tasks".to_string(), problem });
        }
        Ok(played)
    }

    fn learn(&mut self, rollouts: &Rollouts) -> Result<GrpoReport> {
        let started = Instant::now();
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
        let taken = (groups.len() + rollouts.equal.len()) as u64;
        (self.next_task, self.next_group) = (self.next_task + taken, self.next_group + taken);
        self.publish()?;
        if self.reference.is_some() && self.options.refresh_steps.is_some_and(|every| self.steps.is_multiple_of(every))
        {
            self.reference = Some(Reference { weights: self.weights.clone(), model: Arc::clone(&self.sampler) });
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
            rollout_seconds: 0.0,
            seconds: started.elapsed().as_secs_f64(),
        })
    }

    /// Refuses episodes that lack what the loss or one of its techniques needs.
    fn check_recorded(&self, groups: &[Group]) -> Result<()> {
        let has_experts = !self.model.config().mlp_layer_types.iter().all(|kind| *kind == MlpType::Dense);
        let routing = self.options.keep_routing && has_experts;
        for episode in groups.iter().flat_map(|group| &group.episodes) {
            let lacks = |what, technique| {
                Err(RlError::NotRecorded {
                    episode: format!("{}, attempt {}", episode.task, episode.member),
                    what,
                    technique,
                })
            };
            if episode.sequences.is_empty() {
                return lacks("tokens with log-probabilities", "the loss");
            }
            if routing && episode.sequences.iter().any(|sequence| sequence.routes.is_none()) {
                return lacks("experts", "keep_routing");
            }
            if self.options.loss.keep_sampling_mask && episode.sequences.iter().any(|sequence| sequence.kept.is_none())
            {
                return lacks("kept sets", "loss.keep_sampling_mask");
            }
        }
        Ok(())
    }

    /// The gradients of one mini-batch. Each of its groups goes through the model alone; they add up.
    fn gradients(&self, groups: &[Group]) -> Result<(Gradients, Metrics)> {
        let beta = |domain: &str| self.options.beta_of(domain);
        self.check_recorded(groups)?;
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
            let experts = match self.options.keep_routing {
                true => packed.expert_indices(self.model.config().num_hidden_layers)?,
                false => Vec::new(),
            };
            let positions = match self.options.selection {
                Selection::Recompute => Vec::new(),
                Selection::Replay => self.positions(&packed, &experts)?,
            };
            let replay = match experts.is_empty() && positions.is_empty() {
                false => Some(self.model.replay(&layout, &experts, &positions)?),
                true => None,
            };
            let options = TrainingOptions {
                replay: replay.as_ref(),
                checkpointing: self.options.checkpointing,
                dtype: self.options.dtype.map(DType::from),
                ..TrainingOptions::default()
            };
            let hidden = self.model.forward_training(&packed.ids, &layout, options, None)?.hidden;
            // As the engine's copy of it is, so that sampler and trainer agree.
            let head = self.model.lm_head().weight.to_dtype(hidden.dtype())?;
            let batch = packed.batch(Policy::Hidden { hidden, head }, ref_logp, &config)?;
            let found = evaluate(&batch, &plan.select(&indices)?, &config)?;
            // The graph is freed where its backward pass ran, on a stack that is large enough.
            drop(batch);
            gradients.add(Gradients::of(&backward(found.loss)?, &self.parameters)?)?;
            parts.push(found.metrics);
        }
        Ok((gradients, Metrics::merged(&parts)))
    }

    /// The positions that each row attends to in each layer of the engine's model, with the rollouts' experts.
    fn positions(&self, packed: &Packed, experts: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let layout = packed.layout();
        let replay = self.sampler.replay(&layout, experts, &[])?;
        let options = TrainingOptions { replay: Some(&replay), ..TrainingOptions::default() };
        let mut trace = Trace::default();
        self.sampler.forward_training(&packed.ids, &layout, options, Some(&mut trace))?;
        Ok(trace.topk_indices)
    }

    /// Gives the engine the variables as they are, under the number of steps.
    fn publish(&mut self) -> Result<()> {
        self.check_parameters()?;
        let weights = copied(&self.varmap)?;
        let sampler = self.frozen(&weights)?;
        self.service.swap_weights(Arc::clone(&sampler), self.steps)?;
        (self.weights, self.sampler) = (weights, sampler);
        Ok(())
    }

    /// A model of some weights in the engine's dtype, without gradients.
    fn frozen(&self, weights: &HashMap<String, Tensor>) -> Result<Arc<Model>> {
        frozen(&self.model, weights, self.options.sampler_dtype())
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

/// A copy of the variables, which the optimizer changes in place.
fn copied(varmap: &VarMap) -> Result<HashMap<String, Tensor>> {
    let mut weights = HashMap::new();
    for (name, variable) in Parameters::of(varmap, |_| true).iter() {
        weights.insert(name.to_string(), variable.as_tensor().detach().copy()?);
    }
    Ok(weights)
}

/// The same model with some weights, without gradients.
fn frozen(model: &Model, weights: &HashMap<String, Tensor>, dtype: DType) -> Result<Arc<Model>> {
    let vb = VarBuilder::from_tensors(weights.clone(), dtype, model.device());
    Ok(Arc::new(Model::with_options(model.config(), model.options(), vb)?))
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
