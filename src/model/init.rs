//! Initial values of a model that is to be trained.

use candle::{DType, Device, Error, Result, Shape, Tensor, Var};
use candle_core as candle;
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder, VarMap};

use super::{Model, ModelOptions};
use crate::config::Config;

/// How projections and embeddings start.
pub(super) fn normal(stdev: f64) -> Init {
    Init::Randn { mean: 0.0, stdev }
}

impl Model {
    /// Builds a model to be trained, whose weights are the variables of `varmap`.
    ///
    /// Variables that are there are used as they are; those that are missing are made and added to `varmap`:
    /// projections and embeddings normal with mean 0 and standard deviation `cfg.initializer_range`, norm weights 1,
    /// norm biases and `e_score_correction_bias` 0. The values depend on `seed` and the variable's name alone, and so
    /// neither on the order nor on what is there. The model has an MTP layer if `cfg.num_nextn_predict_layers` is not
    /// 0; it shares the embedding and the head of the main model.
    ///
    /// Variables have the names of a checkpoint's tensors. Those of norms and `e_score_correction_bias` are f32,
    /// all others have `dtype`, as activations and cache do.
    ///
    /// # Errors
    /// If a variable has another shape than `cfg` says, or `device` fails.
    pub fn init(cfg: &Config, varmap: &VarMap, seed: u64, dtype: DType, device: &Device) -> Result<Self> {
        let variables = Variables { varmap: varmap.clone(), seed };
        let vb = VarBuilder::from_backend(Box::new(variables), dtype, device.clone());
        Self::build(cfg, ModelOptions::default(), cfg.num_nextn_predict_layers > 0, vb)
    }
}

/// The variables of a map; those that it lacks are drawn from a seeded generator.
struct Variables {
    varmap: VarMap,
    seed: u64,
}

impl SimpleBackend for Variables {
    fn get(&self, shape: Shape, name: &str, init: Init, dtype: DType, device: &Device) -> Result<Tensor> {
        let mut variables = self.varmap.data().lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(variable) = variables.get(name) {
            if variable.shape() != &shape {
                let (msg, got) = (format!("shape mismatch for {name}"), variable.shape().clone());
                return Err(Error::UnexpectedShape { msg, expected: shape, got }.bt());
            }
            return Ok(variable.as_tensor().clone());
        }
        let variable = match init {
            Init::Const(_) => init.var(shape, dtype, device)?,
            Init::Randn { mean, stdev } => {
                let mut generator = Generator::new(self.seed, name);
                let values = (0..shape.elem_count()).map(|_| (mean + stdev * generator.normal()) as f32).collect();
                Var::from_tensor(&Tensor::from_vec::<_, f32>(values, shape, device)?.to_dtype(dtype)?)?
            }
            _ => candle::bail!("{name}: only constants and normal values can be drawn"),
        };
        let tensor = variable.as_tensor().clone();
        variables.insert(name.to_string(), variable);
        Ok(tensor)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> Result<Tensor> {
        let variables = self.varmap.data().lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        match variables.get(name) {
            Some(variable) => Ok(variable.as_tensor().clone()),
            None => Err(Error::CannotFindTensor { path: name.to_string() }.bt()),
        }
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.varmap.data().lock().unwrap_or_else(|poisoned| poisoned.into_inner()).contains_key(name)
    }
}

/// Normal values from SplitMix64 by the Box-Muller transform. Written out here because this folder depends on candle
/// and serde alone, and candle's generator takes no seed on CPU.
///
/// # Source
/// Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014; the constants are those of its
/// Java implementation.
struct Generator {
    state: u64,
    /// The second value of the last pair.
    spare: Option<f64>,
}

impl Generator {
    fn new(seed: u64, name: &str) -> Self {
        // FNV-1a of the name, so that each tensor has a sequence of its own.
        let hash = name
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
        let mut generator = Self { state: seed, spare: None };
        generator.state = generator.next() ^ hash;
        generator
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in (0, 1].
    fn uniform(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        if let Some(value) = self.spare.take() {
            return value;
        }
        let radius = (-2.0 * self.uniform().ln()).sqrt();
        let (sin, cos) = (std::f64::consts::TAU * self.uniform()).sin_cos();
        self.spare = Some(radius * sin);
        radius * cos
    }
}
