//! Tools that a person brings along, without touching a line of code.
//!
//! The file is a list of tools as in OpenAI's protocol. Beside its `function` a tool may have a `result`, which every call
//! of it then has; of a tool without one, a person types the results.
//!
//! ```json
//! [{"type": "function",
//!   "function": {"name": "get_weather", "description": "Get the weather in a city.",
//!                "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}},
//!   "result": "21 degrees and sunny"}]
//! ```

use std::io::Write;
use std::path::Path;
use std::sync::Mutex;

use anyhow::{Context, Result, anyhow, bail, ensure};
use deepseek_v32::chat::{Json, Tool};
use deepseek_v32::environment::{ToolFailure, Toolbox};
use deepseek_v32::error::{one_line, one_line_path};

use crate::common;

/// The tools of a file. Their calls are carried out one after another, as a person types.
pub fn toolbox(file: &Path) -> Result<Toolbox> {
    let text = common::read_text(file)?;
    read(&text).with_context(|| one_line_path(file))
}

fn read(text: &str) -> Result<Toolbox> {
    let entries = match Json::parse(text).map_err(|error| anyhow!("not JSON: {error}"))? {
        Json::Array(entries) if !entries.is_empty() => entries,
        other => bail!("is {}, expected a list of tools", one_line(&other.to_string())),
    };
    let mut toolbox = Toolbox::new().with_max_parallel(1);
    for (i, entry) in entries.iter().enumerate() {
        toolbox = add(toolbox, entry).with_context(|| format!("tool {i}"))?;
    }
    Ok(toolbox)
}

fn add(toolbox: Toolbox, entry: &Json) -> Result<Toolbox> {
    ensure!(matches!(entry, Json::Object(_)), "is {}, expected an object", one_line(&entry.to_string()));
    ensure!(entry.get("function").is_some(), "has no `function`");
    let tool: Tool = serde_json::from_str(&entry.to_string()).map_err(|error| {
        let text = error.to_string();
        // The position in a text that the user has not seen.
        anyhow!(one_line(text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text)))
    })?;
    let name = tool.name().to_string();
    let toolbox = match entry.get("result") {
        Some(result) => {
            let result = result.as_str().map_or_else(|| result.to_python(), str::to_string);
            toolbox.with(tool, move |_| Ok(result.clone()))
        }
        None => toolbox.with(tool, move |arguments| ask(&name, arguments)),
    };
    toolbox.map_err(|error| anyhow!(one_line(&error.to_string())))
}

/// Has a person type the result of a call; parallel runs take turns.
fn ask(name: &str, arguments: &Json) -> Result<String, ToolFailure> {
    static ASKING: Mutex<()> = Mutex::new(());
    let _turn = ASKING.lock();
    // Where it can't be shown, a user may still type.
    let _ = write!(std::io::stderr(), "{}", one_line(&format!("result of {name}({arguments})? ")));
    let mut line = String::new();
    match std::io::stdin().read_line(&mut line)? {
        0 => Err("nobody answered".into()),
        _ => Ok(line.trim_end_matches(['\r', '\n']).to_string()),
    }
}
