//! The inputs of the loss, read from JSON and checked field by field.
//!
//! - `config.mode`: `dense` or `sparse`
//! - `inputs.T`, `index_heads`, `index_dim`, `main_heads`: sizes
//! - `inputs.seq_id` `[T]`: the sequence of each row, any integers; a query sees the keys of its own sequence up to its own
//!   row
//! - `inputs.q` `[T][index_heads][index_dim]`, `k` `[T][index_dim]`, `w` `[T][index_heads]`: index queries, keys, weights
//!   of heads with every scale
//! - `inputs.attn_probs` `[main_heads][T][T]`: the attention's probabilities, not negative
//! - `inputs.selected`: in sparse mode, the keys that each query attends to, `[T][..]`, rows below T; what it does not see
//!   does not count. Not looked at in dense mode

use anyhow::{Context, Result, bail, ensure};
use deepseek_v32::error::one_line;
use serde_json::Value;

/// The most elements that a field may have.
const MAX_ELEMENTS: usize = 1 << 26;

/// The inputs, flat in row-major order.
pub struct Fixture {
    pub tokens: usize,
    pub index_heads: usize,
    pub index_dim: usize,
    pub q: Vec<f64>,
    pub k: Vec<f64>,
    pub w: Vec<f64>,
    /// `attn_probs` summed over the heads, `[T, T]`.
    pub mass: Vec<f64>,
    seq_id: Vec<i64>,
    /// In sparse mode, the keys of each query, without those that it does not see.
    selected: Option<Vec<Vec<usize>>>,
}

