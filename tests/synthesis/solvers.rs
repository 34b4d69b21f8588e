//! The gates' counts, and scripted solvers in the worlds that agents act in.

use std::sync::Arc;

use deepseek_v32::environment::tables::TableWorld;
use deepseek_v32::synthesis::solver::{Oracle, count, ladder};
use deepseek_v32::synthesis::{Category, Content, Plan, Run, Stream};

#[test]
fn wrong_mutants_fail_and_solvers_that_know_more_solve_more() {
    let run = Run { seed: 5, plan: Plan::only(Category::General, 12, 36), ..Run::default() };
    let (mut mutants, mut tasks, mut known) = (0, 0, 0);
    let mut solved = vec![0; ladder().len()];
    for index in 0..12 {
        let output = run.make(Category::General, index).unwrap();
        let Content::General(tables) = &output.environment.content;
        let database = tables.database().unwrap();
        for task in &output.tasks {
            assert!(task.quality.is_enough() && task.quality.wrong() > 0, "{}", task.prompt);
            assert_eq!(task.quality.killed + task.quality.equivalent, task.quality.mutants);
            mutants += task.quality.mutants;
            tasks += 1;
            let tools = tables.tools.clone().into();
            let goal = Arc::new(task.goal.general().unwrap().clone());
            let world = TableWorld::new(&task.id, &task.prompt, database.clone(), tools, goal);
            let stream = Stream::new(1, &task.id);
            for (at, (solver, attempts)) in ladder().iter().enumerate() {
                let passes = count(&**solver, task, &world, *attempts, &stream);
                assert_eq!(passes, count(&**solver, task, &world, *attempts, &stream), "{}", task.prompt);
                solved[at] += passes.solved;
            }
            known += count(&Oracle { per_cent: 100 }, task, &world, 1, &stream).solved;
        }
    }
    assert!(tasks >= 30 && mutants > 10 * tasks, "{tasks} tasks, {mutants} mutants");
    assert_eq!(known, tasks as u64, "an oracle without mistakes solves every task");
    // random, greedy, and the oracles.
    assert!(solved[0] < solved[2] && solved[2] < solved[3] && solved[3] < solved[4], "{solved:?}");
    println!("{tasks} tasks, {mutants} mutants, solved {solved:?}");
}
