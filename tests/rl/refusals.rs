//! Bad input is refused by the name of the option or field.

use candle_core::{DType, Device, Tensor};
use deepseek_v32::rl::{self, Aggregation, Batch, GrpoConfig, KeptSets, LossCall, Plan, Policy, RlError, log_probs};
use serde_json::{Value, json};

/// A call with two sequences of two rows and five ids.
fn call() -> Value {
    let row = [0.5, -0.5, 0.0, 1.0, -1.0];
    json!({
        "config": GrpoConfig::v32(),
        "batch": {
            "vocab": 5,
            "logits": [row, row, row, row],
            "tokens": [0, 1, 2, 3],
            "seq_id": [0, 0, 1, 1],
            "gen_mask": [1, 1, 1, 0],
            "old_logp": [-1.0, -1.5, -2.0, 7.5],
            "ref_logp": [-1.0, -1.5, -2.0, 7.5],
            "kept": [null, [0, 1, 4], null, null],
            "rewards": [1.0, 0.0],
            "group_id": [0, 0],
            "beta": [0.1, 0.0],
            "truncated": [0, 0],
        },
    })
}

/// How the loss ends for this text.
fn ends(text: &str) -> Result<f64, String> {
    let line = |error: RlError| {
        let line = error.to_string();
        assert!(!line.contains('\n') && line.len() < 500, "{line}");
        line
    };
    let LossCall { config, batch } = LossCall::from_json(text, DType::F64, &Device::Cpu).map_err(line)?;
    let (loss, _) = rl::loss(&batch, &config).map_err(line)?;
    Ok(loss.to_scalar().unwrap())
}

/// The call with one value changed; a null removes it.
fn changed(path: &str, value: Value) -> String {
    let mut call = call();
    let (parent, key) = path.rsplit_once('/').unwrap();
    let parent = call.pointer_mut(parent).unwrap();
    match (parent, value) {
        (Value::Object(object), Value::Null) => drop(object.remove(key).unwrap()),
        (Value::Object(object), value) => drop(object.insert(key.to_string(), value)),
        (parent, value) => parent[key.parse::<usize>().unwrap()] = value,
    }
    call.to_string()
}

#[test]
fn the_call_itself_is_good() {
    assert!(ends(&call().to_string()).unwrap().is_finite());
    assert!(ends(&changed("/batch/gen_mask", json!([true, true, true, false]))).unwrap().is_finite());
    // Left out without harm.
    let mut call = call();
    call["config"]["kl"] = json!("none");
    for key in ["kept", "ref_logp"] {
        call["batch"].as_object_mut().unwrap().remove(key);
    }
    assert!(ends(&call.to_string()).unwrap().is_finite());
}

#[test]
fn options_are_refused_by_name() {
    for (key, value, part) in [
        ("advantage", json!("median"), "median"),
        ("advantage", Value::Null, "missing"),
        ("std_ddof", json!(2), "2"),
        ("std_ddof", json!(-1), "-1"),
        ("std_eps", json!(-1e-6), "at least 0"),
        ("aggregation", json!("sum"), "sum"),
        ("aggregation", json!(["token_mean"]), "token_mean"),
        ("agg_const", json!(0.0), "above 0"),
        ("agg_const", json!(-8), "above 0"),
        ("clip_low", json!(-0.2), "-0.2"),
        ("clip_high", json!("0.2"), "0.2"),
        ("clip_high", Value::Null, "missing"),
        ("dual_clip", json!(1.0), "above 1"),
        ("kl", json!("k4"), "k4"),
        ("opsm_delta", json!(-0.1), "at least 0"),
        ("temperature", json!(0.0), "above 0"),
        ("temperature", json!(-1), "above 0"),
        ("keep_sampling_mask", json!("yes"), "yes"),
        ("truncated", json!("ignore"), "ignore"),
        ("drop_zero_variance", json!(2), "2"),
        ("clip", json!(0.2), "unknown"),
    ] {
        let error = ends(&changed(&format!("/config/{key}"), value.clone())).unwrap_err();
        let named = if error.contains("unknown field") { key.to_string() } else { format!("config.{key}: ") };
        let about = if key == "aggregation" { "expected" } else { part };
        assert!(error.contains(&named) && error.contains(about), "{key} = {value}: {error}");
    }
    let constant = GrpoConfig { aggregation: Aggregation::SeqMeanTokenSumConst, ..GrpoConfig::v32() };
    assert!(matches!(constant.validate(), Err(RlError::Config { key, .. }) if key == "agg_const"));
    for wrong in [f64::NAN, f64::INFINITY] {
        let config = GrpoConfig { clip_low: wrong, ..GrpoConfig::v32() };
        assert!(matches!(config.validate(), Err(RlError::Config { key, .. }) if key == "clip_low"));
    }
    let config = GrpoConfig { opsm_delta: Some(f64::NAN), ..GrpoConfig::v32() };
    assert!(config.validate().is_err());
}

