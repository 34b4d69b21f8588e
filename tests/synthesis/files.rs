//! The files of a run: the same bytes however it is split, and Python that agrees.

use std::fs;
use std::path::Path;
use std::process::Command;

use deepseek_v32::synthesis::{Category, Plan, Run, Store, export_python};

fn run() -> Run {
    Run { seed: 3, plan: Plan::only(Category::General, 40, 80), ..Run::default() }
}

fn read(folder: &Path) -> Vec<String> {
    let names = ["envs.jsonl", "tasks.jsonl", "rejects.jsonl", "report.md"];
    names.iter().map(|name| fs::read_to_string(folder.join(name)).unwrap()).collect()
}

#[test]
fn shards_and_resumed_runs_have_the_bytes_of_one_run() {
    let (whole, split) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::open(whole.path(), run()).unwrap();
    store.make((0, 1), false, &|_| {}).unwrap();
    store.merge().unwrap();
    let store = Store::open(split.path(), run()).unwrap();
    store.make((1, 2), false, &|_| {}).unwrap();
    assert!(!store.is_whole());
    assert!(store.merge().is_err());
    store.make((0, 1), true, &|_| {}).unwrap();
    store.merge().unwrap();
    assert_eq!(read(whole.path()), read(split.path()));
    assert!(Store::open(split.path(), Run { seed: 4, ..run() }).is_err(), "the folder holds another run");
    assert!(store.make((2, 2), false, &|_| {}).is_err());
}

#[test]
fn exported_tasks_are_judged_by_python_as_here() {
    let python = ["python3.11", "python3"].into_iter().find(|name| Command::new(name).arg("-V").output().is_ok());
    let Some(python) = python else { return println!("skipped: there is no Python") };
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::open(from.path(), Run { plan: Plan::only(Category::General, 12, 48), ..run() }).unwrap();
    store.make((0, 1), false, &|_| {}).unwrap();
    store.merge().unwrap();
    let count = export_python(from.path(), 30, 1, to.path()).unwrap();
    assert_eq!(count, 30);
    let mut folders: Vec<_> = fs::read_dir(to.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.retain(|path| path.is_dir());
    assert_eq!(folders.len(), count);
    let audit = |folders: &[std::path::PathBuf]| {
        let output = Command::new(python).current_dir(to.path()).args(["-m", "audit"]).args(folders).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (right, text) = audit(&folders);
    assert!(right, "{text}");
    // An audit that could not fail would say nothing.
    let answers = folders[0].join("answers.json");
    let mut stored: serde_json::Value = serde_json::from_str(&fs::read_to_string(&answers).unwrap()).unwrap();
    let gold = stored["gold"].clone();
    stored["wrong"].as_array_mut().unwrap().push(gold);
    fs::write(&answers, stored.to_string()).unwrap();
    assert!(!audit(&folders[..1]).0);
}

#[test]
fn a_smaller_plan_keeps_the_proportions() {
    let full = Plan::full(&Category::ALL);
    assert_eq!(Plan::scaled(&Category::ALL, None, None), full);
    assert_eq!(Plan::scaled(&Category::ALL, Some(1827), Some(full.tasks())), full);
    assert_eq!(Plan::scaled(&[Category::General], Some(36), Some(180)), Plan::only(Category::General, 36, 180));
    for tasks in [1, 17, 1_000, full.tasks() / 3] {
        let plan = Plan::scaled(&Category::ALL, None, Some(tasks));
        assert_eq!(plan.tasks(), tasks);
        for (category, size) in plan.iter() {
            let exact = tasks as f64 * category.size().tasks as f64 / full.tasks() as f64;
            assert!((size.tasks as f64 - exact).abs() < 1.0, "{category}: {size:?}, expected {exact}");
            assert_eq!(size.environments == 0, size.tasks == 0, "{category}: {size:?}");
        }
    }
}
