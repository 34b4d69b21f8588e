//! The weights of a layer: its variables, and what it computes with in another dtype.

use candle::{DType, Result, Tensor};
use candle_core as candle;

use crate::ops::linear::{LinearWeight, StackedWeight};

/// What a weight is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// A projection of activations, which may be rounded as these are.
    Projection,
    /// What stays as it is: norms, the router, the indexer's head weights, FP8 codes and their scales.
    Exact,
    /// What has a part in a choice alone, and so no gradient.
    Choice,
}

/// A function of a weight.
pub(super) type Function<'a> = dyn FnMut(Role, &Tensor) -> Result<Tensor> + 'a;

/// A part of the model with weights.
pub(super) trait Weights: Sized {
    /// The same part with `f` of each of its weights.
    fn with_weights(&self, f: &mut Function) -> Result<Self>;

    /// The variables among the weights, but for those without a gradient.
    ///
    /// Fails if a weight is computed from variables: a gradient would not get past it.
    fn variables(&self) -> Result<Vec<Tensor>> {
        let mut variables = Vec::new();
        self.with_weights(&mut |role, weight| {
            let learns = role != Role::Choice;
            if learns && weight.is_variable() {
                variables.push(weight.clone());
            } else if learns && weight.track_op() {
                candle::bail!("a weight {:?} is computed from variables, but must be one", weight.dims())
            }
            Ok(weight.clone())
        })?;
        Ok(variables)
    }

    /// The same part with its projections rounded to `dtype`. Their gradients reach the weights as these are.
    fn rounded(&self, dtype: DType) -> Result<Self> {
        self.with_weights(&mut |role, weight| match role {
            Role::Projection => weight.to_dtype(dtype),
            Role::Exact | Role::Choice => Ok(weight.clone()),
        })
    }
}

impl Weights for LinearWeight {
    fn with_weights(&self, f: &mut Function) -> Result<Self> {
        let (weight, weight_scale_inv) = map(&self.weight, &self.weight_scale_inv, f)?;
        Ok(Self { weight, weight_scale_inv })
    }
}

impl Weights for StackedWeight {
    fn with_weights(&self, f: &mut Function) -> Result<Self> {
        let (weight, weight_scale_inv) = map(&self.weight, &self.weight_scale_inv, f)?;
        Ok(Self { weight, weight_scale_inv })
    }
}

fn map(weight: &Tensor, scale: &Option<Tensor>, f: &mut Function) -> Result<(Tensor, Option<Tensor>)> {
    match scale {
        Some(scale) => Ok((f(Role::Exact, weight)?, Some(f(Role::Exact, scale)?))),
        None => Ok((f(Role::Projection, weight)?, None)),
    }
}

/// `weight` for a projection that is never rounded.
pub(super) fn map_exact(weight: &LinearWeight, f: &mut Function) -> Result<LinearWeight> {
    weight.with_weights(&mut |_, weight| f(Role::Exact, weight))
}

impl<T: Weights> Weights for Option<T> {
    fn with_weights(&self, f: &mut Function) -> Result<Self> {
        self.as_ref().map(|part| part.with_weights(f)).transpose()
    }
}
