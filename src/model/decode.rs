//! Steps of decoding whose inputs keep their places in the device's memory, so that they can be recorded and replayed.

use std::borrow::Cow;

use candle::{Result, Tensor};
use candle_core as candle;

use super::finite::FiniteCheck;
use super::keys::KeySource;
use super::layer::{Given, Layer, LayerOutput};
use super::rope::RopeTables;
use super::step::Step;
use super::{Cache, Model, in_layer, residual_stream};
use crate::ops::layout::BatchLayout;

/// The inputs of a step of decoding, on the model's device.
#[derive(Debug)]
pub(crate) struct FixedStep {
    /// How the kernels are launched: spans of so many rows and so long contexts. Where rows really sit and where their keys
    /// lie is what the device holds for this layout.
    pub(crate) layout: BatchLayout,
    /// `[T]` u32.
    pub(crate) ids: Tensor,
    /// The slot of each row, `[T]` u32; a row whose slot lies outside the cache leaves no key.
    pub(crate) slots: Tensor,
    /// `[T, qk_rope_head_dim / 2]` f32 each.
    pub(crate) cos: Tensor,
    pub(crate) sin: Tensor,
}

impl Model {
    /// Whether all rows of a step of decoding are computed alike, wherever they sit.
    pub(crate) fn decodes_alike(&self) -> bool {
        self.form_rule.decodes_alike()
    }

    /// cos and sin of rows at these positions, `[T, qk_rope_head_dim / 2]` each, row by row.
    pub(crate) fn rope_values(&self, positions: &[u32]) -> (Vec<f32>, Vec<f32>) {
        self.rope.values(positions)
    }

    /// [`Model::forward_batch`] without waiting for the device: the caller finishes the check.
    pub(crate) fn forward_unchecked(
        &self,
        ids: &[u32],
        layout: &BatchLayout,
        cache: &Cache,
    ) -> Result<(Tensor, FiniteCheck)> {
        let ids = self.ids(ids, layout)?;
        let step = self.cached_step(layout, cache)?;
        let mut finite = FiniteCheck::default();
        match self.run_cached(&ids, &step, cache, &mut finite) {
            Ok(hidden) => Ok((hidden, finite)),
            Err(error) => {
                finite.finish()?;
                Err(error)
            }
        }
    }

    /// [`Model::forward_batch`] of a fixed step; `finite` is the caller's to finish.
    pub(crate) fn forward_fixed(&self, inputs: &FixedStep, cache: &Cache, finite: &mut FiniteCheck) -> Result<Tensor> {
        self.run_cached(&inputs.ids, &self.fixed_step(inputs)?, cache, finite)
    }

    fn run_cached(&self, ids: &Tensor, step: &Step, cache: &Cache, finite: &mut FiniteCheck) -> Result<Tensor> {
        let run = |i, layer: &Layer, x: &Tensor, shared| {
            layer.forward(x, step, KeySource::Cached(cache.layer(i)?), shared, &Given::default())
        };
        self.run_layers(ids, self.dtype, step, None, run, finite)
    }

    /// [`Model::forward_mtp`] of a fixed step; `finite` is the caller's to finish.
    pub(crate) fn forward_mtp_fixed(
        &self,
        inputs: &FixedStep,
        hidden: &Tensor,
        cache: &Cache,
        finite: &mut FiniteCheck,
    ) -> Result<Tensor> {
        let (step, layer) = (self.fixed_step(inputs)?, self.layers.len());
        let source = KeySource::Cached(cache.layer(layer)?);
        let run = |layer: &Layer, x: &Tensor| layer.forward(x, &step, source, None, &Given::default());
        let forward = self.mtp()?.forward(&inputs.ids, hidden, run);
        let (hidden, LayerOutput { hidden: stream, .. }) = forward.map_err(|error| in_layer(layer, error))?;
        finite.see(|| residual_stream(layer), &stream)?;
        Ok(hidden)
    }

    fn fixed_step<'a>(&self, inputs: &'a FixedStep) -> Result<Step<'a>> {
        let rope = RopeTables { cos: inputs.cos.clone(), sin: inputs.sin.clone() };
        Step::from_parts(Cow::Borrowed(&inputs.layout), rope, inputs.slots.clone(), &self.form_rule, &self.device)
    }
}
