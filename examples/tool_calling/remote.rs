//! A model behind an OpenAI-compatible server.

use std::sync::Arc;

use anyhow::Result;
use deepseek_v32::chat_model::ChatModel;

use crate::Args;

#[cfg(feature = "client")]
pub fn chat(args: &Args, base_url: &str) -> Result<Arc<dyn ChatModel>> {
    use deepseek_v32::chat_model::{OpenAiChat, OpenAiOptions};
    let api_key = args.api_key.clone().filter(|key| !key.is_empty());
    let options = OpenAiOptions { api_key, ..OpenAiOptions::default() };
    let model = args.model.clone().unwrap_or_default();
    Ok(Arc::new(OpenAiChat::new(base_url, model, options).map_err(crate::common::named)?))
}

#[cfg(not(feature = "client"))]
pub fn chat(_args: &Args, _base_url: &str) -> Result<Arc<dyn ChatModel>> {
    anyhow::bail!("--base-url: to use a server, build with --features client")
}
