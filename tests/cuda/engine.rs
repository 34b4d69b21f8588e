//! The engine on a GPU: recorded steps against launched ones, tokens drawn on the device against the sampler.

use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor};
use deepseek_v32::generation::{
    Completion, Draw, Drawn, Engine, EngineOptions, GenerationError, LocalModel, Request, SamplingParams, TokenModel,
    draw,
};
use deepseek_v32::model::{CacheFormat, Model, ModelOptions};
use deepseek_v32::ops::layout::BatchLayout;
use deepseek_v32::weights::{self, LoadOptions};

use crate::generation_support::Mock;
use crate::gpu;
use crate::model::{checkpoint, load};

/// Of a log-probability: one rounding to f32 of numbers of a size of ten.
const LOGPROB: f32 = 2e-6;

/// Parameters of every kind.
fn params() -> Vec<SamplingParams> {
    let sampled = |seed| SamplingParams::sampled(0.9, seed);
    vec![
        SamplingParams::greedy(),
        SamplingParams { repetition_penalty: 1.3, frequency_penalty: 0.4, ..SamplingParams::greedy() },
        sampled(1),
        SamplingParams { top_k: Some(1), ..sampled(2) },
        SamplingParams { top_k: Some(20), ..sampled(3) },
        SamplingParams { top_p: 0.7, ..sampled(4) },
        SamplingParams { min_p: 0.3, temperature: 0.5, ..sampled(5) },
        SamplingParams { top_k: Some(40), top_p: 0.9, min_p: 0.05, temperature: 1.7, ..sampled(6) },
        SamplingParams { repetition_penalty: 0.8, repeat_last_n: Some(5), presence_penalty: -1.0, ..sampled(7) },
        SamplingParams { logit_bias: [(3, 5.0), (4, f32::NEG_INFINITY), (0, -3.0)].into(), ..sampled(8) },
    ]
}

/// Runs all requests at once.
fn run<M: TokenModel>(engine: &mut Engine<M>, requests: &[Request]) -> Vec<Completion> {
    let completions = engine.generate_all(requests.to_vec()).unwrap();
    completions.into_iter().map(|completion| completion.unwrap()).collect()
}

#[test]
fn recorded_steps_choose_the_same_tokens() {
    let Some(device) = gpu() else { return };
    for (dtype, cache_format, draft_tokens) in [
        (DType::F32, None, 0),
        (DType::F32, None, 1),
        (DType::F32, None, 2),
        (DType::BF16, None, 1),
        (DType::BF16, Some(CacheFormat::Fp8), 1),
    ] {
        let options = LoadOptions { dtype, device: device.clone(), ..LoadOptions::default() };
        let (config, vb) = weights::load(checkpoint(), &options, |_| ()).unwrap();
        let options = ModelOptions { cache_format, ..ModelOptions::default() };
        let model = Arc::new(Model::with_options(&config, options, vb).unwrap());
        let completions = [true, false].map(|graphs| {
            let mut local = LocalModel::new(model.clone()).unwrap();
            local.set_graphs(graphs);
            let options = EngineOptions { draft_tokens, ..EngineOptions::default() };
            let mut engine = Engine::new(local, options).unwrap();
            // Several sizes of batch, as answers end; contexts on both sides of `index_topk` and of a bucket.
            let requests = params().into_iter().enumerate().map(|(i, params)| {
                let prompt: Vec<u32> = (0..3 + 61 * i).map(|at| ((at * 7919 + 31 * i) % 2560) as u32).collect();
                let mut request = Request::new(prompt);
                (request.params, request.max_tokens) = (params, Some(10 + 9 * i));
                request
            });
            let ids: Vec<Vec<u32>> = run(&mut engine, &requests.collect::<Vec<_>>())
                .iter()
                .map(|completion| completion.tokens.iter().map(|token| token.id).collect())
                .collect();
            assert_eq!(engine.model().graphs() > 0, graphs, "graphs");
            ids
        });
        assert_eq!(completions[0], completions[1], "{dtype:?} {cache_format:?} {draft_tokens} drafts");
    }
}

/// A mock whose logits lie on a GPU, where tokens are drawn too.
struct OnGpu {
    mock: Mock,
    device: Device,
}

impl TokenModel for OnGpu {
    type Sequence = u64;

    fn vocab_size(&self) -> usize {
        self.mock.vocab_size()
    }

    fn max_context(&self) -> usize {
        self.mock.max_context()
    }

    fn has_mtp(&self) -> bool {
        self.mock.has_mtp()
    }

    fn create(&mut self) -> u64 {
        self.mock.create()
    }

    fn free(&mut self, sequence: u64) {
        self.mock.free(sequence);
    }

    fn truncate(&mut self, sequence: u64, len: usize) -> Result<()> {
        self.mock.truncate(sequence, len)
    }

    fn append(&mut self, new_tokens: &[(u64, usize)]) -> Result<BatchLayout> {
        self.mock.append(new_tokens)
    }

