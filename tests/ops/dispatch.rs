//! Which backend an op takes, and that the choice sees every argument.

use std::collections::BTreeSet;

use candle_core::{DType, Tensor, Var};
use deepseek_v32::ops::fp8::block_quant;
use deepseek_v32::ops::linear::LinearWeight;
use deepseek_v32::ops::{Backend, absorb_query, absorb_value, backend_report, backends, linear, with_backend};

use crate::common::tensor;

#[test]
fn every_op_is_reported() {
    let folders = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src/ops")).unwrap();
    let folders = folders.map(|entry| entry.unwrap().path()).filter(|path| path.join("mod.rs").exists());
    let source = |folder: std::path::PathBuf| std::fs::read_to_string(folder.join("mod.rs")).unwrap();
    let dispatched: usize =
        folders.map(|folder| source(folder).split_whitespace().collect::<String>().matches(":Op=Op{").count()).sum();
    let names: BTreeSet<_> = backends().iter().map(|op| op.op).collect();
    assert_eq!(names.len(), dispatched, "{names:?}");
    for op in backends() {
        assert_eq!(op.inference, Backend::Cpu, "{}", op.op);
    }
    let training = |name: &str| backends().iter().find(|op| op.op == name).unwrap().training;
    for name in ["topk", "indexer_topk", "sparse_mla", "dense_mla", "mha", "sparse_mha", "mqa_logits", "moe"] {
        assert_eq!(training(name), Backend::Cpu, "{name}");
    }
    assert_eq!(training("linear"), Backend::Reference);
}

#[test]
fn the_report_says_what_runs() {
    let report = backend_report();
    let (inference, tracked) = report.split_once("; with gradients: ").unwrap();
    assert!(inference.starts_with("cpu (") && inference.ends_with("threads): all ops"), "{report}");
    // The larger group comes last, without names; of two that are alike, the reference.
    let training = |name: &str| backends().iter().find(|op| op.op == name).map(|op| op.training);
    for (op, backend) in [("absorb_query", Backend::Reference), ("sparse_mla", Backend::Cpu), ("moe", Backend::Cpu)] {
        assert_eq!(training(op), Some(backend), "{op}");
    }
    let count = |backend| backends().iter().filter(|op| op.training == backend).count();
    let (cpu, reference) = (count(Backend::Cpu), count(Backend::Reference));
    let named =
        if cpu <= reference { ["cpu (", "reference: all other ops"] } else { ["reference: ", ": all other ops"] };
    assert!(tracked.starts_with(named[0]) && tracked.ends_with(named[1]), "{report}");
    assert_eq!(
        tracked.split_once("; ").unwrap().0.split(", ").count(),
        cpu.min(reference) + usize::from(cpu <= reference)
    );
    let forced = with_backend(Backend::Reference, || {
        assert!(backends().iter().all(|op| op.inference == Backend::Reference));
        backend_report()
    });
    assert_eq!(forced, "reference: all ops");
}

/// A tracked scale, beside a weight and an input that are not tracked, gets its gradient: the sum of the outputs is
/// linear in the scale, so the gradient is the exact difference quotient.
#[test]
fn a_tracked_scale_gets_a_gradient() {
    let (heads, nope, value, latent) = (2, 5, 4, 7);
    let (codes, scale) = block_quant(&tensor(1, &[heads * (nope + value), latent], DType::F32), 128, false).unwrap();
    let scale = Var::from_tensor(&scale).unwrap();
    let weight = LinearWeight { weight: codes.clone(), weight_scale_inv: Some(scale.as_tensor().clone()) };
    let (q, x) = (tensor(2, &[3, heads, nope], DType::F32), tensor(3, &[3, heads, latent], DType::F32));
    let row = tensor(4, &[3, latent], DType::F32);
    let cases: [(&str, Tensor); 3] = [
        ("absorb_query", absorb_query(&q, &weight, value).unwrap()),
        ("absorb_value", absorb_value(&x, &weight, nope).unwrap()),
        ("linear", linear(&row, &codes, Some(scale.as_tensor())).unwrap()),
    ];
    for (name, out) in cases {
        let sum = out.sum_all().unwrap();
        let grads = sum.backward().unwrap();
        let grad = grads.get(&scale).unwrap_or_else(|| panic!("{name}: no gradient"));
        let grad = grad.flatten_all().unwrap().to_vec1::<f32>().unwrap()[0];
        let scale = scale.flatten_all().unwrap().to_vec1::<f32>().unwrap()[0];
        let sum = sum.to_scalar::<f32>().unwrap();
        assert!((grad * scale - sum).abs() <= 1e-4 * (1.0 + sum.abs()), "{name}: {grad} * {scale} is not {sum}");
    }
}
