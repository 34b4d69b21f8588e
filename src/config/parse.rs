//! `config.json` text to [`Config`].

use serde_json::{Map, Value};

use super::indexer_types::indexer_types;
use super::json::{self, describe};
use super::{
    Config, ConfigError, MAX_HIDDEN_LAYERS, MlpType, ModelType, QuantizationConfig, Rope, Yarn, mlp_type_by_rule,
};
use crate::show::{number, quoted};

pub(super) type Result<T> = std::result::Result<T, ConfigError>;

/// rms_norm_eps where the key is absent: the value of every DeepSeek release, and of GLM-5.
const DEFAULT_EPS: f64 = 1e-6;
const DEFAULT_EPS_GLM: f64 = 1e-5;
/// initializer_range where the key is absent: what DeepSeek-V3 was trained with (its report, section 4.2). The releases' own
/// files say 0.02.
const DEFAULT_INITIALIZER_RANGE: f64 = 0.006;
/// The base where the key is absent, as in transformers.
const DEFAULT_ROPE_THETA: f64 = 10000.0;

/// One JSON object and the path to it.
#[derive(Clone, Copy)]
pub(super) struct Object<'a> {
    pub(super) map: &'a Map<String, Value>,
    pub(super) prefix: &'a str,
}

impl<'a> Object<'a> {
    pub(super) fn path(&self, key: &str) -> String {
        if self.prefix.is_empty() { key.to_string() } else { format!("{}.{key}", self.prefix) }
    }

    pub(super) fn error(&self, key: &str, message: impl Into<String>) -> ConfigError {
        ConfigError::new(self.path(key), message)
    }

    pub(super) fn wrong_type(&self, key: &str, expected: &str, found: &Value) -> ConfigError {
        self.error(key, format!("expected {expected}, found {}", describe(found)))
    }

    pub(super) fn required<T>(&self, key: &str, value: Option<T>) -> Result<T> {
        value.ok_or_else(|| self.error(key, "missing"))
    }

    /// The value at `key`; `None` if absent or null.
    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    pub(super) fn usize_of(&self, key: &str, value: &Value) -> Result<usize> {
        match value {
            Value::Number(number) if number.as_i64().is_some_and(|n| n < 0) => {
                Err(self.error(key, format!("must not be negative, found {number}")))
            }
            _ => value
                .as_u64()
                .and_then(|n| usize::try_from(n).ok())
                .ok_or_else(|| self.wrong_type(key, "a whole number", value)),
        }
    }

    pub(super) fn usize(&self, key: &str) -> Result<Option<usize>> {
        self.get(key).map(|value| self.usize_of(key, value)).transpose()
    }

