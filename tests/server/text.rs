//! Raw completions, tokens, models, health and the page.
#![cfg(feature = "server")]

use crate::generation_support::{Mock, alone};
use crate::server_support::http::{Answer, events, get, open, post};
use crate::server_support::{checkpoint, golden, mock, tiny};
use deepseek_v32::chat::Json;
use deepseek_v32::generation::{EngineOptions, Request, SpecialTokens, Tokenizer};
use deepseek_v32::server::ServerOptions;
use serde_json::{Value, json};

const TEXT: &str = "/v1/completions";

fn texts(answer: &Answer) -> Vec<String> {
    let json = answer.json();
    let choices = json["choices"].as_array().unwrap_or_else(|| panic!("{}", answer.body));
    choices.iter().map(|choice| choice["text"].as_str().unwrap().to_string()).collect()
}

/// The texts of a stream's answers, and their ends.
fn streamed(body: &Value) -> Vec<(String, Value)> {
    let mut body = body.clone();
    body["stream"] = true.into();
    let mut choices = Vec::new();
    for event in events(tiny(), TEXT, &body) {
        for choice in event["choices"].as_array().unwrap() {
            let index = choice["index"].as_u64().unwrap() as usize;
            choices.resize(choices.len().max(index + 1), (String::new(), Value::Null));
            choices[index].0.push_str(choice["text"].as_str().unwrap());
            choices[index].1 = choice["finish_reason"].clone();
        }
    }
    choices
}

#[test]
fn texts_and_ids_are_completed_alike() {
    let golden = golden();
    let sample = &golden[3];
    let want = "There are 5183 oranges in the warehouse.";
    for prompt in [&sample["prompt"], &sample["prompt_ids"]] {
        let body = json!({"prompt": prompt, "max_tokens": 50});
        let answer = post(tiny(), TEXT, &body);
        assert_eq!(texts(&answer), [want]);
        let json = answer.json();
        assert_eq!(
            (&json["object"], &json["choices"][0]["finish_reason"]),
            (&json!("text_completion"), &json!("stop"))
        );
        assert_eq!(json["usage"]["prompt_tokens"], sample["prompt_ids"].as_array().unwrap().len());
        assert_eq!(streamed(&body), [(want.to_string(), json!("stop"))]);
    }
    let body = json!({"prompt": [sample["prompt"], golden[19]["prompt"]], "max_tokens": 50, "n": 2});
    let answer = post(tiny(), TEXT, &body);
    assert_eq!(texts(&answer), [want, want, "Karen works for Vertex.", "Karen works for Vertex."]);
    let tokens: usize = [3, 19].map(|at: usize| golden[at]["prompt_ids"].as_array().unwrap().len()).iter().sum();
    assert_eq!(answer.json()["usage"]["prompt_tokens"], tokens);
    assert_eq!(streamed(&body).iter().map(|(text, _)| text.clone()).collect::<Vec<_>>(), texts(&answer));
    let ids = json!({"prompt": [sample["prompt_ids"], golden[19]["prompt_ids"]], "max_tokens": 3});
    let answer = post(tiny(), TEXT, &ids);
    assert_eq!(answer.json()["choices"][1]["finish_reason"], "length");
}

#[test]
fn the_default_length_echo_and_log_probabilities_are_the_protocols() {
    let body = json!({"prompt": "hello there", "logit_bias": {"1": -100}});
    assert_eq!(post(tiny(), TEXT, &body).json()["usage"]["completion_tokens"], 16);
    let echo = json!({"prompt": "hello there", "echo": true, "max_tokens": 0});
    let answer = post(tiny(), TEXT, &echo);
    assert_eq!(
        (texts(&answer), &answer.json()["choices"][0]["finish_reason"]),
        (vec!["hello there".to_string()], &json!("length"))
    );
    let echo = json!({"prompt": golden()[3]["prompt"], "echo": true, "max_tokens": 50});
    let prompt = golden()[3]["prompt"].as_str().unwrap().to_string();
    assert_eq!(texts(&post(tiny(), TEXT, &echo)), [prompt.clone() + "There are 5183 oranges in the warehouse."]);
    assert_eq!(streamed(&echo)[0].0, prompt + "There are 5183 oranges in the warehouse.");
    let body = json!({"prompt": golden()[3]["prompt"], "logprobs": 2, "max_tokens": 50});
    let choice = post(tiny(), TEXT, &body).json()["choices"][0].clone();
    let logprobs = &choice["logprobs"];
    let tokens: Vec<&str> =
        logprobs["tokens"].as_array().unwrap().iter().map(|token| token.as_str().unwrap()).collect();
    assert_eq!(tokens.concat(), choice["text"].as_str().unwrap());
    let mut offset = 0;
    for (at, token) in tokens.iter().enumerate() {
        assert_eq!(logprobs["text_offset"][at], offset);
        offset += token.chars().count();
        assert_eq!(logprobs["top_logprobs"][at][token], logprobs["token_logprobs"][at]);
        assert_eq!(logprobs["top_logprobs"][at].as_object().unwrap().len(), 2);
    }
}

#[test]
fn seeds_decide() {
    let body = |seed: u64| json!({"prompt": "hello", "temperature": 2.0, "seed": seed, "max_tokens": 20});
    let text = |seed| texts(&post(tiny(), TEXT, &body(seed)));
    assert_eq!(text(1), text(1));
    assert_ne!(text(1), text(2));
}

