//! What a request yields does not depend on the others, to the last bit.

use std::sync::{Arc, LazyLock};

use candle_core::DType;
use deepseek_v32::generation::{
    Completion, Engine, EngineOptions, Event, LocalModel, Request, RequestId, SamplingParams, Token,
};
use deepseek_v32::model::Model;
use deepseek_v32::weights::{self, LoadOptions};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/assets/tiny-v32");

static MODEL: LazyLock<Arc<Model>> = LazyLock::new(|| {
    // With AMX, `linear` rounds bf16 weights' products in another way from 32 rows on; see `ops::linear`.
    let amx = std::fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| text.contains("amx_bf16"));
    let options = LoadOptions { weight_dtype: amx.then_some(DType::F32), ..LoadOptions::default() };
    let (config, vb) = weights::load(FOLDER, &options, |_| {}).unwrap();
    Arc::new(Model::new(&config, vb).unwrap())
});

fn engine(options: EngineOptions) -> Engine<LocalModel> {
    Engine::new(LocalModel::new(MODEL.clone()).unwrap(), options).unwrap()
}

/// Tokens that look random.
fn prompt(len: usize, salt: usize) -> Vec<u32> {
    (0..len).map(|at| (300 + (at * at + salt * (at + 1)) % 2000) as u32).collect()
}

fn request(prompt_ids: Vec<u32>, max_tokens: usize, seed: u64) -> Request {
    let params = if seed == 0 { SamplingParams::greedy() } else { SamplingParams::sampled(1.0, seed) };
    Request { params, max_tokens: Some(max_tokens), logprobs: Some(3), ..Request::new(prompt_ids) }
}

/// The tokens and the bits of everything that is told of them.
fn bits<'a>(tokens: impl IntoIterator<Item = &'a Token>) -> Vec<(u32, Vec<u32>)> {
    tokens
        .into_iter()
        .map(|token| {
            let logprobs = token.logprobs.as_ref().unwrap();
            let top = logprobs.top.iter().flat_map(|&(id, logprob)| [id, logprob.to_bits()]);
            let bits =
                [logprobs.logprob.to_bits(), logprobs.sampled_logprob.to_bits()].into_iter().chain(top).collect();
            (token.id, bits)
        })
        .collect()
}

/// Short, longer than `index_topk`, within a page, over several; greedy and sampled.
fn requests() -> Vec<Request> {
    vec![
        request(prompt(9, 1), 12, 0),
        request(prompt(70, 2), 14, 5),
        // 128 is `index_topk`: the prompt is dense at its beginning, the answer sparse.
        request(prompt(120, 3), 16, 6),
        request(prompt(190, 4), 10, 0),
    ]
}

/// Runs requests while others come and go, some of them cancelled; returns the tokens of the requests.
fn among_others(options: EngineOptions) -> Vec<Vec<Token>> {
    let mut engine = engine(options);
    let requests = requests();
    let mut asked: Vec<Option<RequestId>> = vec![None; requests.len()];
    let mut tokens: Vec<Vec<Token>> = vec![Vec::new(); requests.len()];
    let mut others = Vec::new();
    let mut ended = 0;
    for step in 0.. {
        if ended == requests.len() {
            return tokens;
        }
        if step % 3 == 0 && step / 3 < requests.len() {
            asked[step / 3] = Some(engine.add(requests[step / 3].clone()).unwrap());
        }
        if step % 4 == 1 {
            let (len, max_tokens) = ([3, 150, 40, 64][step / 4 % 4], 1 + step % 7);
            others.push(engine.add(request(prompt(len, 50 + step), max_tokens, step as u64)).unwrap());
        }
        if step % 10 == 9 {
            engine.cancel(others[step / 10]);
        }
        for (id, event) in engine.step().unwrap() {
            let Some(at) = asked.iter().position(|asked| *asked == Some(id)) else { continue };
            match event.unwrap() {
                Event::Token(token) => tokens[at].push(token),
                Event::Finished { .. } => ended += 1,
            }
        }
    }
    tokens
}

#[test]
fn neighbours_and_cuts_change_no_bit_of_an_answer() {
    let alone = |options: EngineOptions| {
        let run = |request: Request| -> Completion { engine(options.clone()).generate(request, |_| {}).unwrap() };
        requests().into_iter().map(|request| bits(&run(request).tokens)).collect::<Vec<_>>()
    };
    let expected = alone(EngineOptions::default());
    let options = |prefill_chunk, mixed_prefill_tokens, max_sequences| EngineOptions {
        prefill_chunk,
        mixed_prefill_tokens,
        max_sequences,
        ..EngineOptions::default()
    };
    assert!(alone(options(37, 64, 64)) == expected, "chunks change bits");
    for options in [options(2048, 2048, 64), options(2048, 16, 64), options(50, 7, 3)] {
        let got: Vec<_> = among_others(options.clone()).iter().map(bits).collect();
        for (at, (got, expected)) in got.iter().zip(&expected).enumerate() {
            let differs = got.iter().zip(expected).position(|(got, expected)| got != expected);
            assert!(got == expected, "request {at}, token {differs:?} of {}, {options:?}", expected.len());
        }
    }
}

/// A pass that verifies drafts has several rows of a sequence; the bits are those of one row at a time.
#[test]
fn drafts_change_no_bit_of_an_answer() {
    let run = |draft_tokens: usize, request: Request| {
        let options = EngineOptions { draft_tokens, prefill_chunk: 50, ..EngineOptions::default() };
        engine(options).generate(request, |_| {}).unwrap()
    };
    let mut accepted = 0;
    for request in requests() {
        let expected = bits(&run(0, request.clone()).tokens);
        let got = run(2, request);
        accepted += got.usage.accepted;
        assert!(bits(&got.tokens) == expected, "{:?}", got.usage);
    }
    assert!(accepted > 0);
}
