//! Plays episodes.

use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use serde::{Deserialize, Serialize};

use super::episode::{Episode, Group};
use super::sequence::Sequence;
use crate::agent::{Agent, AgentEventKind, AgentOptions};
use crate::chat_model::ChatModel;
use crate::environment::{Environment, World};
use crate::generation::{Cancel, Record, RecordOptions, SamplingParams};
use crate::rl::error::{Result, RlError};
use crate::rl::reward::RewardMix;

/// How episodes are played.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RolloutOptions {
    /// Attempts at each task, `G`; at least 2. Default 16.
    pub group_size: usize,
    /// Most episodes at the same time. One that ends gives its place to the next. Default 64.
    pub lanes: usize,
    /// How often a group whose rewards are all equal may be replaced by a group of another task. Default: as often as
    /// groups are wanted.
    pub max_refills: Option<usize>,
    /// From this, the group and the member come the seeds of an episode. Default 0.
    pub seed: u64,
    /// How the agent works. Its `record` is set by [`Self::record`], its seed by [`Self::seed`].
    pub agent: AgentOptions,
    /// What is recorded of each answer. Default: everything. Remote models refuse what their servers cannot tell.
    pub record: RecordOptions,
}

impl Default for RolloutOptions {
    fn default() -> Self {
        let params = SamplingParams { temperature: 1.0, ..SamplingParams::default() };
        Self {
            group_size: 16,
            lanes: 64,
            max_refills: None,
            seed: 0,
            agent: AgentOptions { params, ..AgentOptions::default() },
            record: RecordOptions::ALL,
        }
    }
}

impl RolloutOptions {
    /// Checks every range.
    ///
    /// # Errors
    /// [`RlError::Config`] names the first option at fault: groups of fewer than two, no lane, greedy choice, or a
    /// penalty or bias, which the trainer cannot reproduce.
    pub fn validate(&self) -> Result<()> {
        let wrong = |key: &str, message: String| Err(RlError::Config { key: key.to_string(), message });
        if self.group_size < 2 {
            return wrong("group_size", format!("{}, expected at least 2, to be compared", self.group_size));
        }
        if self.lanes == 0 {
            return wrong("lanes", "0, expected at least 1".to_string());
        }
        let params = &self.agent.params;
        if params.is_greedy() {
            return wrong("agent.params.temperature", "0, expected more: greedy attempts are all the same".to_string());
        }
        let penalty = [
            ("repetition_penalty", params.repetition_penalty != 1.0),
            ("presence_penalty", params.presence_penalty != 0.0),
            ("frequency_penalty", params.frequency_penalty != 0.0),
            ("logit_bias", !params.logit_bias.is_empty()),
        ];
        if self.record.any()
            && let Some((name, _)) = penalty.into_iter().find(|(_, set)| *set)
        {
            let message = "is set, but the trainer's probabilities know no penalty and no bias".to_string();
            return wrong(&format!("agent.params.{name}"), message);
        }
        self.agent.validate().map_err(RlError::from)
    }
}

/// The groups of a step.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Rollouts {
    /// Groups whose rewards differ, in the order of their numbers.
    pub groups: Vec<Group>,
    /// Groups whose rewards were all equal: they teach nothing, and others took their place if tasks were left.
    pub equal: Vec<Group>,
}

/// Plays `wanted` groups of tasks from `tasks`, telling `on_episode` of each as it ends, in no particular order.
///
/// A group whose rewards are all equal is replaced by one of the next task, as often as
/// [`RolloutOptions::max_refills`] allows and while there are tasks. Groups are numbered from `first_group`. The same model,
/// tasks and options give the same rollouts, whatever the number of lanes.
///
/// Every lane asks the model on a thread of its own; the engine of a local model puts their tokens into common steps. To
/// share the prompt of a group, give the engine [`prefix_tokens`](crate::generation::EngineOptions::prefix_tokens).
///
/// # Errors
/// [`RlError::Config`] for options, [`RlError::Agent`] if the model fails or refuses a conversation, and as
/// [`RewardMix::reward`]. An error ends the other episodes.
pub fn collect(
    model: &Arc<dyn ChatModel>,
    tasks: &mut dyn Iterator<Item = Box<dyn Environment>>,
    wanted: usize,
    first_group: u64,
    rewards: &RewardMix,
    options: &RolloutOptions,
    on_episode: &mut dyn FnMut(&Episode),
) -> Result<Rollouts> {
    options.validate()?;
    let mut rollouts = Rollouts::default();
    let (mut next, mut refills) = (first_group, options.max_refills.unwrap_or(wanted));
    let mut missing = wanted;
    while missing > 0 {
        let round: Vec<_> = (&mut *tasks).take(missing).zip(next..).collect();
        if round.is_empty() {
            break;
        }
        next += round.len() as u64;
        let (groups, equal): (Vec<_>, Vec<_>) =
            play(model, round, rewards, options, on_episode)?.into_iter().partition(Group::differs);
        missing = equal.len().min(refills);
        refills -= missing;
        rollouts.groups.extend(groups);
        rollouts.equal.extend(equal);
    }
    Ok(rollouts)
}

