//! Records of answers that come from servers: what is taken, and what is refused by name.
#![cfg(all(feature = "client", feature = "server"))]

use deepseek_v32::chat::Message;
use deepseek_v32::chat_model::{
    ChatModel, ChatModelError, ChatRequest, Finish, OpenAiChat, OpenAiOptions, ServerLogprobs,
};
use deepseek_v32::generation::{RECORD_VERSION, Record, RecordOptions, SamplingParams};
use deepseek_v32::rl::rollout::Sequence;
use serde_json::json;

use crate::agent_client_support::{Server, quick, whole};
use crate::server_support::{loaded, tiny};

/// Greatest difference of a log-probability that went through JSON, and through batches of another size.
const LOGPROB_TOLERANCE: f32 = 1e-4;

const TOKENS: RecordOptions = RecordOptions { logprobs: true, kept: true, routes: false };

fn request(params: SamplingParams, record: RecordOptions) -> ChatRequest {
    let messages = [Message::user("weather in Lisbon")];
    ChatRequest { params, record, thinking: false, max_tokens: Some(24), ..ChatRequest::new(messages) }
}

fn sampled() -> SamplingParams {
    SamplingParams::sampled(1.0, 5)
}

#[test]
fn the_crate_s_server_tells_what_its_engine_records() {
    let remote = OpenAiChat::new(&format!("http://{}/v1", tiny()), "tiny-v32", OpenAiOptions::default()).unwrap();
    let own = loaded();
    for thinking in [false, true] {
        let ask = || ChatRequest { thinking, max_tokens: Some(60), ..request(sampled(), TOKENS) };
        let theirs = remote.chat(ask(), &mut |_| ()).unwrap();
        let ours = own.chat(ask(), &mut |_| ()).unwrap();
        let (theirs, ours) = (*theirs.record.unwrap(), *ours.record.unwrap());
        assert!(ours.generated_ids.len() > 3, "{ours:?}");
        let near = |one: &Option<Vec<f32>>, other: &Option<Vec<f32>>| {
            let (one, other) = (one.as_ref().unwrap(), other.as_ref().unwrap());
            assert_eq!(one.len(), other.len());
            one.iter().zip(other).for_each(|(a, b)| assert!((a - b).abs() < LOGPROB_TOLERANCE, "{a} {b}"));
        };
        near(&theirs.sampled_logprobs, &ours.sampled_logprobs);
        near(&theirs.logprobs, &ours.logprobs);
        let bare = |record: &Record| Record { logprobs: None, sampled_logprobs: None, ..record.clone() };
        assert_eq!(bare(&theirs), bare(&ours));
        let sequences = Sequence::join([&theirs]).unwrap();
        sequences[0].validate().unwrap();
        assert_eq!(sequences[0].generated_tokens(), ours.generated_ids.len());
    }
}

/// An answer as vLLM writes it.
fn answer(change: impl FnOnce(&mut serde_json::Value)) -> String {
    let logprob =
        |token: &str, logprob: f64| json!({"token": token, "logprob": logprob, "bytes": null, "top_logprobs": []});
    let mut answer = json!({
        "prompt_token_ids": [0, 7, 8],
        "choices": [{
            "index": 0,
            "message": {"role": "assistant", "content": "Hi."},
            "logprobs": {"content": [logprob("Hi", -0.5), logprob(".", -0.25), logprob("", 0.0)]},
            "finish_reason": "stop",
            "token_ids": [11, 12, 1],
        }],
        "usage": {"prompt_tokens": 3, "completion_tokens": 3},
    });
    change(&mut answer);
    answer.to_string()
}

