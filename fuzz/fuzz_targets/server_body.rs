//! Any bytes as the body of each endpoint: a request that is within its limits, or an error of status 400 or 413 on one line.
#![no_main]

use deepseek_v32::server::request::{ChatCall, CompletionCall, DetokenizeCall, TokenizeCall};
use deepseek_v32::server::{ApiError, ServerOptions};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let options = ServerOptions::default();
    check(ChatCall::from_json(body, &options));
    check(CompletionCall::from_json(body, &options));
    check(TokenizeCall::from_json(body, &options));
    check(DetokenizeCall::from_json(body));
});

fn check<T: std::fmt::Debug>(read: Result<T, ApiError>) {
    match read {
        Ok(call) => drop(format!("{call:?}")),
        Err(error) => {
            assert!(matches!(error.status(), 400 | 413));
            assert!(error.to_json().starts_with("{\"error\":{"));
        }
    }
}