/// Plays a group of each task.
fn play(
    model: &Arc<dyn ChatModel>,
    tasks: Vec<(Box<dyn Environment>, u64)>,
    rewards: &RewardMix,
    options: &RolloutOptions,
    on_episode: &mut dyn FnMut(&Episode),
) -> Result<Vec<Group>> {
    let mut groups: Vec<Group> = tasks.iter().map(|(_, id)| Group { id: *id, episodes: Vec::new() }).collect();
    let lanes = options.lanes.min(tasks.len() * options.group_size);
    let members = tasks
        .into_iter()
        .flat_map(|(task, group)| (0..options.group_size).map(move |member| (task.fork(), group, member)));
    let queue = &Mutex::new(members);
    let cancel = &Cancel::new();
    let mut failed = None;
    thread::scope(|scope| {
        let (sender, received) = mpsc::channel();
        for lane in 0..lanes {
            let sender = sender.clone();
            let work = move || {
                while !cancel.is_cancelled() {
                    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some((environment, group, member)) = next else { break };
                    let episode = play_one(model, environment, group, member, rewards, options, cancel);
                    // The receiver lives as long as the scope.
                    drop(sender.send(episode));
                }
            };
            let thread = thread::Builder::new().name(format!("lane {lane}")).spawn_scoped(scope, work);
            if let Err(error) = thread {
                // The other lanes do its work; without any, nothing would be done.
                if lane == 0 {
                    failed = Some(RlError::Thread(error));
                }
                break;
            }
        }
        drop(sender);
        for episode in received {
            match episode {
                Ok(episode) if failed.is_none() => {
                    on_episode(&episode);
                    // Groups are numbered without a gap.
                    let at = (episode.group - groups[0].id) as usize;
                    groups[at].episodes.push(episode);
                }
                Ok(_) => {}
                Err(error) => {
                    cancel.cancel();
                    failed.get_or_insert(error);
                }
            }
        }
    });
    match failed {
        Some(error) => Err(error),
        None => {
            groups.iter_mut().for_each(|group| group.episodes.sort_by_key(|episode| episode.member));
            Ok(groups)
        }
    }
}

/// Plays one episode.
fn play_one(
    model: &Arc<dyn ChatModel>,
    environment: Box<dyn Environment>,
    group: u64,
    member: usize,
    rewards: &RewardMix,
    options: &RolloutOptions,
    cancel: &Cancel,
) -> Result<Episode> {
    let (task, domain) = (environment.id().to_string(), environment.domain().to_string());
    let world = World::new(environment);
    let messages = world.reset();
    let mut agent = options.agent.clone();
    agent.record = options.record;
    agent.params.seed = Some(seed(options.seed, group, member));
    let tools =
        world.toolbox().map_err(|error| RlError::Rollout { place: task.clone(), problem: error.to_string() })?;
    let mut records: Vec<Record> = Vec::new();
    let mut malformed = 0;
    let agent = Agent::new(Arc::clone(model), tools).with_options(agent).with_cancel(cancel.clone());
    let outcome = agent.run(messages, &mut |event| match event.kind {
        AgentEventKind::Recorded(record) => records.push(*record),
        AgentEventKind::Answered { dropped, call_error, .. } => {
            malformed += usize::from(call_error.is_some() || !dropped.is_empty());
        }
        _ => {}
    })?;
    let verdict = world.verify(outcome.message.as_ref().filter(|_| outcome.stop == crate::agent::Stop::Answer));
    let mut messages = outcome.messages;
    messages.iter_mut().for_each(|message| message.written_ids = None);
    let mut episode = Episode {
        task,
        domain,
        group,
        member,
        messages,
        stop: outcome.stop,
        steps: outcome.steps,
        usage: outcome.usage,
        malformed,
        verdict,
        parts: Vec::new(),
        reward: 0.0,
        sequences: if options.record.logprobs { Sequence::join(&records)? } else { Vec::new() },
    };
    (episode.reward, episode.parts) = rewards.reward(&episode)?;
    Ok(episode)
}

/// A seed of its own for each episode (the finalizer of SplitMix64 over the three numbers).
fn seed(seed: u64, group: u64, member: usize) -> u64 {
    let mut mixed = seed;
    for number in [group, member as u64] {
        mixed = mixed.wrapping_add(number).wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
    }
    mixed
}