    /// A whole number that may be written `4096.0`.
    pub(super) fn usize_or_float(&self, key: &str) -> Result<Option<usize>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.as_f64() {
            Some(float) if value.is_f64() && float.fract() == 0.0 && (0.0..=u32::MAX as f64).contains(&float) => {
                Ok(Some(float as usize))
            }
            _ => self.usize_of(key, value).map(Some),
        }
    }

    pub(super) fn f64(&self, key: &str) -> Result<Option<f64>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_f64().map(Some).ok_or_else(|| self.wrong_type(key, "a number", value))
    }

    pub(super) fn bool(&self, key: &str) -> Result<Option<bool>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| self.wrong_type(key, "true or false", value))
    }

    pub(super) fn str(&self, key: &str) -> Result<Option<&'a str>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| self.wrong_type(key, "a string", value))
    }

    pub(super) fn list(&self, key: &str) -> Result<Option<&'a [Value]>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_array().map(|list| Some(list.as_slice())).ok_or_else(|| self.wrong_type(key, "a list", value))
    }

    /// Checks that `key`, if present, has the one value this crate computes.
    pub(super) fn only(&self, key: &str, supported: &str) -> Result<()> {
        match self.str(key)? {
            Some(found) if found != supported => {
                Err(self.error(key, format!("{} is not supported, only {supported:?} is", quoted(found))))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn only_bool(&self, key: &str, supported: bool) -> Result<()> {
        match self.bool(key)? {
            Some(found) if found != supported => {
                Err(self.error(key, format!("{found} is not supported, only {supported} is")))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn token_id(&self, key: &str, value: &Value) -> Result<u32> {
        u32::try_from(self.usize_of(key, value)?).map_err(|_| self.wrong_type(key, "a token id", value))
    }
}

impl Config {
    /// Reads the text of a `config.json` and validates it.
    ///
    /// Accepts the keys of `deepseek_v3`, `kimi_k2`, `deepseek_v32` and `glm_moe_dsa`, in the original spelling and in
    /// that of transformers 5 (`rope_parameters`, `mlp_layer_types`, `num_mtp_layers`); other keys are ignored.
    ///
    /// # Errors
    /// A [`ConfigError`] naming the key that is missing, of the wrong type, contradictory or unsupported.
    pub fn from_json(text: &str) -> Result<Self> {
        let value =
            json::parse(json::without_bom(text)).map_err(|e| ConfigError::new("", format!("invalid JSON: {e}")))?;
        Self::from_value(&value)
    }

    pub(super) fn from_value(value: &Value) -> Result<Self> {
        let Value::Object(map) = value else {
            return Err(ConfigError::new("", format!("expected a JSON object, found {}", describe(value))));
        };
        let config = read(Object { map, prefix: "" })?;
        config.validate()?;
        Ok(config)
    }
}

fn read(o: Object) -> Result<Config> {
    let model_type = model_type(o)?;
    refuse_other_architectures(o)?;
    let size = |key: &str| o.required(key, o.usize(key)?);
    let num_hidden_layers = size("num_hidden_layers")?;
    // Checked before anything is sized by it.
    if num_hidden_layers == 0 || num_hidden_layers > MAX_HIDDEN_LAYERS {
        let message = format!("must be between 1 and {MAX_HIDDEN_LAYERS}, found {num_hidden_layers}");
        return Err(o.error("num_hidden_layers", message));
    }
    let (mlp_layer_types, first_k_dense_replace, moe_layer_freq) = mlp_layer_types(o, num_hidden_layers)?;
    let sparse = mlp_layer_types.contains(&MlpType::Sparse);
    let moe_size = |key: &str| if sparse { size(key) } else { Ok(o.usize(key)?.unwrap_or(0)) };
    let (n_group, topk_group) = groups(o)?;
    let num_attention_heads = size("num_attention_heads")?;
    if num_attention_heads == 0 {
        return Err(o.error("num_attention_heads", "must be at least 1, found 0".to_string()));
    }
    if let Some(kv_heads) = o.usize("num_key_value_heads")?.filter(|heads| *heads != num_attention_heads) {
        let message = format!("MLA has as many as num_attention_heads ({num_attention_heads}), found {kv_heads}");
        return Err(o.error("num_key_value_heads", message));
    }
    let max_position_embeddings = size("max_position_embeddings")?;
    let config = Config {
        model_type,
        vocab_size: size("vocab_size")?,
        hidden_size: size("hidden_size")?,
        intermediate_size: size("intermediate_size")?,
        moe_intermediate_size: moe_size("moe_intermediate_size")?,
        num_hidden_layers,
        num_nextn_predict_layers: mtp_layers(o)?,
        num_attention_heads,
        n_shared_experts: shared_experts(o, sparse)?,
        n_routed_experts: routed_experts(o, sparse)?,
        routed_scaling_factor: match o.f64("routed_scaling_factor")? {
            None if sparse => return Err(o.error("routed_scaling_factor", "missing")),
            factor => factor.unwrap_or(1.0),
        },
        kv_lora_rank: size("kv_lora_rank")?,
        q_lora_rank: o.usize("q_lora_rank")?,
        qk_rope_head_dim: size("qk_rope_head_dim")?,
        v_head_dim: size("v_head_dim")?,
        qk_nope_head_dim: size("qk_nope_head_dim")?,
        n_group,
        topk_group,
        num_experts_per_tok: moe_size("num_experts_per_tok")?,
        first_k_dense_replace,
        moe_layer_freq,
        norm_topk_prob: o.bool("norm_topk_prob")?.unwrap_or(true),
        max_position_embeddings,
        rms_norm_eps: o.f64("rms_norm_eps")?.unwrap_or(match model_type {
            ModelType::GlmMoeDsa => DEFAULT_EPS_GLM,
            _ => DEFAULT_EPS,
        }),
        initializer_range: o.f64("initializer_range")?.unwrap_or(DEFAULT_INITIALIZER_RANGE),
        tie_word_embeddings: o.bool("tie_word_embeddings")?.unwrap_or(false),
        bos_token_id: o.get("bos_token_id").map(|value| o.token_id("bos_token_id", value)).transpose()?,
        eos_token_id: eos_token_ids(o)?,
        index_n_heads: o.usize("index_n_heads")?,
        index_head_dim: o.usize("index_head_dim")?,
        index_topk: o.usize("index_topk")?,
        indexer_rope_interleave: o.bool("indexer_rope_interleave")?.unwrap_or(model_type == ModelType::GlmMoeDsa),
        rope: rope(o)?,
        indexer_types: indexer_types(o, model_type, num_hidden_layers)?,
        mlp_layer_types,
        quantization_config: quantization(o)?,
    };
    check_pad_token_id(o, config.vocab_size)?;
    if let Some(found) = o.usize("qk_head_dim")? {
        let expected = config.qk_nope_head_dim.saturating_add(config.qk_rope_head_dim);
        if found != expected {
            let message = format!("must be qk_nope_head_dim + qk_rope_head_dim ({expected}), found {found}");
            return Err(o.error("qk_head_dim", message));
        }
    }
    Ok(config)
}

fn model_type(o: Object) -> Result<ModelType> {
    use ModelType::*;
    let families = [DeepseekV3, KimiK2, DeepseekV32, GlmMoeDsa];
    let mut architectures = Vec::new();
    for value in o.list("architectures")?.unwrap_or_default() {
        architectures.push(value.as_str().ok_or_else(|| o.wrong_type("architectures", "a list of strings", value))?);
    }
    let Some(name) = o.str("model_type")? else {
        let first = architectures.first();
        let family = families.into_iter().find(|family| Some(&family.architecture()) == first);
        return family.ok_or_else(|| o.error("model_type", "missing"));
    };
    let Some(model_type) = families.into_iter().find(|family| family.as_str() == name) else {
        let known = families.map(ModelType::as_str).join(", ");
        return Err(o.error("model_type", format!("{} is not supported, only {known} are", quoted(name))));
    };
    // A name that no family has may be a variant's; another family's is a mistake in one of the two keys.
    let others = families.map(ModelType::architecture).into_iter().filter(|other| *other != model_type.architecture());
    match others.into_iter().find(|other| architectures.contains(other)) {
        Some(other) => Err(o.error("architectures", format!("{other:?} contradicts model_type {name:?}"))),
        None => Ok(model_type),
    }
}

/// Keys whose other values would change the computation.
fn refuse_other_architectures(o: Object) -> Result<()> {
    o.only("hidden_act", "silu")?;
    o.only("topk_method", "noaux_tc")?;
    o.only("scoring_func", "sigmoid")?;
    o.only_bool("attention_bias", false)?;
    o.only_bool("mlp_bias", false)?;
    o.only_bool("rope_interleave", true)?;
    for key in ["swiglu_limit", "final_logit_softcapping", "attn_logit_softcapping"] {
        if let Some(value) = o.get(key) {
            return Err(o.error(key, format!("{} is not supported, only null is", describe(value))));
        }
    }
    for key in ["partial_rotary_factor", "logits_scaling", "embedding_multiplier", "residual_multiplier"] {
        if let Some(value) = o.get(key).filter(|value| value.as_f64() != Some(1.0)) {
            return Err(o.error(key, format!("{} is not supported, only 1 is", describe(value))));
        }
    }
    let slides = o.bool("use_sliding_window")? != Some(false);
    if let Some(value) = o.get("sliding_window").filter(|_| slides) {
        return Err(o.error("sliding_window", format!("{} is not supported, only null is", describe(value))));
    }
    for value in o.list("layer_types")?.unwrap_or_default() {
        let name = value.as_str().ok_or_else(|| o.wrong_type("layer_types", "a list of strings", value))?;
        if ["sliding", "chunked", "linear", "mamba", "conv"].iter().any(|other| name.contains(other)) {
            return Err(o.error("layer_types", format!("{} is not supported", quoted(name))));
        }
    }
    Ok(())
}

fn mtp_layers(o: Object) -> Result<usize> {
    let (nextn, mtp) = (o.usize("num_nextn_predict_layers")?, o.usize("num_mtp_layers")?);
    match (nextn, mtp) {
        (Some(nextn), Some(mtp)) if nextn != mtp => {
            Err(o.error("num_mtp_layers", format!("is {mtp}, but num_nextn_predict_layers is {nextn}")))
        }
        _ => Ok(nextn.or(mtp).unwrap_or(0)),
    }
}

fn shared_experts(o: Object, sparse: bool) -> Result<usize> {
    match o.usize("n_shared_experts")? {
        None if sparse && !o.map.contains_key("n_shared_experts") => {
            Err(o.error("n_shared_experts", "missing (0 or null for none)"))
        }
        shared => Ok(shared.unwrap_or(0)),
    }
}

fn routed_experts(o: Object, sparse: bool) -> Result<usize> {
    let (routed, local) = (o.usize("n_routed_experts")?, o.usize("num_local_experts")?);
    match (routed, local) {
        (Some(routed), Some(local)) if routed != local => {
            Err(o.error("num_local_experts", format!("is {local}, but n_routed_experts is {routed}")))
        }
        (None, None) if sparse => Err(o.error("n_routed_experts", "missing")),
        _ => Ok(routed.or(local).unwrap_or(0)),
    }
}

/// `(n_group, topk_group)`; one group if both are absent.
fn groups(o: Object) -> Result<(usize, usize)> {
    match (o.usize("n_group")?, o.usize("topk_group")?) {
        (Some(n_group), Some(topk_group)) => Ok((n_group, topk_group)),
        (None, None | Some(1)) => Ok((1, 1)),
        (None, Some(topk_group)) => Err(o.error("n_group", format!("missing, but topk_group is {topk_group}"))),
        (Some(1), None) => Ok((1, 1)),
        (Some(n_group), None) => Err(o.error("topk_group", format!("missing, but n_group is {n_group}"))),
    }
}

fn eos_token_ids(o: Object) -> Result<Vec<u32>> {
    match o.get("eos_token_id") {
        None => Ok(Vec::new()),
        Some(Value::Array(list)) => list.iter().map(|value| o.token_id("eos_token_id", value)).collect(),
        Some(value) => Ok(vec![o.token_id("eos_token_id", value)?]),
    }
}

/// The model does not pad, but an id that is out of range is a sign of another vocabulary; -1 means none.
fn check_pad_token_id(o: Object, vocab_size: usize) -> Result<()> {
    let key = "pad_token_id";
    let Some(value) = o.get(key).filter(|value| value.as_i64() != Some(-1)) else { return Ok(()) };
    let id = o.usize_of(key, value)?;
    if id < vocab_size {
        return Ok(());
    }
    Err(o.error(key, format!("{id} is not below vocab_size {vocab_size}")))
}

pub(super) fn check_length(o: Object, key: &str, found: usize, num_hidden_layers: usize) -> Result<()> {
    if found == num_hidden_layers {
        return Ok(());
    }
    Err(o.error(key, format!("expected one entry per layer ({num_hidden_layers}), found {found}")))
}

/// `(mlp_layer_types, first_k_dense_replace, moe_layer_freq)`.
fn mlp_layer_types(o: Object, num_hidden_layers: usize) -> Result<(Vec<MlpType>, usize, usize)> {
    let (first_k, freq) = (o.usize("first_k_dense_replace")?, o.usize("moe_layer_freq")?);
    let moe_layer_freq = freq.unwrap_or(1);
    if moe_layer_freq == 0 {
        return Err(o.error("moe_layer_freq", "must be positive, found 0"));
    }
    let Some(list) = o.list("mlp_layer_types")? else {
        let first_k = clamped(o.required("first_k_dense_replace", first_k)?, num_hidden_layers);
        let types = (0..num_hidden_layers).map(|i| mlp_type_by_rule(i, first_k, moe_layer_freq)).collect();
        return Ok((types, first_k, moe_layer_freq));
    };
    check_length(o, "mlp_layer_types", list.len(), num_hidden_layers)?;
    let mut types = Vec::with_capacity(list.len());
    for value in list {
        types.push(match value.as_str() {
            Some("dense") => MlpType::Dense,
            Some("sparse") => MlpType::Sparse,
            _ => return Err(o.wrong_type("mlp_layer_types", "\"dense\" or \"sparse\"", value)),
        });
    }
    let leading = types.iter().take_while(|mlp_type| **mlp_type == MlpType::Dense).count();
    // The list wins: transformers writes its default `first_k_dense_replace` beside any list.
    let follows = |first_k: &usize| {
        types.iter().enumerate().all(|(i, mlp_type)| *mlp_type == mlp_type_by_rule(i, *first_k, moe_layer_freq))
    };
    let first_k = first_k.map(|first_k| clamped(first_k, num_hidden_layers)).filter(follows);
    Ok((types, first_k.unwrap_or(leading), moe_layer_freq))
}

/// More dense layers than there are layers means all of them, as in transformers; an absurd number is left to be refused.
fn clamped(first_k: usize, num_hidden_layers: usize) -> usize {
    if first_k <= MAX_HIDDEN_LAYERS { first_k.min(num_hidden_layers) } else { first_k }
}

fn rope(o: Object) -> Result<Rope> {
    let scaling = rope_object(o, "rope_scaling")?;
    let parameters = rope_object(o, "rope_parameters")?;
    let mut found: Option<(&str, Option<Yarn>)> = None;
    let mut theta: Option<f64> = o.f64("rope_theta")?;
    let original = o.usize_or_float("original_max_position_embeddings")?;
    for object in [parameters, scaling].into_iter().flatten() {
        if let Some(nested) = object.f64("rope_theta")? {
            if theta.is_some_and(|theta| theta != nested) {
                return Err(object.error("rope_theta", format!("{} contradicts the other rope_theta", number(nested))));
            }
            theta = Some(nested);
        }
        let yarn = yarn(object, original)?;
        match &found {
            Some((other, expected)) if *expected != yarn => {
                return Err(ConfigError::new(object.prefix, format!("contradicts {other}")));
            }
            _ => found = Some((object.prefix, yarn)),
        }
    }
    Ok(Rope { rope_theta: theta.unwrap_or(DEFAULT_ROPE_THETA), yarn: found.and_then(|(_, yarn)| yarn) })
}

fn rope_object<'a>(o: Object<'a>, key: &'static str) -> Result<Option<Object<'a>>> {
    match o.get(key) {
        None => Ok(None),
        Some(Value::Object(map)) => Ok(Some(Object { map, prefix: key })),
        Some(value) => Err(o.wrong_type(key, "an object or null", value)),
    }
}

/// `original`: a top-level `original_max_position_embeddings`, which some configs have instead of the nested one.
fn yarn(o: Object, original: Option<usize>) -> Result<Option<Yarn>> {
    let (old, new) = (o.str("type")?, o.str("rope_type")?);
    let (key, name) = match (old, new) {
        (Some(old), Some(new)) if old != new => {
            return Err(o.error("type", format!("{} contradicts rope_type {}", quoted(old), quoted(new))));
        }
        (_, Some(name)) => ("rope_type", name),
        (Some(name), None) => ("type", name),
        // A scaling that says how much but not which is more likely a mistake than plain RoPE.
        (None, None) if o.get("factor").is_some() => return Err(o.error("type", "missing")),
        (None, None) => ("rope_type", "default"),
    };
    if let Some(partial) = o.f64("partial_rotary_factor")?.filter(|partial| *partial != 1.0) {
        return Err(o.error("partial_rotary_factor", format!("{} is not supported, only 1 is", number(partial))));
    }
    match name {
        "default" => Ok(None),
        "yarn" => {
            let key = "original_max_position_embeddings";
            let nested = o.usize_or_float(key)?;
            if let (Some(nested), Some(original)) = (nested, original.filter(|_| nested != original)) {
                return Err(o.error(key, format!("{nested} contradicts the top-level {original}")));
            }
            let yarn = Yarn {
                factor: o.required("factor", o.f64("factor")?)?,
                original_max_position_embeddings: o.required(key, nested.or(original))?,
                beta_fast: o.f64("beta_fast")?.unwrap_or(32.0),
                beta_slow: o.f64("beta_slow")?.unwrap_or(1.0),
                mscale: o.f64("mscale")?,
                mscale_all_dim: o.f64("mscale_all_dim")?,
                truncate: o.bool("truncate")?.unwrap_or(true),
                attention_factor: o.f64("attention_factor")?,
            };
            yarn.validate(o.prefix)?;
            Ok(Some(yarn))
        }
        other => Err(o.error(key, format!("{} is not supported, only \"default\" and \"yarn\" are", quoted(other)))),
    }
}

fn quantization(o: Object) -> Result<Option<QuantizationConfig>> {
    let key = "quantization_config";
    if o.get("compression_config").is_some() {
        return Err(o.error("compression_config", format!("compressed-tensors is not supported, only {SUPPORTED} are")));
    }
    let map = match o.get(key) {
        None => return Ok(None),
        Some(Value::Object(map)) => map,
        Some(value) => return Err(o.wrong_type(key, "an object or null", value)),
    };
    let o = Object { map, prefix: key };
    refuse_other_quantization(o)?;
    o.only("fmt", "e4m3")?;
    o.only("activation_scheme", "dynamic")?;
    let list = o.required("weight_block_size", o.list("weight_block_size")?)?;
    let [rows, columns] = list else {
        return Err(o.error("weight_block_size", format!("expected two numbers, found {}", list.len())));
    };
    let weight_block_size = [o.usize_of("weight_block_size", rows)?, o.usize_of("weight_block_size", columns)?];
    let ue8m0 = match o.str("scale_fmt")? {
        None | Some("float") => false,
        Some("ue8m0") => true,
        Some(other) => {
            return Err(o.error("scale_fmt", format!("{} is not supported, only \"ue8m0\" is", quoted(other))));
        }
    };
    Ok(Some(QuantizationConfig { weight_block_size, ue8m0 }))
}

/// The formats of weights that are read.
const SUPPORTED: &str =
    "block FP8 (quant_method \"fp8\", weight_block_size [128, 128]) and weights that are not quantized";

/// Refuses a `quantization_config` of another method than FP8, by the name of its format.
fn refuse_other_quantization(o: Object) -> Result<()> {
    let (method, algorithm) = (o.str("quant_method")?, o.str("quant_algo")?);
    let name = match (method, algorithm.or(o.str("format")?)) {
        (Some("fp8"), _) => return Ok(()),
        (None, None) => return Err(o.error("quant_method", "missing")),
        (Some(method), Some(format)) => format!("{} ({})", quoted(method), quoted(format)),
        (Some(name), None) | (None, Some(name)) => quoted(name),
    };
    Err(o.error("quant_method", format!("{name} is not supported, only {SUPPORTED} are")))
}