impl Fixture {
    /// # Errors
    /// Names the field that is missing or is not as the module's documentation says.
    pub fn read(text: &str) -> Result<Self> {
        let root: Value = match serde_json::from_str(text) {
            Ok(root) => root,
            Err(error) => bail!("not JSON: {}", one_line(&error.to_string())),
        };
        let mode = field(field(&root, "config", "")?, "mode", "config.")?;
        let sparse = match mode.as_str() {
            Some("dense") => false,
            Some("sparse") => true,
            _ => bail!("config.mode is {}, expected \"dense\" or \"sparse\"", shown(mode)),
        };
        let inputs = field(&root, "inputs", "")?;
        let size = |name: &str, least: usize| -> Result<usize> {
            let value = field(inputs, name, "inputs.")?;
            match value.as_u64().and_then(|size| usize::try_from(size).ok()) {
                Some(size) if (least..=MAX_ELEMENTS).contains(&size) => Ok(size),
                _ => bail!("inputs.{name} is {}, expected a number in {least}..={MAX_ELEMENTS}", shown(value)),
            }
        };
        let (tokens, index_heads, index_dim, main_heads) =
            (size("T", 1)?, size("index_heads", 1)?, size("index_dim", 1)?, size("main_heads", 1)?);
        let numbers = |name: &str, shape: &[usize]| -> Result<Vec<f64>> {
            let elements = shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size));
            ensure!(elements.is_some_and(|count| count <= MAX_ELEMENTS), "inputs.{name}: {shape:?} is too large");
            let mut values = Vec::new();
            read_numbers(field(inputs, name, "inputs.")?, &format!("inputs.{name}"), shape, &mut values)?;
            Ok(values)
        };
        let q = numbers("q", &[tokens, index_heads, index_dim])?;
        let k = numbers("k", &[tokens, index_dim])?;
        let w = numbers("w", &[tokens, index_heads])?;
        let probs = numbers("attn_probs", &[main_heads, tokens, tokens])?;
        if let Some(at) = probs.iter().position(|&p| p < 0.0) {
            let (head, row, column) = (at / (tokens * tokens), at / tokens % tokens, at % tokens);
            bail!("inputs.attn_probs[{head}][{row}][{column}] is {}, expected no negative number", probs[at]);
        }
        let mut mass = vec![0.0; tokens * tokens];
        for head in probs.chunks(mass.len().max(1)) {
            mass.iter_mut().zip(head).for_each(|(sum, p)| *sum += p);
        }
        let seq_id = list(field(inputs, "seq_id", "inputs.")?, "inputs.seq_id", tokens)?
            .iter()
            .enumerate()
            .map(|(row, id)| match id.as_i64() {
                Some(id) => Ok(id),
                None => bail!("inputs.seq_id[{row}] is {}, expected an integer", shown(id)),
            })
            .collect::<Result<Vec<_>>>()?;
        let mut fixture = Self { tokens, index_heads, index_dim, q, k, w, mass, seq_id, selected: None };
        if sparse {
            let rows = list(field(inputs, "selected", "inputs.")?, "inputs.selected", tokens)?;
            let rows = rows.iter().enumerate().map(|(row, keys)| fixture.keys(row, keys));
            fixture.selected = Some(rows.collect::<Result<_>>()?);
        }
        for row in 0..tokens {
            let mass = |key: usize| fixture.mass[row * tokens + key];
            let (keys, sum) = match &fixture.selected {
                Some(selected) => (selected[row].len(), selected[row].iter().map(|&key| mass(key)).sum::<f64>()),
                None => {
                    let seen = (0..=row).filter(|&key| fixture.sees(row, key));
                    seen.fold((0, 0.0), |(keys, sum), key| (keys + 1, sum + mass(key)))
                }
            };
            ensure!(
                keys == 0 || sum > 0.0 && sum.is_finite(),
                "inputs.attn_probs: the probabilities of row {row} on its keys have the sum {sum}, expected more than 0"
            );
        }
        Ok(fixture)
    }

    /// The selected keys of a row that it sees.
    fn keys(&self, row: usize, keys: &Value) -> Result<Vec<usize>> {
        let Value::Array(keys) = keys else {
            bail!("inputs.selected[{row}] is {}, expected a list", shown(keys));
        };
        let mut found = Vec::with_capacity(keys.len());
        let mut taken = vec![false; self.tokens];
        for (at, key) in keys.iter().enumerate() {
            let key = match key.as_u64() {
                Some(key) if key < self.tokens as u64 => key as usize,
                _ => bail!("inputs.selected[{row}][{at}] is {}, expected a row below {}", shown(key), self.tokens),
            };
            ensure!(!std::mem::replace(&mut taken[key], true), "inputs.selected[{row}] has the key {key} twice");
            found.push(key);
        }
        found.retain(|&key| self.sees(row, key));
        Ok(found)
    }

    fn sees(&self, row: usize, key: usize) -> bool {
        key <= row && self.seq_id[key] == self.seq_id[row]
    }

    /// The rows, one sequence after the other.
    pub fn order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.tokens).collect();
        order.sort_by_key(|&row| self.seq_id[row]);
        order
    }

    /// The lengths of the sequences in that order.
    pub fn lengths(&self) -> Vec<usize> {
        let order = self.order();
        order.chunk_by(|&a, &b| self.seq_id[a] == self.seq_id[b]).map(<[usize]>::len).collect()
    }

    /// In sparse mode, the slots of the selected keys, by rows in `order`.
    pub fn chosen(&self, order: &[usize], slot_of_row: &[usize]) -> Option<Vec<Vec<i64>>> {
        let selected = self.selected.as_ref()?;
        let slots = |&row: &usize| selected[row].iter().map(|&key| slot_of_row[key] as i64).collect();
        Some(order.iter().map(slots).collect())
    }
}

fn field<'a>(object: &'a Value, name: &str, path: &str) -> Result<&'a Value> {
    object.get(name).filter(|value| !value.is_null()).with_context(|| format!("{path}{name} is missing"))
}

fn list<'a>(value: &'a Value, path: &str, length: usize) -> Result<&'a [Value]> {
    match value {
        Value::Array(list) if list.len() == length => Ok(list),
        Value::Array(list) => bail!("{path} has {} elements, expected {length}", list.len()),
        other => bail!("{path} is {}, expected a list of {length}", shown(other)),
    }
}

/// Reads nested lists of the shape `shape` of finite numbers.
fn read_numbers(value: &Value, path: &str, shape: &[usize], values: &mut Vec<f64>) -> Result<()> {
    let Some((&length, inner)) = shape.split_first() else {
        match value.as_f64() {
            Some(number) if number.is_finite() => values.push(number),
            _ => bail!("{path} is {}, expected a finite number", shown(value)),
        }
        return Ok(());
    };
    for (at, value) in list(value, path, length)?.iter().enumerate() {
        read_numbers(value, &format!("{path}[{at}]"), inner, values)?;
    }
    Ok(())
}

/// A value in an error.
fn shown(value: &Value) -> String {
    match value {
        Value::Array(_) => "a list".to_string(),
        Value::Object(_) => "an object".to_string(),
        other => one_line(&other.to_string()),
    }
}
