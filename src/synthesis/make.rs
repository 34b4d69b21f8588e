//! Makes the environments and tasks of the general category.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use super::category::{Category, TaskGoal};
use super::compose::Draft;
use super::gate::{Candidate, Passed, run as run_solution, shape, shuffled};
use super::instance::Instance;
use super::record::{Reject, SCHEMA_VERSION, TaskRecord};
use super::run::{MakeError, Output, Run};
use super::toolset::augment;
use crate::chat::{ToolError, ToolSet};
use crate::environment::tables::Database;

/// Drafts that are tried for one step.
const TRIES: usize = 24;

/// An environment in the making.
struct Making {
    instance: Instance,
    checks: ToolSet,
    counterfactuals: Vec<Database>,
    shuffled: Database,
    shapes: BTreeMap<String, usize>,
    prompts: BTreeSet<String>,
    rejects: Vec<Reject>,
    examined: u64,
}

/// A task in the making.
struct Step {
    draft: Draft,
    prompt: String,
    level: u8,
    chain: usize,
    augmented: Vec<String>,
    passed: Passed,
}

/// Makes the environment with a place in the run.
///
/// # Errors
/// There is no family, or a family's data contradict each other.
pub(super) fn make(run: &Run, index: u64) -> Result<Output, MakeError> {
    let count = u64::try_from(run.families.len()).unwrap_or(u64::MAX);
    let place = index.checked_rem(count).and_then(|place| usize::try_from(place).ok());
    let family = place.and_then(|place| run.families.get(place)).ok_or(MakeError::NoFamily)?;
    let instance = Instance::new(run.seed, index, family)?;
    let mut making = Making {
        checks: checks(&instance)?,
        counterfactuals: vec![instance.counterfactual(0)?, instance.counterfactual(1)?],
        shuffled: shuffled(&instance.database, &mut instance.stream("order"))?,
        instance,
        shapes: BTreeMap::new(),
        prompts: BTreeSet::new(),
        rejects: Vec::new(),
        examined: 0,
    };
    let quota = run.quota(Category::General, index);
    let mut kept: Vec<(Step, Option<String>)> = Vec::new();
    for chain in 0..quota * 4 + 4 {
        if kept.len() >= quota {
            break;
        }
        let steps = making.chain(chain, run.levels.clone())?;
        let mut goals: Vec<Option<String>> = vec![None];
        goals.extend(steps.iter().map(|step| Some(step.prompt.clone())));
        let room = quota - kept.len();
        let mut steps: Vec<_> = steps.into_iter().zip(goals).collect();
        steps.retain(|(step, _)| run.levels.contains(&step.level));
        // The hardest ones, where there is no room for all.
        kept.extend(steps.split_off(steps.len().saturating_sub(room)));
    }
    Ok(making.finish(kept))
}

fn checks(instance: &Instance) -> Result<ToolSet, ToolError> {
    let tools = instance.tools.iter().map(|tool| tool.definition(&instance.database));
    ToolSet::new(tools.collect::<Vec<_>>())
}

impl Making {
    /// A first task and those made from it, each from the one before.
    fn chain(&mut self, chain: usize, levels: RangeInclusive<u8>) -> Result<Vec<Step>, ToolError> {
        let stream = self.instance.stream(&format!("chain/{chain}"));
        let span = i64::from(levels.end().saturating_sub(*levels.start()));
        // The higher of two draws: chains end early often enough.
        let mut ends = stream.child("last");
        let last = i64::from(*levels.end()) - ends.between(0, span).min(ends.between(0, span));
        let mut steps: Vec<Step> = Vec::new();
        for level in 1..=u8::try_from(last).unwrap_or(1) {
            let mut next = None;
            for attempt in 0..TRIES {
                let mut stream = stream.child(&format!("{level}/{attempt}"));
                let draft = match steps.last() {
                    None => Draft::first(&self.instance, &mut stream),
                    Some(step) => step.draft.harder(&self.instance, &mut stream),
                };
                let Some(draft) = draft.filter(|draft| draft.is_sound(&self.instance)) else { continue };
                next = self.step(draft, level, chain, steps.last(), &mut stream)?;
                if next.is_some() {
                    break;
                }
            }
            let Some(step) = next else { break };
            steps.push(step);
        }
        Ok(steps)
    }