#[test]
fn fields_are_refused_by_name_and_place() {
    for key in [
        "vocab",
        "logits",
        "tokens",
        "seq_id",
        "gen_mask",
        "old_logp",
        "ref_logp",
        "rewards",
        "group_id",
        "beta",
        "truncated",
    ] {
        let error = ends(&changed(&format!("/batch/{key}"), Value::Null)).unwrap_err();
        assert!(error.starts_with(&format!("batch.{key}: missing")), "{key}: {error}");
        for wrong in [json!("a\nb".repeat(1000)), json!({}), json!(true), json!([[[]]])] {
            let error = ends(&changed(&format!("/batch/{key}"), wrong)).unwrap_err();
            assert!(error.starts_with(&format!("batch.{key}")), "{key}: {error}");
        }
    }
    let row = |values: usize| json!(vec![0.0; values]);
    for (path, value, expected) in [
        ("vocab", json!(0), "batch.vocab: 0, expected"),
        ("vocab", json!(4), "batch.logits[0]: 5 logits, expected 4"),
        ("vocab", json!(4e9), "batch.vocab: 4000000000.0"),
        ("logits/2", row(6), "batch.logits[2]: 6 logits, expected 5"),
        ("logits/2/1", json!(null), "batch.logits[2][1]: null, expected a number"),
        ("logits", json!([row(5)]), "batch.logits: 1 rows, expected 4"),
        ("tokens/1", json!(5), "batch.tokens[1]: 5, but the vocabulary has 5 ids"),
        ("tokens/1", json!(-1), "batch.tokens[1]: -1, expected"),
        ("tokens/1", json!(1.5), "batch.tokens[1]: 1.5, expected"),
        ("tokens", json!([]), "batch.tokens: no row"),
        ("seq_id/3", json!(2), "batch.seq_id[3]: 2, but `rewards` has 2 sequences"),
        ("seq_id", json!([0, 1, 0, 1]), "batch.seq_id[2]: the rows of sequence 0 do not stand together"),
        ("seq_id", json!([0, 0, 1]), "batch.seq_id: 3 values, expected 4"),
        ("gen_mask/0", json!(2), "batch.gen_mask[0]: 2, expected 0 or 1"),
        ("old_logp", json!([0.0]), "batch.old_logp: 1 values"),
        ("old_logp/0", json!("-1"), "batch.old_logp[0]: \"-1\", expected a number"),
        ("ref_logp", json!([0.0]), "batch.ref_logp: 1 values"),
        ("kept/0", json!([]), "batch.kept[0]: no id"),
        ("kept/0", json!([2, 1, 0]), "batch.kept[0]: 1 follows 2"),
        ("kept/0", json!([0, 0]), "batch.kept[0]: 0 follows 0"),
        ("kept/0", json!([1, 2]), "batch.kept[0]: the row's token 0 is not in it"),
        ("kept/0", json!([0, 5]), "batch.kept[0]: id 5, but the vocabulary"),
        ("kept", json!([null]), "batch.kept: 1 values"),
        ("rewards", json!([1.0]), "batch.group_id: 2 values, expected 1"),
        ("group_id/0", json!(0.5), "batch.group_id[0]: 0.5, expected a whole number"),
        ("beta/1", json!(-0.1), "batch.beta[1]: -0.1, expected"),
        ("beta", json!([0.1]), "batch.beta: 1 values"),
        ("truncated/0", json!("no"), "batch.truncated[0]: \"no\", expected 0 or 1"),
        ("rewards", json!([1.7e308, 1.6e308]), "batch.rewards[0]: its advantage is"),
    ] {
        let error = ends(&changed(&format!("/batch/{path}"), value.clone())).unwrap_err();
        assert!(error.starts_with(expected), "{path} = {value}: {error}");
    }
}

/// Logits of the reference are read where its log-probabilities are missing, and checked like the policy's.
#[test]
fn logits_of_the_reference_are_checked() {
    let with = |logits: Value| {
        let mut call = call();
        let batch = call["batch"].as_object_mut().unwrap();
        batch.remove("ref_logp").unwrap();
        batch.insert("ref_logits".to_string(), logits);
        ends(&call.to_string())
    };
    let row = [0.1, 0.2, 0.3, 0.4, 0.5];
    assert!(with(json!([row, row, row, row])).unwrap().is_finite());
    for (logits, expected) in [
        (json!([row, row, row]), "batch.ref_logits: 3 rows, expected 4"),
        (json!([row, row, row, [1.0]]), "batch.ref_logits[3]: 1 logits, expected 5"),
        (json!([row, row, [0, 0, null, 0, 0], row]), "batch.ref_logits[2][2]: null"),
        (json!("row"), "batch.ref_logits: \"row\", expected a list"),
        // -infinity is no log-probability of the reference.
        (json!([row, row, [1.7e308, 0.0, -1.7e308, 0.0, 0.0], row]), "batch.ref_logp[2]: -inf"),
    ] {
        let error = with(logits).unwrap_err();
        assert!(error.starts_with(expected), "{error}");
    }
}

