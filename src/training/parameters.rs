//! The variables that a run trains, by name.

use std::collections::BTreeMap;

use candle_core::{DType, Var};
use candle_nn::VarMap;

use super::error::Result;

/// Variables by their checkpoint names, in order of name: every pass over them has the same order.
#[derive(Debug, Clone, Default)]
pub struct Parameters {
    variables: BTreeMap<String, Var>,
}

impl Parameters {
    /// Returns the variables of `varmap` whose name `learns`, such as [`Stage::learns`](super::Stage::learns). They are
    /// the map's own: what is set here is set there.
    pub fn of(varmap: &VarMap, learns: impl Fn(&str) -> bool) -> Self {
        let all = varmap.data().lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let learnt = all.iter().filter(|(name, _)| learns(name));
        Self { variables: learnt.map(|(name, variable)| (name.clone(), variable.clone())).collect() }
    }

    /// Those of the variables that `keep` takes.
    pub fn filtered(&self, keep: impl Fn(&str, &Var) -> bool) -> Self {
        let kept = self.variables.iter().filter(|(name, variable)| keep(name, variable));
        Self { variables: kept.map(|(name, variable)| (name.clone(), variable.clone())).collect() }
    }

    /// The variables in order of name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Var)> {
        self.variables.iter().map(|(name, variable)| (name.as_str(), variable))
    }

    /// A variable, if it is there.
    pub fn get(&self, name: &str) -> Option<&Var> {
        self.variables.get(name)
    }

    /// The first variable, in order of name, that has a NaN or an infinity.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn not_finite(&self) -> Result<Option<&str>> {
        for (name, variable) in self.iter() {
            // In f64 no sum of finite f32 numbers overflows.
            let sum = variable.as_tensor().detach().to_dtype(DType::F64)?.sum_all()?.to_scalar::<f64>()?;
            if !sum.is_finite() {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }

    /// How many variables there are.
    pub fn len(&self) -> usize {
        self.variables.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.variables.is_empty()
    }

    /// Elements of all variables.
    pub fn elements(&self) -> usize {
        self.variables.values().map(|variable| variable.elem_count()).sum()
    }
}
