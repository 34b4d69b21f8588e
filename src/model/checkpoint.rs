//! Activation checkpointing, and the backward pass of deep graphs.

use std::sync::{Arc, Mutex, PoisonError};

use candle::backprop::GradStore;
use candle::{DType, Result, Shape, Tensor, Var};
use candle_core as candle;

use crate::ops::deferred::with_gradient;

/// Bytes of stack for [`backward`]: address space, of which only what is used becomes memory.
const STACK: usize = 1 << 28;

/// Where the gradient of a [`checkpoint`] ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// At the variables.
    Variables,
    /// At the variables, and it goes on through the input.
    Input,
}

/// Returns `outputs`, which `run` computed from `x`, without the graph of that computation: the backward pass runs `run`
/// again, and gives the gradients of `variables`, those that `run` uses, and of `x` if it is within `reach`.
pub(super) fn checkpoint<F>(
    x: &Tensor,
    reach: Reach,
    variables: Vec<Tensor>,
    outputs: &[Tensor],
    run: F,
) -> Result<Vec<Tensor>>
where
    F: Fn(&Tensor) -> Result<Vec<Tensor>> + Send + Sync + 'static,
{
    // candle's operations take three arguments, and a layer has more variables: so each of them goes into an anchor, whose
    // gradient is what the backward pass of the layer left for it. It comes after that of the layer, which depends on it.
    let shares: Arc<Mutex<Vec<Option<Tensor>>>> = Arc::new(Mutex::new(vec![None; variables.len()]));
    let mut anchors = Vec::with_capacity(variables.len());
    for (i, variable) in variables.iter().enumerate() {
        let shares = shares.clone();
        let anchor = Tensor::zeros(1, DType::F32, variable.device())?;
        anchors.push(with_gradient(&anchor, &[variable], move |_, _| {
            match shares.lock().unwrap_or_else(PoisonError::into_inner)[i].take() {
                Some(share) => Ok(vec![share]),
                None => candle::bail!("the backward pass of a layer left no gradient"),
            }
        })?);
    }
    let anchor = if anchors.is_empty() { None } else { Some(Tensor::cat(&anchors, 0)?) };
    let through = if reach == Reach::Input { Some(x) } else { None };
    let arguments: Vec<&Tensor> = through.into_iter().chain(&anchor).collect();
    if arguments.is_empty() {
        return Ok(outputs.iter().map(Tensor::detach).collect());
    }
    let (input, anchored) = (x.detach(), anchor.as_ref().map(Tensor::detach));
    let parts: Vec<_> = outputs.iter().map(|output| (output.shape().clone(), output.dtype())).collect();
    let (kept, packed) = (parts.clone(), pack(outputs)?);
    let packed = with_gradient(&packed, &arguments, move |_, grad| {
        let input = Var::from_tensor(&input)?;
        // The gradient of this sum for each output is its part of `grad`.
        let mut sum = Tensor::zeros((), DType::F32, grad.device())?;
        for (output, grad) in run(input.as_tensor())?.iter().zip(unpack(grad, &kept)?) {
            sum = (sum + (output * grad)?.sum_all()?.to_dtype(DType::F32)?)?;
        }
        let mut grads = sum.backward()?;
        let mut take = |x: &Tensor| grads.remove(x).map_or_else(|| x.zeros_like(), Ok);
        let mut shares = shares.lock().unwrap_or_else(PoisonError::into_inner);
        for (share, variable) in shares.iter_mut().zip(&variables) {
            *share = Some(take(variable)?);
        }
        let mut all = Vec::with_capacity(2);
        if reach == Reach::Input {
            all.push(take(input.as_tensor())?);
        }
        if let Some(anchored) = &anchored {
            all.push(anchored.zeros_like()?);
        }
        Ok(all)
    })?;
    unpack(&packed, &parts)
}

/// One tensor of all: the only one as it is, or several one after the other in f32.
fn pack(outputs: &[Tensor]) -> Result<Tensor> {
    if let [output] = outputs {
        return Ok(output.clone());
    }
    let flat = outputs.iter().map(|output| output.detach().flatten_all()?.to_dtype(DType::F32));
    Tensor::cat(&flat.collect::<Result<Vec<_>>>()?, 0)
}

/// The parts of what [`pack`] made of tensors of these shapes and dtypes.
fn unpack(packed: &Tensor, parts: &[(Shape, DType)]) -> Result<Vec<Tensor>> {
    if parts.len() == 1 {
        return Ok(vec![packed.clone()]);
    }
    let mut start = 0;
    let mut all = Vec::with_capacity(parts.len());
    for (shape, dtype) in parts {
        all.push(packed.narrow(0, start, shape.elem_count())?.reshape(shape)?.to_dtype(*dtype)?);
        start += shape.elem_count();
    }
    Ok(all)
}

/// `loss.backward()` on a thread with a stack for a million operations in a row, however small the caller's is.
///
/// candle walks the graph by recursion, and frees it by recursion as well: a chain of some ten thousand operations overflows
/// the stack of a spawned thread and ends the process. So the loss is taken, and its graph freed here, unless the caller
/// holds a tensor that still needs it, such as the hidden states that the loss was computed from.
///
/// # Errors
/// Those of candle; if no thread can be started.
pub fn backward(loss: Tensor) -> Result<GradStore> {
    // A thread has a stream of its own on a GPU: each must see what the other did before.
    let device = loss.device().clone();
    device.synchronize()?;
    std::thread::scope(|scope| {
        let run = move || {
            let grads = loss.backward()?;
            drop(loss);
            device.synchronize()?;
            Ok(grads)
        };
        let thread = std::thread::Builder::new().name("backward".to_string()).stack_size(STACK);
        match thread.spawn_scoped(scope, run).map_err(candle::Error::wrap)?.join() {
            Ok(grads) => grads,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