    /// A task, if the gates let it pass.
    fn step(
        &mut self,
        draft: Draft,
        level: u8,
        chain: usize,
        parent: Option<&Step>,
        stream: &mut super::Stream,
    ) -> Result<Option<Step>, ToolError> {
        let goal = draft.goal(&self.instance);
        let prompt = draft.prompt(&self.instance, stream);
        self.examined += 1;
        let reject = |gate: &str, reason: String, prompt: String| Reject {
            category: Category::General,
            environment: self.instance.index,
            family: self.instance.family.name.to_string(),
            level,
            gate: gate.to_string(),
            reason,
            prompt,
        };
        if self.prompts.contains(&prompt) {
            let reject = reject("G10", "the environment has this prompt".to_string(), prompt);
            self.rejects.push(reject);
            return Ok(None);
        }
        let added = match augment(&self.instance, &goal) {
            Ok(added) => added,
            Err(reason) => {
                let reject = reject("G1", reason, prompt);
                self.rejects.push(reject);
                return Ok(None);
            }
        };
        let augmented: Vec<String> = added.iter().map(|tool| tool.name.clone()).collect();
        let before = self.instance.tools.len();
        if !added.is_empty() {
            self.instance.tools.extend(added);
            self.checks = checks(&self.instance)?;
        }
        let candidate = Candidate {
            instance: &self.instance,
            tools: &self.instance.tools,
            checks: &self.checks,
            goal: &goal,
            prompt: &prompt,
            level,
            parent: parent.map(|parent| (&parent.passed.gold, parent.passed.difficulty.calls)),
            counterfactuals: &self.counterfactuals,
            shuffled: &self.shuffled,
        };
        match candidate.examine(&self.shapes, stream) {
            Ok(passed) => {
                *self.shapes.entry(passed.shape.clone()).or_default() += 1;
                self.prompts.insert(prompt.clone());
                Ok(Some(Step { draft, prompt, level, chain, augmented, passed }))
            }
            Err(failure) => {
                let reject = reject(failure.gate, failure.reason, prompt);
                self.rejects.push(reject);
                if !augmented.is_empty() {
                    self.instance.tools.truncate(before);
                    self.checks = checks(&self.instance)?;
                }
                Ok(None)
            }
        }
    }

    /// The records. Tools that came later may have made a solution shorter, so that its calls are made once more.
    fn finish(mut self, kept: Vec<(Step, Option<String>)>) -> Output {
        let environment = self.instance.record();
        let mut ids: BTreeMap<String, String> = BTreeMap::new();
        let mut tasks = Vec::new();
        for (step, parent) in kept {
            let goal = step.draft.goal(&self.instance);
            let trace = match run_solution(&self.instance.database, &self.instance.tools, &goal, None) {
                Ok((trace, answer, _)) if is_text(&answer, &step.passed.gold.answer) => trace,
                other => {
                    self.rejects.push(Reject {
                        category: Category::General,
                        environment: self.instance.index,
                        family: self.instance.family.name.to_string(),
                        level: step.level,
                        gate: "G1".to_string(),
                        reason: format!("with the last tools: {}", other.err().unwrap_or_default()),
                        prompt: step.prompt,
                    });
                    continue;
                }
            };
            let mut difficulty = step.passed.difficulty;
            difficulty.calls = trace.len();
            let mut task = TaskRecord {
                schema_version: SCHEMA_VERSION,
                id: String::new(),
                environment: environment.id.clone(),
                parent: parent.and_then(|prompt| ids.get(&prompt).cloned()),
                category: Category::General,
                family: environment.family.clone(),
                split: environment.split.of_task(&format!("{}/{}", environment.id, step.chain)),
                level: step.level,
                shape: shape(&goal),
                prompt: step.prompt,
                goal: TaskGoal::General(goal),
                difficulty,
                quality: step.passed.quality,
                augmented: step.augmented,
                trace,
                gold: step.passed.gold,
                alternatives: step.passed.alternatives,
                wrong: step.passed.wrong,
            };
            task.id = task.content_id();
            ids.insert(task.prompt.clone(), task.id.clone());
            tasks.push(task);
        }
        Output { environment, tasks, rejects: self.rejects, examined: self.examined }
    }
}

/// Whether an answer prints as `text`.
fn is_text(answer: &serde_json::Value, text: &str) -> bool {
    let printed = answer.to_string();
    printed == text
}