#[test]
fn many_clients_at_once_get_their_own_answers() {
    let server = mock(Mock::new(2560, 4096), EngineOptions::default(), ServerOptions::default());
    let tokenizer = &Tokenizer::load(checkpoint()).unwrap();
    std::thread::scope(|scope| {
        for client in 0..32u32 {
            let address = server.address;
            scope.spawn(move || {
                let prompt: Vec<u32> = (0..3 + client).map(|i| 100 + i * 7 + client).collect();
                let mut request = Request { max_tokens: Some(30), ..Request::new(prompt.clone()) };
                request.stop.ids = vec![1];
                let want: Vec<u32> = alone(&request, 2560, 4096).0.iter().map(|token| token.id).collect();
                let want = tokenizer.decode(&want, SpecialTokens::Drop).unwrap();
                let body = json!({"prompt": prompt, "max_tokens": 30, "stream": client % 2 == 0});
                let text = if client % 2 == 0 {
                    let pieces = events(address, TEXT, &body);
                    pieces.iter().map(|event| event["choices"][0]["text"].as_str().unwrap()).collect::<String>()
                } else {
                    texts(&post(address, TEXT, &body)).concat()
                };
                assert_eq!(text, want, "client {client}");
            });
        }
    });
}

#[test]
fn ids_and_texts_of_tokens() {
    let sample = &golden()[3];
    let answer = post(tiny(), "/tokenize", &json!({"prompt": sample["prompt"], "return_token_strs": true})).json();
    assert_eq!(answer["tokens"], sample["prompt_ids"]);
    assert_eq!(
        (&answer["count"], &answer["max_model_len"]),
        (&json!(sample["prompt_ids"].as_array().unwrap().len()), &json!(1536))
    );
    assert_eq!(answer["token_strs"][0], "<｜begin▁of▁sentence｜>");
    // As it was recorded, the order of its keys included, which `Value` does not keep.
    let text = std::fs::read_to_string(checkpoint().join("golden.json")).unwrap();
    let Some(Json::Array(samples)) = Json::parse(&text).unwrap().get("samples").cloned() else { panic!("no samples") };
    for (sample, recorded) in golden().iter().zip(&samples) {
        let messages = recorded.get("messages").unwrap();
        let thinking = recorded.get("mode").unwrap().as_str() == Some("thinking");
        let body = format!("{{\"messages\": {messages}, \"chat_template_kwargs\": {{\"thinking\": {thinking}}}}}");
        let headers = [("Content-Type", "application/json")];
        let chat = open(tiny(), "POST", "/tokenize", &headers, body.as_bytes()).whole().json();
        assert_eq!(chat["tokens"], sample["prompt_ids"]);
    }
    let text = post(tiny(), "/detokenize", &json!({"tokens": sample["prompt_ids"]})).json();
    assert_eq!(text["prompt"], sample["prompt"]);
    assert_eq!(post(tiny(), "/tokenize", &json!({})).error().2, "prompt");
    assert_eq!(post(tiny(), "/detokenize", &json!({"tokens": [1, 99999]})).error().2, "tokens");
    assert_eq!(post(tiny(), "/detokenize", &json!({"tokens": "a"})).error().2, "tokens");
}

#[test]
fn the_model_the_health_and_the_page() {
    let models = get(tiny(), "/v1/models").json();
    assert_eq!((&models["object"], &models["data"][0]["id"]), (&json!("list"), &json!("tiny-v32")));
    assert_eq!(get(tiny(), "/v1/models/tiny-v32").json(), models["data"][0]);
    assert_eq!(get(tiny(), "/health").json(), json!({"status": "ok"}));
    let page = get(tiny(), "/");
    let policy = page.header("content-security-policy").unwrap();
    let nonce = policy.split("'nonce-").nth(1).unwrap().split('\'').next().unwrap();
    assert!(page.body.matches(&format!("nonce=\"{nonce}\"")).count() == 2 && !page.body.contains("{{nonce}}"));
    assert!(!page.body.contains("innerHTML") && !page.body.contains("http:") && !page.body.contains("https:"));
    assert_ne!(get(tiny(), "/").header("content-security-policy").unwrap(), policy);
    assert!(page.header("x-request-id").unwrap().starts_with("req_"));
}

/// Offsets follow from the tokens: that text waits for a stop string or the rest of a character changes none.
#[test]
fn offsets_of_text_that_is_held_back() {
    let prompt = golden()[3]["prompt"].clone();
    let offsets = |fields: Value| {
        let mut body = json!({"prompt": prompt, "logprobs": 0, "max_tokens": 50});
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let whole = post(tiny(), TEXT, &body).json()["choices"][0]["logprobs"].clone();
        body["stream"] = true.into();
        let mut streamed = Vec::new();
        for event in events(tiny(), TEXT, &body) {
            for choice in event["choices"].as_array().unwrap() {
                streamed.extend(choice["logprobs"]["text_offset"].as_array().cloned().unwrap_or_default());
            }
        }
        assert_eq!(whole["text_offset"], Value::from(streamed));
        let tokens: Vec<String> = serde_json::from_value(whole["tokens"].clone()).unwrap();
        let offsets: Vec<usize> = serde_json::from_value(whole["text_offset"].clone()).unwrap();
        let mut at = 0;
        for (token, offset) in tokens.iter().zip(&offsets) {
            assert_eq!(*offset, at, "{tokens:?}");
            at += token.chars().count();
        }
        assert!(tokens.len() > 3);
        offsets
    };
    // The whole answer may begin this stop string, and does not come to it.
    let held = json!({"stop": ["There are 5183 oranges in the warehouse. And"]});
    assert_eq!(offsets(held), offsets(json!({})));
}
