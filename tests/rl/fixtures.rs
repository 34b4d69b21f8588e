//! Recorded losses: `tests/data/rl/`.

use std::path::PathBuf;

use candle_core::{DType, Device, Var};
use deepseek_v32::rl::{self, Evaluation, GrpoConfig, LossCall, Plan, Policy};
use serde_json::{Value, json};

/// Absolute, for every number in f64.
const F64: f64 = 1e-9;
/// Of a row's gradient in f32, relative to the row's greatest and absolute.
const F32_ROW: (f64, f64) = (5e-5, 1e-6);
/// Of a loss in f32, relative and absolute.
const F32_LOSS: (f64, f64) = (1e-5, 1e-6);

fn fixture(name: &str) -> Value {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/rl").join(format!("{name}.json"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn names() -> Vec<String> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/rl");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut names: Vec<String> = files
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

struct Found {
    plan: Plan,
    evaluation: Evaluation,
    loss: f64,
    grad_logits: Vec<Vec<f64>>,
}

fn evaluate(fixture: &Value, dtype: DType) -> Found {
    let LossCall { config, mut batch } = LossCall::from_json(&fixture.to_string(), dtype, &Device::Cpu).unwrap();
    let Policy::Logits(logits) = &batch.policy else { panic!("no logits") };
    let logits = Var::from_tensor(logits).unwrap();
    batch.policy = Policy::Logits(logits.as_tensor().clone());
    let plan = Plan::of(&batch, &config).unwrap();
    let evaluation = rl::evaluate(&batch, &plan, &config).unwrap();
    assert_eq!(evaluation.loss.dtype(), dtype);
    let (loss, gradients) =
        rl::loss(&batch, &config).map(|(loss, _)| (loss.clone(), loss.backward().unwrap())).unwrap();
    let gradient = gradients.get(&logits).unwrap();
    assert_eq!(gradient.dtype(), dtype);
    Found {
        plan,
        loss: loss.to_dtype(DType::F64).unwrap().to_scalar().unwrap(),
        grad_logits: gradient.to_dtype(DType::F64).unwrap().to_vec2().unwrap(),
        evaluation,
    }
}

/// Numbers of a list, null as `None`; 1 and 0 stand for true and false.
fn numbers(value: &Value) -> Vec<Option<f64>> {
    value.as_array().unwrap().iter().map(Value::as_f64).collect()
}

fn check(name: &str, what: &str, found: &[Option<f64>], expected: &Value, tolerance: f64) {
    let expected = numbers(expected);
    assert_eq!(found.len(), expected.len(), "{name}: {what}");
    for (index, (found, expected)) in found.iter().zip(&expected).enumerate() {
        match (found, expected) {
            (None, None) => {}
            (Some(found), Some(expected)) => {
                let difference = (found - expected).abs();
                assert!(difference <= tolerance, "{name}: {what}[{index}] is {found}, not {expected}");
            }
            _ => panic!("{name}: {what}[{index}] is {found:?}, not {expected:?}"),
        }
    }
}

#[test]
fn every_number_is_the_recorded_one_in_f64() {
    let names = names();
    assert_eq!(names.len(), 24);
    for name in &names {
        let fixture = fixture(name);
        let expected = &fixture["expected"];
        let found = evaluate(&fixture, DType::F64);
        check(name, "loss", &[Some(found.loss)], &json!([expected["loss"]]), F64);
        let some = |values: &[f64]| values.iter().map(|&value| Some(value)).collect::<Vec<_>>();
        let flags = |values: &[bool], one: bool| -> Vec<Option<f64>> {
            values.iter().map(|&value| Some(f64::from(u8::from(value == one)))).collect()
        };
        check(name, "advantages", &some(&found.plan.advantages), &expected["advantages"], F64);
        check(name, "counted", &flags(&found.plan.counted, true), &expected["counted"], 0.0);
        check(name, "opsm_mask", &flags(&found.evaluation.masked, false), &expected["opsm_mask"], 0.0);
        check(name, "drift", &found.evaluation.drift, &expected["drift"], F64);
        check(name, "logp", &found.evaluation.logp, &expected["logp"], F64);
        check(name, "ratio", &found.evaluation.ratio, &expected["ratio"], F64);
        for (row, gradient) in found.grad_logits.iter().enumerate() {
            check(name, &format!("grad_logits[{row}]"), &some(gradient), &expected["grad_logits"][row], F64);
        }
        let metrics = serde_json::to_value(&found.evaluation.metrics).unwrap();
        let recorded = expected["metrics"].as_object().unwrap();
        assert_eq!(recorded.len(), 14);
        for (key, value) in recorded {
            check(name, key, &[metrics[key].as_f64()], &json!([value]), F64);
        }
    }
}

#[test]
fn losses_and_gradients_are_the_recorded_ones_in_f32() {
    for name in names() {
        let fixture = fixture(&name);
        let expected = &fixture["expected"];
        let found = evaluate(&fixture, DType::F32);
        let loss = expected["loss"].as_f64().unwrap();
        assert!((found.loss - loss).abs() <= F32_LOSS.0 * loss.abs() + F32_LOSS.1, "{name}: {} for {loss}", found.loss);
        for (row, gradient) in found.grad_logits.iter().enumerate() {
            let greatest =
                numbers(&expected["grad_logits"][row]).iter().flatten().fold(0.0, |a: f64, b| a.max(b.abs()));
            let gradient: Vec<_> = gradient.iter().map(|&value| Some(value)).collect();
            let tolerance = F32_ROW.0 * greatest + F32_ROW.1;
            check(&name, &format!("grad_logits[{row}]"), &gradient, &expected["grad_logits"][row], tolerance);
        }
    }
}

#[test]
fn the_preset_is_the_recorded_one() {
    let recorded: GrpoConfig = serde_json::from_value(fixture("24_v32_preset")["config"].clone()).unwrap();
    assert_eq!(recorded, GrpoConfig::v32());
    assert_eq!(serde_json::from_str::<GrpoConfig>("{}").unwrap(), GrpoConfig::v32());
    GrpoConfig::r1().validate().unwrap();
    assert_eq!((GrpoConfig::r1().clip_low, GrpoConfig::r1().clip_high), (10.0, 10.0));
}

#[test]
fn the_reference_follows_from_its_logits() {
    for name in ["20_keep_sampling_mask", "21_temperature", "24_v32_preset"] {
        let mut fixture = fixture(name);
        fixture["batch"].as_object_mut().unwrap().remove("ref_logp").unwrap();
        let found = evaluate(&fixture, DType::F64);
        check(name, "loss", &[Some(found.loss)], &json!([fixture["expected"]["loss"]]), F64);
    }
}

#[test]
fn a_reference_that_is_not_renormalised_has_another_value() {
    let mut fixture = fixture("20_keep_sampling_mask");
    fixture["batch"].as_object_mut().unwrap().remove("ref_logp").unwrap();
    let renormalised = evaluate(&fixture, DType::F64);
    fixture["config"]["ref_renormalise"] = json!(false);
    let full = evaluate(&fixture, DType::F64);
    let difference = (full.evaluation.metrics.mean_kl - renormalised.evaluation.metrics.mean_kl).abs();
    assert!(difference > 1e-3, "the values differ by {difference}");
}
