//! What a model writes beside its format is read by the agent's model and the server as `parse` reads it.

use crate::echo_support::echo;
use deepseek_v32::chat::{Accumulator, Json, Message, ParseOptions, Start, Tool, ToolChoice, Version, parse};
use deepseek_v32::chat_model::{ChatEvent, ChatModel, ChatRequest, ChatResponse, Finish, LocalChat};

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

/// What was streamed, put together, and the whole answer.
fn answer(chat: &LocalChat, request: ChatRequest) -> (Message, ChatResponse) {
    let mut deltas = Accumulator::new();
    let response = chat.chat(request, &mut |event| {
        if let ChatEvent::Delta(delta) = event {
            deltas.push(delta);
        }
    });
    (deltas.finish(), response.unwrap())
}

fn without_ids(message: &Message) -> Message {
    let mut message = Message { written_ids: None, ..message.clone() };
    message.tool_calls.iter_mut().for_each(|call| call.id = None);
    message
}

#[test]
fn wrapped_arguments_are_unwrapped_where_the_tool_has_no_such_parameter() {
    // Where a schema lets other parameters through, their names are not held.
    let open = |name: &str, parameter: &str| {
        let schema =
            format!(r#"{{"type": "object", "properties": {{"{parameter}": {{}}}}, "additionalProperties": true}}"#);
        Tool::new(name, "", Json::parse(&schema).unwrap())
    };
    let tools = [open("weather", "city"), open("run", "input")];
    let wrapped = r#"{"city": "Lisbon"}"#;
    let chat = echo(Version::V32);
    for (written, unwrapped) in [
        (call("weather", &[("arguments", wrapped, false)]), wrapped),
        (call("weather", &[("input", wrapped, true)]), wrapped),
        (call("weather", &[("city", "Lisbon", true)]), wrapped),
        (call("run", &[("input", wrapped, false)]), r#"{"input": {"city": "Lisbon"}}"#),
    ] {
        let of_message = Message::system("").with_tools(tools.clone());
        for (messages, beside) in [(vec![], tools.to_vec()), (vec![of_message.clone()], vec![])] {
            let messages = [messages, vec![Message::user(&written)]].concat();
            let request = ChatRequest { tools: beside, thinking: false, ..ChatRequest::new(messages) };
            let (streamed, response) = answer(&chat, request);
            let message = response.message;
            let options = ParseOptions::new(Version::V32, Start::Content).with_tools(tools.clone());
            let batch = parse(&written, &options).unwrap().message;
            for (message, how) in [(&streamed, "streamed"), (&message, "whole"), (&batch, "batch")] {
                let arguments: Vec<_> = message.tool_calls.iter().map(|call| call.arguments.as_str()).collect();
                assert_eq!(arguments, [unwrapped], "{how}: {written}");
                assert_eq!(message.content, "", "{how}: {written}");
            }
        }
    }
}

#[test]
fn where_no_tool_is_offered_calls_are_text() {
    let chat = echo(Version::V32);
    let tools = [tool("weather", "city")];
    let question = format!("So: {}", call("weather", &[("city", "Lisbon", true)]));
    for (tools, tool_choice) in [(vec![], ToolChoice::Auto), (tools.to_vec(), ToolChoice::None)] {
        let messages = [Message::user(&question)];
        let request = ChatRequest { tools, tool_choice, thinking: false, ..ChatRequest::new(messages) };
        let (streamed, response) = answer(&chat, request);
        assert_eq!(without_ids(&response.message), Message::assistant(&question));
        assert_eq!(streamed, Message::assistant(&question));
        assert_eq!(response.finish, Finish::Stop);
        assert_eq!(response.text, question);
        assert_eq!((response.dropped.len(), response.call_error), (0, None));
    }
}

/// A call that is not made does not go unsaid.
#[test]
fn what_is_dropped_is_told() {
    let chat = echo(Version::V32);
    let tools = vec![tool("weather", "city")];
    let whole = call("weather", &[("city", "Lisbon", true)]);
    let bad =
        "<｜DSML｜invoke name=\"weather\">\n<｜DSML｜parameter name=\"city\" string=\"true\">Rome</｜DSML｜invoke>\n";
    let written = whole.replacen("<｜DSML｜invoke", &format!("{bad}<｜DSML｜invoke"), 1);
    for (written, calls, dropped) in [(whole, 1, ""), (written, 1, bad.trim_end())] {
        let messages = [Message::user(&written)];
        let request = ChatRequest { tools: tools.clone(), thinking: false, ..ChatRequest::new(messages) };
        let response = answer(&chat, request).1;
        assert_eq!((response.message.tool_calls.len(), response.dropped.concat().trim_end()), (calls, dropped));
    }
}

#[test]
fn names_are_held_to_those_offered() {
    let own = [tool("get_current_weather", "city"), tool("get_current_time", "zone"), tool("x", "y")];
    let names: Vec<_> = own.iter().map(Tool::name).collect();
    let chat = echo(Version::V32);
    for (written, parameter) in [
        (call("search_weather", &[("place", "Lisbon", true)]), "place"),
        (call("get_current", &[("cit", "Lisbon", true)]), "cit"),
        (call("x\" extra=\"", &[("y", "Lisbon", true)]), "y"),
        (call("get_current_weatherman", &[("city2", "Lisbon", true)]), "city2"),
    ] {
        let messages = [Message::user(&written)];
        let request =
            ChatRequest { tools: own.to_vec(), thinking: false, max_tokens: Some(200), ..ChatRequest::new(messages) };
        let (_, response) = answer(&chat, request);
        let mut named = response.text.split("<｜DSML｜invoke name=\"").skip(1);
        let name = named.next().unwrap().split('"').next().unwrap();
        assert!(names.contains(&name), "{written} became {}", response.text);
        let held = format!("parameter name=\"{parameter}\"");
        let offered = own.iter().find(|tool| tool.name() == name).unwrap().parameters().unwrap();
        let known = offered.get("properties").unwrap().get(parameter).is_some();
        assert!(known || !response.text.contains(&held), "{written} became {}", response.text);
    }
    // What keeps to the names is left alone, whatever else it says.
    let written = format!("a < b <｜ {}", call("get_current_time", &[("zone", "invoke name=\"z\"", true)]));
    let request = ChatRequest { tools: own.to_vec(), thinking: false, ..ChatRequest::new([Message::user(&written)]) };
    assert_eq!(answer(&chat, request).1.text, written);
}

#[test]
fn stop_strings_are_those_of_the_content() {
    let chat = echo(Version::V32);
    let tools = vec![tool("weather", "city")];
    let calls = call("weather", &[("city", "Lisbon\nSTOP", true)]);
    for (written, stop, content, arguments, finish) in [
        ("one STOP two".to_string(), "STOP", "one ", None, Finish::Stop),
        (format!("one{calls}"), "STOP", "one", Some(r#"{"city": "Lisbon\nSTOP"}"#), Finish::ToolCalls),
        (format!("one{calls}"), "\n", "one", Some(r#"{"city": "Lisbon\nSTOP"}"#), Finish::ToolCalls),
        (format!("one STO{calls}"), "STOP", "one STO", Some(r#"{"city": "Lisbon\nSTOP"}"#), Finish::ToolCalls),
        (format!("one STOP{calls}"), "STOP", "one ", None, Finish::Stop),
        ("one STO".to_string(), "STOP", "one STO", None, Finish::Stop),
    ] {
        let request = ChatRequest {
            tools: tools.clone(),
            thinking: false,
            stop: vec![stop.to_string()],
            ..ChatRequest::new([Message::user(&written)])
        };
        let (streamed, response) = answer(&chat, request);
        let message = without_ids(&response.message);
        assert_eq!(message, streamed, "{written}");
        assert_eq!(message.content, content, "{written}");
        let made: Vec<_> = message.tool_calls.iter().map(|call| call.arguments.as_str()).collect();
        assert_eq!(made, arguments.into_iter().collect::<Vec<_>>(), "{written}");
        assert_eq!(response.finish, finish, "{written}");
    }
    // Thinking of it does not end the answer.
    let written = "I STOP here.</think>one STOP two";
    let request = ChatRequest { stop: vec!["STOP".to_string()], ..ChatRequest::new([Message::user(written)]) };
    let message = answer(&chat, request).1.message;
    assert_eq!((message.reasoning_content.as_deref(), message.content.as_str()), (Some("I STOP here."), "one "));
}

#[test]
fn a_turn_that_the_model_begins_ends_its_own() {
    let chat = echo(Version::V32);
    let user = chat.tokenizer().token_to_id("<｜User｜>").unwrap();
    let mut request = ChatRequest { thinking: false, ..ChatRequest::new([Message::user("Hi.")]) };
    request.params.logit_bias.insert(user, 100.0);
    let (streamed, response) = answer(&chat, request);
    assert_eq!((streamed.content.as_str(), response.message.content.as_str()), ("", ""));
    assert_eq!(response.message.written_ids, Some(vec![]));
    assert_eq!(response.finish, Finish::Stop);
}
