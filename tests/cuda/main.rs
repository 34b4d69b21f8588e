//! The ops and the model on a GPU against the CPU. Without a GPU every test says that it is skipped.

#[path = "../support/common/mod.rs"]
mod common;
#[path = "../support/common_attn/mod.rs"]
mod common_attn;
#[path = "../support/generation_support/mod.rs"]
mod generation_support;
#[path = "../support/golden/mod.rs"]
mod golden_support;

mod attention;
mod elementwise;
mod engine;
mod fp8;
mod gradients;
mod linear;
mod model;
mod pieces;
mod selection;

use std::io::Write;

use candle_core::{DType, Device, Result, Tensor};

/// The first GPU; `None`, and a word about it past the capture of the test's output, where there is none.
fn gpu() -> Option<Device> {
    match Device::new_cuda(0) {
        Ok(device) => Some(device),
        Err(error) => {
            let test = std::thread::current().name().unwrap_or("a test").to_string();
            writeln!(std::io::stderr(), "\n{test}: SKIPPED, no GPU: {error}").unwrap();
            None
        }
    }
}

/// Runs `op` on `arguments` on CPU and on a GPU, and returns both results, on CPU.
fn both(device: &Device, arguments: &[&Tensor], op: impl Fn(&[Tensor]) -> Result<Vec<Tensor>>) -> [Vec<Tensor>; 2] {
    let on = |device: &Device| -> Result<Vec<Tensor>> {
        let arguments: Vec<_> = arguments.iter().map(|tensor| tensor.to_device(device)).collect::<Result<_>>()?;
        op(&arguments)?.iter().map(|tensor| tensor.to_device(&Device::Cpu)).collect()
    };
    [on(&Device::Cpu).unwrap(), on(device).unwrap()]
}

/// [`both`], and that every element of the GPU's results is within `tolerance · (1 + |expected|)`, of the same dtype.
fn check(
    what: &str,
    device: &Device,
    tolerance: f64,
    arguments: &[&Tensor],
    op: impl Fn(&[Tensor]) -> Result<Vec<Tensor>>,
) {
    let [expected, found] = both(device, arguments, op);
    for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
        let what = format!("{what}: result {i} of {:?}", shapes(arguments));
        assert_eq!((found.dims(), found.dtype()), (expected.dims(), expected.dtype()), "{what}");
        common_attn::assert_close(&what, &common::to_f64(found), &common::to_f64(expected), tolerance);
    }
}

fn shapes(tensors: &[&Tensor]) -> Vec<(Vec<usize>, DType)> {
    tensors.iter().map(|tensor| (tensor.dims().to_vec(), tensor.dtype())).collect()
}

/// The same elements as views of other tensors: behind an offset with a row stride, and with the dimensions in another
/// order in memory.
fn views(tensor: &Tensor) -> Vec<Tensor> {
    let mut views = vec![tensor.clone(), common::strided(tensor)];
    if tensor.rank() > 1 {
        views.push(tensor.transpose(0, 1).unwrap().contiguous().unwrap().transpose(0, 1).unwrap());
    }
    views
}
