//! Tasks as they are made: what is right passes, what is wrong does not, and a world poses them.

use std::sync::{Arc, OnceLock};

use deepseek_v32::chat::ToolCall;
use deepseek_v32::environment::World;
use deepseek_v32::environment::tables::{Database, TableVerifier, TableWorld};
use deepseek_v32::synthesis::family::FAMILIES;
use deepseek_v32::synthesis::program::Goal;
use deepseek_v32::synthesis::record::{Attempt, TaskRecord};
use deepseek_v32::synthesis::split::{Split, unseen_family};
use deepseek_v32::synthesis::{Category, Content, Output, Plan, Run, Tables};

fn run(seed: u64) -> Run {
    Run { seed, plan: Plan::only(Category::General, 12, 96), ..Run::default() }
}

fn outputs() -> &'static [Output] {
    static OUTPUTS: OnceLock<Vec<Output>> = OnceLock::new();
    OUTPUTS.get_or_init(|| (0..12).map(|index| run(7).make(Category::General, index).unwrap()).collect())
}

fn tables(output: &Output) -> &Tables {
    match &output.environment.content {
        Content::General(tables) => tables,
    }
}

fn goal(task: &TaskRecord) -> &Goal {
    task.goal.general().unwrap()
}

fn each_task(mut see: impl FnMut(&Output, &Database, &TaskRecord)) {
    let mut count = 0;
    for output in outputs() {
        let database = tables(output).database().unwrap();
        for task in &output.tasks {
            see(output, &database, task);
            count += 1;
        }
    }
    assert!(count > 60, "{count} tasks");
}

/// The state after the calls of an attempt, made as an agent makes them.
fn world(output: &Output, database: &Database, task: &TaskRecord) -> World {
    let tools = tables(output).tools.clone().into();
    World::new(Box::new(TableWorld::new(&task.id, &task.prompt, database.clone(), tools, Arc::new(goal(task).clone()))))
}

fn attempt(output: &Output, database: &Database, task: &TaskRecord, attempt: &Attempt) -> bool {
    let world = world(output, database, task);
    let submit = serde_json::json!({"answer_text": attempt.answer});
    let calls = attempt.calls.iter().map(|call| (call.tool.clone(), call.arguments.to_string()));
    let toolbox = world.toolbox().unwrap();
    for (name, arguments) in calls.chain([("submit_result".to_string(), submit.to_string())]) {
        toolbox.call(&ToolCall { id: None, name, arguments });
    }
    world.verify(None).solved
}

#[test]
fn the_trace_of_a_solution_solves_its_task_in_a_world() {
    each_task(|output, database, task| {
        let world = world(output, database, task);
        let toolbox = world.toolbox().unwrap();
        for call in &task.trace {
            let call = ToolCall { id: None, name: call.tool.clone(), arguments: call.arguments.to_string() };
            let result = toolbox.call(&call);
            assert!(!result.failed, "{}: {}", task.prompt, result.content);
        }
        assert!(world.verify(None).solved, "{}", task.prompt);
        assert_eq!(task.difficulty.calls, task.trace.len());
    });
}

#[test]
fn stored_answers_pass_or_fail_as_they_should() {
    let mut wrong = 0;
    each_task(|output, database, task| {
        assert!(attempt(output, database, task, &task.gold), "{}", task.prompt);
        for other in &task.alternatives {
            assert!(attempt(output, database, task, other), "{}: {}", task.prompt, other.answer);
        }
        for other in &task.wrong {
            assert!(!attempt(output, database, task, other), "{}: {}", task.prompt, other.answer);
            wrong += 1;
        }
        assert!(!goal(task).problems(database, None, database).is_empty());
        assert!(!goal(task).problems(database, Some("{}"), database).is_empty());
    });
    assert!(wrong > 200, "{wrong} wrong answers");
}

#[test]
fn ids_are_hashes_and_parents_are_easier() {
    for output in outputs() {
        assert_eq!(output.environment.id, output.environment.content_id());
        for task in &output.tasks {
            assert_eq!(task.id, task.content_id());
            let Some(parent) = &task.parent else { continue };
            let parent = output.tasks.iter().find(|other| other.id == *parent);
            assert!(parent.is_none_or(|parent| parent.level + 1 == task.level));
        }
    }
}

#[test]
fn an_environment_depends_on_its_place_alone() {
    let (all, more) = (run(7), Run { seed: 7, plan: run(7).plan.and(Category::General, 24, 192), ..run(7) });
    for index in [11, 3] {
        let (a, b) = (all.make(Category::General, index).unwrap(), more.make(Category::General, index).unwrap());
        assert_eq!((a.environment, a.tasks, a.rejects), (b.environment, b.tasks, b.rejects));
    }
    assert_ne!(run(8).make(Category::General, 3).unwrap().environment.id, outputs()[3].environment.id);
}

#[test]
fn splits_keep_environments_and_families_apart() {
    for output in outputs() {
        let split = output.environment.split;
        assert_eq!(split == Split::TestC, unseen_family(&output.environment.family));
        for task in &output.tasks {
            assert!(task.split == split || (split == Split::Train && task.split == Split::TestA));
        }
    }
    assert!(FAMILIES.iter().any(|family| !unseen_family(family.name)));
}

#[test]
fn the_trip_planner_has_the_fifteen_tools() {
    let trip = outputs().iter().find(|output| output.environment.family == "trip").unwrap();
    let mut names: Vec<&str> = tables(trip).tools.iter().map(|tool| tool.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "get_all_attractions_by_city",
            "get_all_cities",
            "get_all_hotels_by_city",
            "get_all_restaurants_by_city",
            "get_city_by_attraction",
            "get_city_by_hotel",
            "get_city_by_restaurant",
            "get_city_transport",
            "get_infos_by_attraction",
            "get_infos_by_city",
            "get_infos_by_hotel",
            "get_infos_by_restaurant",
            "get_inter_city_transport",
            "get_weather_by_city_date",
            "submit_result",
        ]
    );
}
