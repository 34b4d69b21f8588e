//! Checkpoints.
pub struct LoadOptions {
    pub dtype: candle_core::DType,
}
impl Default for LoadOptions {
    fn default() -> Self {
        Self { dtype: candle_core::DType::F32 }
    }
}
pub fn load(
    dir: &std::path::Path,
    o: &LoadOptions,
    _p: impl Fn(()),
) -> crate::Result<(crate::Config, candle_nn::VarBuilder<'static>)> {
    let c = crate::Config::from_json(&std::fs::read_to_string(dir.join("config.json")).unwrap()).unwrap();
    let f: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.to_string_lossy().contains("model") && p.extension().is_some_and(|e| e == "safetensors"))
        .collect();
    Ok((c, unsafe { candle_nn::VarBuilder::from_mmaped_safetensors(&f, o.dtype, &candle_core::Device::Cpu)? }))
}
