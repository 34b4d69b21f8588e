//! Tasks made, answers verified and states forked a second, on one core.
//!
//! ```bash
//! cargo bench --bench synthesis
//! ```

use std::hint::black_box;
use std::time::{Duration, Instant};

use deepseek_v32::environment::tables::TableVerifier;
use deepseek_v32::synthesis::{Category, Content, Plan, Run};

/// How many times a function runs in half a second, as a rate.
fn rate(mut function: impl FnMut() -> u64) -> f64 {
    let (begin, mut count) = (Instant::now(), 0);
    while begin.elapsed() < Duration::from_millis(500) {
        count += function();
    }
    count as f64 / begin.elapsed().as_secs_f64()
}

fn main() {
    let run = Run { plan: Plan::only(Category::General, 48, 2_240), ..Run::default() };
    let begin = Instant::now();
    let outputs: Vec<_> = (0..12).filter_map(|index| run.make(Category::General, index).ok()).collect();
    let tasks: usize = outputs.iter().map(|output| output.tasks.len()).sum();
    println!("made:      {:>10.0} tasks/s", tasks as f64 / begin.elapsed().as_secs_f64());
    let worlds: Vec<_> = outputs
        .iter()
        .filter_map(|output| {
            let Content::General(tables) = &output.environment.content;
            let tasks: Vec<_> = output.tasks.iter().filter_map(|task| Some((task, task.goal.general()?))).collect();
            Some((tables.database().ok()?, tasks))
        })
        .collect();
    let verified = rate(|| {
        let mut count = 0;
        for (database, tasks) in &worlds {
            for (task, goal) in tasks {
                black_box(goal.problems(database, Some(&task.wrong[0].answer), database));
                count += 1;
            }
        }
        count
    });
    println!("verified:  {verified:>10.0} answers/s, each from the tables on");
    let checked = rate(|| {
        let mut count = 0;
        for (database, tasks) in &worlds {
            for (task, goal) in tasks {
                let Ok(expected) = goal.expected(&mut &*database) else { continue };
                for wrong in &task.wrong {
                    let answer = serde_json::from_str(&wrong.answer).unwrap_or_default();
                    black_box(expected.problem(&answer, &[]));
                    count += 1;
                }
            }
        }
        count
    });
    println!("verified:  {checked:>10.0} answers/s, those of a task together");
    let forked = rate(|| {
        for (database, _) in &worlds {
            black_box(database.clone());
        }
        worlds.len() as u64
    });
    println!("forked:    {:>10.3} us a state", 1e6 / forked);
}