    fn forward(&mut self, ids: &[u32], layout: &BatchLayout) -> Result<Tensor> {
        self.mock.forward(ids, layout)
    }

    fn logits(&self, _hidden: &Tensor) -> Result<Tensor> {
        panic!("the engine takes logits to the CPU")
    }

    fn forward_logits(
        &mut self,
        ids: &[u32],
        layout: &BatchLayout,
        rows: &[usize],
    ) -> Result<Option<(Tensor, Tensor)>> {
        let hidden = self.mock.forward(ids, layout)?;
        let at = Tensor::from_vec(rows.iter().map(|&row| row as u32).collect(), rows.len(), &Device::Cpu)?;
        let logits = self.mock.logits(&hidden.index_select(&at, 0)?)?.to_device(&self.device)?;
        Ok(Some((hidden, logits)))
    }

    fn draw(&self, logits: &Tensor, draws: &[Draw]) -> Result<Option<Vec<Drawn>>> {
        draw(logits, draws)
    }

    fn forward_mtp(&mut self, next_ids: &[u32], hidden: &Tensor, layout: &BatchLayout) -> Result<Tensor> {
        self.mock.forward_mtp(next_ids, hidden, layout)
    }

    fn mtp_logits(&self, hidden: &Tensor) -> Result<Tensor> {
        self.mock.mtp_logits(hidden)
    }
}

#[test]
fn tokens_drawn_on_the_device_are_those_of_the_sampler() {
    let Some(device) = gpu() else { return };
    for (vocab_size, draft_tokens) in [(7, 0), (100, 0), (100, 2), (5000, 1)] {
        let requests: Vec<_> = params()
            .into_iter()
            .enumerate()
            .map(|(i, params)| {
                let mut request = Request::new((0..1 + i as u32 % 3).collect::<Vec<u32>>());
                (request.params, request.max_tokens) = (params, Some(30));
                (request.logprobs, request.kept) = (Some(0), true);
                request
            })
            .collect();
        let mock = || Mock::new(vocab_size, 200).with_mtp(|history| history % 3 > 0);
        let options = EngineOptions { draft_tokens, ..EngineOptions::default() };
        let expected = run(&mut Engine::new(mock(), options.clone()).unwrap(), &requests);
        let on_gpu = OnGpu { mock: mock(), device: device.clone() };
        let found = run(&mut Engine::new(on_gpu, options).unwrap(), &requests);
        for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let what = format!("request {i}, {vocab_size} tokens, {draft_tokens} drafts");
            assert_eq!(found.tokens.len(), expected.tokens.len(), "{what}");
            for (found, expected) in found.tokens.iter().zip(&expected.tokens) {
                assert_eq!((found.id, &found.kept), (expected.id, &expected.kept), "{what}");
                let [found, expected] = [found, expected].map(|token| token.logprobs.clone().unwrap());
                for (found, expected) in
                    [(found.logprob, expected.logprob), (found.sampled_logprob, expected.sampled_logprob)]
                {
                    let error = (found - expected).abs();
                    assert!(error <= LOGPROB * (1.0 + expected.abs()), "{what}: {found} is not {expected}");
                }
            }
        }
    }
}

#[test]
#[ignore = "takes all of the card's memory: runs alone"]
fn out_of_memory_leaves_the_engine_usable() {
    let Some(device) = gpu() else { return };
    let model = Arc::new(load(DType::F32, &device));
    let request = |tokens: usize| {
        let mut request = Request::new((0..tokens).map(|at| (at % 2560) as u32).collect::<Vec<u32>>());
        request.max_tokens = Some(3);
        request
    };
    let mut engine = Engine::new(LocalModel::new(model).unwrap(), EngineOptions::default()).unwrap();
    let expected = engine.generate(request(100), |_| ()).unwrap();
    // All of the card's memory but a little.
    let mut held = Vec::new();
    let mut bytes = 1usize << 36;
    while bytes > 1 << 20 {
        match Tensor::zeros(bytes, DType::U8, &device) {
            Ok(tensor) => held.push(tensor),
            Err(_) => bytes /= 2,
        }
    }
    // Prompts that need a larger cache than there is memory for.
    let ids: Vec<_> = (0..20).map(|_| engine.add(request(1500)).unwrap()).collect();
    let error = loop {
        match engine.step() {
            Ok(_) if engine.is_idle() => panic!("the memory never ended"),
            Ok(_) => continue,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, GenerationError::OutOfMemory(_)), "{error}");
    ids.into_iter().for_each(|id| assert!(engine.cancel(id)));
    drop(held);
    while !engine.is_idle() {
        engine.step().unwrap();
    }
    let again = engine.generate(request(100), |_| ()).unwrap();
    let ids = |completion: &Completion| completion.tokens.iter().map(|token| token.id).collect::<Vec<_>>();
    assert_eq!(ids(&again), ids(&expected));
}
