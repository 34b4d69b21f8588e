//! Gradients of a step, summed over its batches and ranks.

use std::collections::BTreeMap;

use candle_core::backprop::GradStore;
use candle_core::{DType, Tensor};

use super::error::{Result, TrainingError};
use super::parameters::Parameters;
use crate::distributed::Communicator;

/// Gradients by the name of their parameter, f32 (f64 for parameters that are f64).
///
/// The losses of a step's batches have the denominators of the whole step
/// ([`Denominators`](super::Denominators)), so its gradient is the plain sum, and does not depend on how the step was
/// divided into batches and ranks, up to rounding.
#[derive(Debug, Clone, Default)]
pub struct Gradients {
    tensors: BTreeMap<String, Tensor>,
}

impl Gradients {
    /// Returns the gradients of `parameters`; those that the loss does not depend on have none.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn of(grads: &GradStore, parameters: &Parameters) -> Result<Self> {
        let mut tensors = BTreeMap::new();
        for (name, variable) in parameters.iter() {
            if let Some(grad) = grads.get(variable.as_tensor()) {
                tensors.insert(name.to_string(), grad.detach().to_dtype(state_dtype(variable.dtype()))?);
            }
        }
        Ok(Self { tensors })
    }

    /// The gradient of a parameter, of its shape.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    /// The gradients in order of name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// Adds those of another batch.
    ///
    /// # Errors
    /// If a parameter's gradients differ in shape or dtype.
    pub fn add(&mut self, other: Self) -> Result<()> {
        for (name, tensor) in other.tensors {
            let sum = match self.tensors.get(&name) {
                Some(own) => (own + &tensor)?,
                None => tensor,
            };
            self.tensors.insert(name, sum);
        }
        Ok(())
    }

    /// Adds those of all ranks: every rank then has the same. A parameter that has no gradient on any rank has none.
    ///
    /// # Errors
    /// If the ranks cannot tell each other, or their parameters differ.
    pub fn all_reduce(&mut self, communicator: &dyn Communicator, parameters: &Parameters) -> Result<()> {
        let has: Vec<f64> = parameters.iter().map(|(name, _)| f64::from(u8::from(self.get(name).is_some()))).collect();
        let ranks = communicator.all_reduce_numbers(&has)?;
        for ((name, variable), ranks) in parameters.iter().zip(ranks) {
            if ranks == 0.0 {
                continue;
            }
            let own = match self.tensors.get(name) {
                Some(own) => own.clone(),
                None => variable.as_tensor().detach().zeros_like()?.to_dtype(state_dtype(variable.dtype()))?,
            };
            self.tensors.insert(name.to_string(), communicator.all_reduce_sum(&own)?);
        }
        Ok(())
    }

    /// The Euclidean norm of all gradients as one vector.
    ///
    /// # Errors
    /// [`TrainingError::NotFinite`] names the first parameter whose gradient has a NaN or an infinity, or is too large to
    /// be squared.
    pub fn norm(&self) -> Result<f64> {
        let squares = |tensor: &Tensor| tensor.sqr()?.sum_all()?.to_dtype(DType::F64);
        let squares = self.tensors.values().map(squares).collect::<candle_core::Result<Vec<_>>>()?;
        if squares.is_empty() {
            return Ok(0.0);
        }
        let squares = Tensor::stack(&squares, 0)?.to_vec1::<f64>()?;
        if let Some((name, _)) = self.tensors.keys().zip(&squares).find(|(_, square)| !square.is_finite()) {
            return Err(TrainingError::NotFinite { name: format!("the gradient of {name}") });
        }
        Ok(squares.iter().sum::<f64>().sqrt())
    }

    /// Multiplies all gradients with `max_norm / norm` if [`Self::norm`] is larger than `max_norm`. Returns the norm that
    /// they had.
    ///
    /// # Errors
    /// As [`Self::norm`]; if `max_norm` is not positive.
    pub fn clip(&mut self, max_norm: f64) -> Result<f64> {
        if max_norm.is_nan() || max_norm <= 0.0 {
            return Err(TrainingError::value("max_norm", "more than 0", max_norm));
        }
        let norm = self.norm()?;
        if norm > max_norm {
            for tensor in self.tensors.values_mut() {
                *tensor = (&*tensor * (max_norm / norm))?;
            }
        }
        Ok(norm)
    }
}

/// What gradients and an optimizer's state are kept in for a parameter of this dtype.
pub(super) fn state_dtype(parameter: DType) -> DType {
    if parameter == DType::F64 { DType::F64 } else { DType::F32 }
}
