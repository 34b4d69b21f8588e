//! The parts of a reward, by hand.

use std::sync::Arc;

use deepseek_v32::agent::Stop;
use deepseek_v32::chat::Message;
use deepseek_v32::chat_model::{ChatRequest, ChatUsage};
use deepseek_v32::environment::Verdict;
use deepseek_v32::rl::reward::{
    Format, LanguageConsistency, Outcome, OverlongPenalty, Reward, RewardMix, Rubric, Script,
};
use deepseek_v32::rl::rollout::Episode;

use crate::agent_support::{Scripted, respond};

fn episode(domain: &str, tokens: usize) -> Episode {
    let mut answer = Message::assistant("Four.");
    answer.reasoning_content = Some("two and two 四四".to_string());
    Episode {
        task: "t".into(),
        domain: domain.into(),
        group: 0,
        member: 0,
        messages: vec![Message::user("2 + 2?"), answer],
        stop: Stop::Answer,
        steps: 4,
        usage: ChatUsage { completion_tokens: tokens, ..ChatUsage::default() },
        malformed: 1,
        verdict: Verdict { score: 0.5, solved: false, problems: Vec::new() },
        parts: Vec::new(),
        reward: 0.0,
        sequences: Vec::new(),
    }
}

#[test]
fn parts_have_their_values() {
    let episode = episode("maths", 90);
    assert_eq!(Outcome.value(&episode).unwrap(), 0.5);
    assert_eq!(Format.value(&episode).unwrap(), 0.75);
    let penalty = OverlongPenalty { longest: 100, buffer: 20 };
    let values: Vec<f64> = [0, 80, 85, 90, 99, 100, 5000].map(|tokens| penalty.at(tokens)).into();
    assert_eq!(values, [0.0, 0.0, -0.25, -0.5, -0.95, -1.0, -1.0]);
    assert_eq!(penalty.value(&episode).unwrap(), -0.5);
    assert_eq!(OverlongPenalty { longest: 10, buffer: 0 }.at(9), 0.0);
    // 9 Latin letters and 2 Han characters; content does not count.
    let share = |script| LanguageConsistency { script }.value(&episode).unwrap();
    assert_eq!((share(Script::Latin), share(Script::Han), share(Script::Cyrillic)), (9.0 / 11.0, 2.0 / 11.0, 0.0));
    assert_eq!(LanguageConsistency { script: Script::Han }.of("1 + 1 = 2"), 1.0);
    assert_eq!(LanguageConsistency { script: Script::Cyrillic }.of("да, yes"), 0.4);
}

#[test]
fn a_mix_weighs_the_parts_of_a_domain() {
    let mix = RewardMix::agent(100).with_domain("maths", Outcome, 2.0).with_domain("maths", Format, -1.0);
    let (reward, parts) = mix.reward(&episode("maths", 90)).unwrap();
    assert_eq!(reward, 2.0 * 0.5 - 0.75);
    assert_eq!(parts.iter().map(|part| part.name.as_str()).collect::<Vec<_>>(), ["outcome", "format"]);
    let (reward, parts) = mix.reward(&episode("writing", 90)).unwrap();
    assert!((reward - (0.5 + 0.075 - 0.5)).abs() < 1e-12, "{reward}");
    assert_eq!(parts.len(), 3);
    let longer = RewardMix::speciale(100).reward(&episode("writing", 190)).unwrap().0;
    assert!((longer - (0.5 + 0.075 - 0.1 * 0.75)).abs() < 1e-12, "{longer}");
    assert_eq!(RewardMix::new().reward(&episode("writing", 90)).unwrap(), (0.0, Vec::new()));
    let error = RewardMix::outcome().with(Outcome, f64::INFINITY).reward(&episode("x", 0)).unwrap_err().to_string();
    assert!(error.contains("outcome") && error.contains("inf"), "{error}");
}

#[test]
fn a_judge_is_asked_again_until_it_scores() {
    let judge = |answers: [&'static str; 3]| {
        Arc::new(Scripted::new(move |n, request: &ChatRequest| {
            let said = &request.messages[1].content;
            assert!(said.contains("be brief") && said.contains("[USER] 2 + 2?") && said.contains("[ASSISTANT] Four."));
            respond(request, Message::assistant(answers[n]))
        }))
    };
    let value = |answers| Rubric::new(judge(answers), "be brief").value(&episode("x", 0));
    assert_eq!(value(["{\"score\": 0.25}", "", ""]).unwrap(), 0.25);
    assert_eq!(value(["{\"note\": 1} so: {\"score\": 1}", "", ""]).unwrap(), 1.0);
    assert_eq!(value(["fine", "{\"score\": 7}", "{\"score\": 0}"]).unwrap(), 0.0);
    let error = value(["fine", "{\"score\": \"1\"}", "good"]).unwrap_err().to_string();
    assert!(error.contains("judge") && error.contains("good"), "{error}");
}
