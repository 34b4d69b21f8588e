//! Optimizers: AdamW, and Muon for matrices. Both keep f32 states whatever dtype the parameters have.

use std::collections::{BTreeMap, HashMap};

use candle_core::{DType, Tensor, Var};

use super::accumulate::{Gradients, state_dtype};
use super::error::{Result, TrainingError};

mod adamw;
mod muon;

pub use adamw::{AdamW, AdamWOptions};
pub use muon::{Muon, MuonOptions};

/// What the training loop asks of an optimizer.
pub trait Optimizer {
    /// Changes the parameters by one step. Those without a gradient, and their states, stay as they are.
    ///
    /// # Errors
    /// If the learning rate is not finite or a gradient does not have its parameter's shape.
    fn step(&mut self, gradients: &Gradients, learning_rate: f64) -> Result<()>;

    /// The state, by names that begin with the parameter's: to be saved as safetensors beside the checkpoint.
    ///
    /// # Errors
    /// If a tensor operation fails.
    fn state(&self) -> Result<BTreeMap<String, Tensor>>;

    /// Takes over a state that [`Self::state`] gave for the same parameters. The next step then has the bits that it would
    /// have had.
    ///
    /// # Errors
    /// [`TrainingError::Missing`] if a part of a parameter's state is not there; if it has another shape or dtype.
    fn load_state(&mut self, state: &HashMap<String, Tensor>) -> Result<()>;
}

/// A parameter with its value in the state's dtype, where the parameter's own is smaller.
#[derive(Debug)]
struct Weight {
    variable: Var,
    master: Option<Tensor>,
}

impl Weight {
    fn new(variable: &Var) -> Result<Self> {
        let dtype = state_dtype(variable.dtype());
        let master = match variable.dtype() == dtype {
            true => None,
            false => Some(variable.as_tensor().detach().to_dtype(dtype)?),
        };
        Ok(Self { variable: variable.clone(), master })
    }

    fn dtype(&self) -> DType {
        state_dtype(self.variable.dtype())
    }

    /// The value, f32 or f64, without tracking.
    fn value(&self) -> Tensor {
        self.master.clone().unwrap_or_else(|| self.variable.as_tensor().detach())
    }

    fn set(&mut self, value: Tensor) -> Result<()> {
        self.variable.set(&value.to_dtype(self.variable.dtype())?)?;
        if let Some(master) = &mut self.master {
            *master = value;
        }
        Ok(())
    }

    /// `value * (1 - learning_rate * decay) - step`.
    fn descend(&mut self, step: &Tensor, learning_rate: f64, decay: f64) -> Result<()> {
        let value = (self.value() * (1.0 - learning_rate * decay))?;
        self.set((value - step)?)
    }

    /// The gradient, if there is one, checked.
    fn gradient<'a>(&self, name: &str, gradients: &'a Gradients) -> Result<Option<&'a Tensor>> {
        let Some(gradient) = gradients.get(name) else { return Ok(None) };
        if gradient.dims() != self.variable.dims() {
            let what = format!("the gradient of {name}");
            let (expected, got) = (format!("{:?}", self.variable.dims()), format!("{:?}", gradient.dims()));
            return Err(TrainingError::Value { what, expected, got });
        }
        Ok(Some(gradient))
    }

    fn save(&self, name: &str, state: &mut BTreeMap<String, Tensor>) {
        if let Some(master) = &self.master {
            state.insert(format!("{name}.master"), master.clone());
        }
    }

    fn load(&mut self, name: &str, state: &HashMap<String, Tensor>) -> Result<()> {
        if self.master.is_some() {
            let key = format!("{name}.master");
            if state.contains_key(&key) {
                let value = taken(state, &key, self.variable.dims(), self.dtype())?;
                self.master = Some(value);
            }
        }
        Ok(())
    }
}

fn check_learning_rate(learning_rate: f64) -> Result<()> {
    match learning_rate.is_finite() {
        true => Ok(()),
        false => Err(TrainingError::value("learning_rate", "finite", learning_rate)),
    }
}

/// A tensor of a state, checked and on the device of the others.
fn taken(state: &HashMap<String, Tensor>, name: &str, dims: &[usize], dtype: DType) -> Result<Tensor> {
    let Some(tensor) = state.get(name) else {
        return Err(TrainingError::Missing { name: name.to_string() });
    };
    if tensor.dims() != dims || tensor.dtype() != dtype {
        let show = |dims: &[usize], dtype: DType| format!("{dims:?} {}", dtype.as_str());
        return Err(TrainingError::Value {
            what: format!("the state's {name}"),
            expected: show(dims, dtype),
            got: show(tensor.dims(), tensor.dtype()),
        });
    }
    // A copy of its own: the caller may change the tensor in place.
    Ok(tensor.detach().copy()?)
}