#[test]
fn ids_and_log_probabilities_are_read_where_servers_have_them() {
    let expected = Record {
        schema_version: RECORD_VERSION,
        weights_version: 4,
        temperature: 1.0,
        prompt_ids: vec![0, 7, 8],
        generated_ids: vec![11, 12, 1],
        logprobs: Some(vec![-0.5, -0.25, 0.0]),
        sampled_logprobs: Some(vec![-0.5, -0.25, 0.0]),
        kept: Some(vec![None; 3]),
        routes: None,
    };
    // SGLang has the prompt's ids in the choice.
    let sglang = answer(|answer| {
        let prompt = answer["prompt_token_ids"].take();
        answer["choices"][0]["prompt_token_ids"] = prompt;
    });
    for body in [answer(|_| ()), sglang] {
        let server = Server::new(vec![whole("200 OK", "Content-Type: application/json\r\n", body)]);
        let options = OpenAiOptions { weights_version: 4, ..quick() };
        let response = server.chat(options).chat(request(sampled(), TOKENS), &mut |_| ()).unwrap();
        assert_eq!((*response.record.unwrap(), response.finish), (expected.clone(), Finish::Stop));
        let sent = &server.received()[0].body;
        assert_eq!((&sent["logprobs"], &sent["return_token_ids"]), (&json!(true), &json!(true)));
        assert!(sent.get("stream").is_none(), "{sent}");
    }
    // Those of the choice, where the server says that they are: kept sets stay unknown.
    let server = Server::new(vec![whole("200 OK", "", answer(|_| ()))]);
    let options = OpenAiOptions { logprobs: ServerLogprobs::Choice, ..quick() };
    let params = SamplingParams { temperature: 0.7, top_p: 0.9, ..sampled() };
    let record = RecordOptions { kept: false, ..TOKENS };
    let response = server.chat(options).chat(request(params, record), &mut |_| ()).unwrap();
    let record = response.record.unwrap();
    assert_eq!((record.temperature, &record.logprobs, &record.kept), (0.7, &None, &None));
    assert_eq!(record.sampled_logprobs, expected.sampled_logprobs);
}

#[test]
fn an_answer_without_what_a_record_needs_is_an_error_that_names_it() {
    type Change = fn(&mut serde_json::Value);
    let cases: [(Change, &str); 6] = [
        (|answer| answer["prompt_token_ids"] = json!(null), "no prompt_token_ids"),
        (|answer| answer["choices"][0]["token_ids"] = json!(null), "no choices[0].token_ids"),
        (|answer| answer["choices"][0]["token_ids"] = json!([11, -1]), "choices[0].token_ids is [11,-1]"),
        (|answer| answer["choices"][0]["token_ids"] = json!([11]), "has 3 entries, expected 1"),
        (|answer| answer["choices"][0]["logprobs"] = json!(null), "no choices[0].logprobs"),
        (
            |answer| answer["choices"][0]["logprobs"]["content"][1]["logprob"] = json!("x"),
            "choices[0].logprobs.content[1].logprob is \"x\"",
        ),
    ];
    for (change, words) in cases {
        let server = Server::new(vec![whole("200 OK", "", answer(change))]);
        match server.chat(quick()).chat(request(sampled(), TOKENS), &mut |_| ()).unwrap_err() {
            ChatModelError::NotAnAnswer { problem, .. } => assert!(problem.contains(words), "{problem}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn what_no_server_can_record_is_refused_before_anything_is_sent() {
    let server = Server::new(Vec::new());
    let (cut, warm) = (SamplingParams { top_p: 0.9, ..sampled() }, SamplingParams { temperature: 0.7, ..sampled() });
    let bent = SamplingParams { presence_penalty: 0.5, ..sampled() };
    let logprobs = RecordOptions { logprobs: true, ..RecordOptions::default() };
    for (params, record, field, word) in [
        (sampled(), RecordOptions::ALL, "record.routes", "keep routing"),
        (cut.clone(), TOKENS, "record.kept", "sampling mask"),
        (cut, logprobs, "record.logprobs", "ServerLogprobs::Choice"),
        (warm, logprobs, "record.logprobs", "temperature 1"),
        (bent, logprobs, "record.logprobs", "penalty"),
    ] {
        let error = server.chat(quick()).chat(request(params, record), &mut |_| ()).unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
        assert!(matches!(&error, ChatModelError::Unsupported { field: Some(at), .. } if at == field), "{error:?}");
    }
    assert!(server.received().is_empty());
}