#[test]
fn texts_that_are_no_call_are_refused() {
    for (text, part) in [
        ("", "EOF"),
        ("[1]", "`config`"),
        ("{\"config\": 1, \"batch\": {}}", "`config` is 1"),
        ("{\"batch\": {}}", "`config` is missing"),
        ("{\"config\": {\"kl\": NaN}}", "kl"),
    ] {
        let error = ends(text).unwrap_err();
        assert!(error.contains(part), "{text}: {error}");
    }
    let twice = call().to_string().replacen("\"vocab\":5", "\"vocab\":5,\"vocab\":5", 1);
    assert!(ends(&twice).unwrap_err().contains("vocab"));
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(ends(&deep).is_err());
}

/// Numbers that are too large for the dtype are refused with their row.
#[test]
fn what_is_not_finite_is_refused_with_its_row() {
    let error = ends(&changed("/batch/logits/1", json!([1.7e308, -1.7e308, 0.0, 0.0, 0.0]))).unwrap_err();
    assert!(error.starts_with("row 1: "), "{error}");
    let text = changed("/batch/old_logp/2", json!(-800.0));
    assert!(ends(&text).unwrap_err().starts_with("row 2: its term"), "{}", ends(&text).unwrap_err());
    // In a row that was not generated it does not matter.
    assert_eq!(ends(&changed("/batch/old_logp/3", json!(-1e300))), ends(&call().to_string()));
    // Nor do logits and tokens there.
    assert_eq!(ends(&changed("/batch/logits/3/0", json!(1e308))), ends(&call().to_string()));
    assert_eq!(ends(&changed("/batch/tokens/3", json!(4_000_000))), ends(&call().to_string()));
}

#[test]
fn tensors_of_the_wrong_shape_or_dtype_are_refused() {
    let call = LossCall::from_json(&call().to_string(), DType::F64, &Device::Cpu).unwrap();
    let field = |policy| match rl::loss(&Batch { policy, ..call.batch.clone() }, &call.config) {
        Err(RlError::Batch { field, .. }) => field,
        other => panic!("{other:?}"),
    };
    let zeros = |shape: &[usize], dtype| Tensor::zeros(shape, dtype, &Device::Cpu).unwrap();
    assert_eq!(field(Policy::Logits(zeros(&[3, 5], DType::F32))), "logits");
    assert_eq!(field(Policy::Logits(zeros(&[20], DType::F32))), "logits");
    assert_eq!(field(Policy::Logits(zeros(&[4, 0], DType::F32))), "logits");
    assert_eq!(field(Policy::Logits(zeros(&[4, 5], DType::U32))), "logits");
    assert_eq!(field(Policy::LogProbs(zeros(&[4, 1], DType::F32))), "logp");
    assert_eq!(field(Policy::LogProbs(zeros(&[4], DType::BF16))), "logp");
    let logits = zeros(&[4, 5], DType::F32);
    let refused = |tokens: &[u32], enters: &[bool], kept: Option<&KeptSets>, temperature| {
        log_probs(&logits, tokens, enters, kept, temperature).unwrap_err().to_string()
    };
    assert!(refused(&[0; 3], &[true; 4], None, 1.0).starts_with("batch.tokens"));
    assert!(refused(&[0; 4], &[true; 5], None, 1.0).starts_with("batch.enters"));
    assert!(refused(&[0; 4], &[true; 4], Some(&KeptSets::full(2)), 1.0).starts_with("batch.kept"));
    assert!(refused(&[0; 4], &[true; 4], None, f64::NAN).starts_with("config.temperature"));
}

#[test]
fn plans_of_another_step_are_refused() {
    let LossCall { config, batch } = LossCall::from_json(&call().to_string(), DType::F64, &Device::Cpu).unwrap();
    let plan = Plan::of(&batch, &config).unwrap();
    let error = rl::evaluate(&batch, &plan.select(&[0]).unwrap(), &config).unwrap_err();
    assert!(error.to_string().starts_with("batch.plan"), "{error}");
    assert!(plan.select(&[2]).is_err());
    assert!(Plan::new(&[1.0], &[0, 0], &[false], &[1], &config).is_err());
    assert!(Plan::new(&[f64::NAN], &[0], &[false], &[1], &config).is_err());
}
