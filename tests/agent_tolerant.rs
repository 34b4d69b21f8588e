//! What a model writes beside its format is read by the agent's model and the server as `parse` reads it.

mod echo_support;

use deepseek_v32::agent::{ChatEvent, ChatModel, ChatRequest};
use deepseek_v32::chat::{Accumulator, Json, Message, ParseOptions, Start, Tool, ToolChoice, Version, parse};
use echo_support::echo;

/// A V3.2 call with parameters: name, value, whether it is a string.
fn call(name: &str, parameters: &[(&str, &str, bool)]) -> String {
    let parameter = |(name, value, string): &(&str, &str, bool)| {
        format!("<｜DSML｜parameter name=\"{name}\" string=\"{string}\">{value}</｜DSML｜parameter>\n")
    };
    let parameters: String = parameters.iter().map(parameter).collect();
    format!(
        "\n\n<｜DSML｜function_calls>\n<｜DSML｜invoke name=\"{name}\">\n{parameters}</｜DSML｜invoke>\n\
         </｜DSML｜function_calls>"
    )
}

fn tool(name: &str, parameter: &str) -> Tool {
    let schema = format!(r#"{{"type": "object", "properties": {{"{parameter}": {{"type": "string"}}}}}}"#);
    Tool::new(name, "", Json::parse(&schema).unwrap())
}

#[test]
fn wrapped_arguments_are_unwrapped_where_the_tool_has_no_such_parameter() {
    let tools = [tool("weather", "city"), tool("run", "input")];
    let wrapped = r#"{"city": "Lisbon"}"#;
    let chat = echo(Version::V32);
    for (written, plain, unwrapped) in [
        (call("weather", &[("arguments", wrapped, false)]), r#"{"arguments": {"city": "Lisbon"}}"#, wrapped),
        (call("weather", &[("input", wrapped, true)]), r#"{"input": "{\"city\": \"Lisbon\"}"}"#, wrapped),
        (call("weather", &[("city", "Lisbon", true)]), wrapped, wrapped),
        (
            call("run", &[("input", wrapped, false)]),
            r#"{"input": {"city": "Lisbon"}}"#,
            r#"{"input": {"city": "Lisbon"}}"#,
        ),
        (
            call("other", &[("arguments", wrapped, false)]),
            r#"{"arguments": {"city": "Lisbon"}}"#,
            r#"{"arguments": {"city": "Lisbon"}}"#,
        ),
    ] {
        let of_message = Message::system("").with_tools(tools.clone());
        for (messages, beside, choice, expected) in [
            (vec![], tools.to_vec(), ToolChoice::Auto, unwrapped),
            (vec![of_message.clone()], vec![], ToolChoice::Auto, unwrapped),
            (vec![], vec![], ToolChoice::Auto, plain),
            // Tools that the model is not told of.
            (vec![of_message], tools.to_vec(), ToolChoice::None, plain),
        ] {
            let known = if expected == unwrapped { tools.to_vec() } else { Vec::new() };
            let messages = [messages, vec![Message::user(&written)]].concat();
            let request =
                ChatRequest { tools: beside, tool_choice: choice, thinking: false, ..ChatRequest::new(messages) };
            let mut deltas = Accumulator::new();
            let response = chat.chat(request, &mut |event| {
                if let ChatEvent::Delta(delta) = event {
                    deltas.push(delta);
                }
            });
            let (streamed, message) = (deltas.finish(), response.unwrap().message);
            let options = ParseOptions { tools: known, ..ParseOptions::new(Version::V32, Start::Content) };
            let batch = parse(&written, &options).unwrap().message;
            for (message, how) in [(&streamed, "streamed"), (&message, "whole"), (&batch, "batch")] {
                let arguments: Vec<_> = message.tool_calls.iter().map(|call| call.arguments.as_str()).collect();
                assert_eq!(arguments, [expected], "{how}: {written}");
                assert_eq!(message.content, "", "{how}: {written}");
            }
        }
    }
}
