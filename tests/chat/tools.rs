//! Tools: choices, and calls that are checked before they are made.

use deepseek_v32::chat::{Json, Tool, ToolCall, ToolChoice, ToolError, ToolSet};

fn call(name: &str, arguments: &str) -> ToolCall {
    ToolCall { id: None, name: name.to_string(), arguments: arguments.to_string() }
}

fn weather() -> Tool {
    let schema = r#"{"type": "object", "properties": {"city": {"type": "string", "minLength": 1},
        "days": {"type": "integer", "minimum": 1}}, "required": ["city"], "additionalProperties": false}"#;
    Tool::new("get_weather", "The weather.", Json::parse(schema).unwrap())
}

#[test]
fn choices() {
    for (choice, text) in [
        (ToolChoice::None, r#""none""#),
        (ToolChoice::Auto, r#""auto""#),
        (ToolChoice::Required, r#""required""#),
        (ToolChoice::Named("f".to_string()), r#"{"type":"function","function":{"name":"f"}}"#),
    ] {
        assert_eq!(serde_json::to_string(&choice).unwrap(), text);
        assert_eq!(serde_json::from_str::<ToolChoice>(text).unwrap(), choice);
    }
    for bad in [r#""any""#, "null", "{}", r#"{"type":"function"}"#, r#"{"type":"tool","function":{"name":"f"}}"#] {
        let error = serde_json::from_str::<ToolChoice>(bad).unwrap_err().to_string();
        assert!(error.contains("expected \"none\""), "{error}");
    }
    let tools = [weather()];
    assert!(ToolChoice::None.shown(&tools).is_empty());
    assert_eq!(ToolChoice::Auto.shown(&tools), tools);
    let told = |choice: ToolChoice, tools: &[Tool]| choice.check_tools(tools).unwrap_err().to_string();
    assert_eq!(told(ToolChoice::Required, &[]), "a tool call is required, but there are no tools");
    let named = ToolChoice::Named("f".to_string());
    assert_eq!(told(named, &tools), "there is no tool \"f\"; the tools are get_weather");
    assert!(ToolChoice::Named("get_weather".to_string()).check_tools(&tools).is_ok());

    let made = [call("f", "{}")];
    assert!(ToolChoice::Auto.check_calls(&[]).is_ok() && ToolChoice::Auto.check_calls(&made).is_ok());
    assert!(ToolChoice::Required.check_calls(&made).is_ok() && ToolChoice::None.check_calls(&[]).is_ok());
    let error = ToolChoice::None.check_calls(&made).unwrap_err();
    assert_eq!(error.to_string(), "the answer calls f, expected none");
    let error = ToolChoice::Required.check_calls(&[]).unwrap_err();
    assert_eq!(error.to_string(), "the answer calls none, expected at least one tool");
    assert!(ToolChoice::Named("g".to_string()).check_calls(&made).is_err());
}

#[test]
fn calls() {
    let tools = ToolSet::new([weather()]).unwrap();
    let arguments = tools.check(&call("get_weather", r#"{"city": "Oslo", "days": 2}"#)).unwrap();
    assert_eq!(arguments.get("city").and_then(Json::as_str), Some("Oslo"));
    let told = |name: &str, arguments: &str| tools.check(&call(name, arguments)).unwrap_err().to_string();
    assert_eq!(told("f", "{}"), "there is no tool \"f\"; the tools are get_weather");
    assert_eq!(told("get_weather", "[]"), "the arguments of get_weather are the JSON array, expected a JSON object");
    assert!(told("get_weather", "{").starts_with("the arguments of get_weather are no JSON (EOF"));
}

#[test]
fn definitions() {
    let problem = |tools: &[Tool]| ToolSet::new(tools).unwrap_err();
    assert!(matches!(problem(&[weather(), weather()]), ToolError::Definition { .. }));
    assert!(matches!(problem(&[Tool::new("", "", Json::Null)]), ToolError::Definition { .. }));
    assert!(ToolSet::new([Tool::new("f", "", Json::Null)]).unwrap().check(&call("f", "{}")).is_ok());
}

#[cfg(feature = "schema")]
mod schema {
    use super::*;
    use schemars::JsonSchema;
    use serde::Deserialize;

    #[test]
    fn arguments_follow_the_schema() {
        let tools = ToolSet::new([weather()]).unwrap();
        let told = |arguments: &str| tools.check(&call("get_weather", arguments)).unwrap_err().to_string();
        let head = "the arguments of get_weather do not follow its schema: ";
        assert_eq!(told("{}"), format!("{head}\"city\" is a required property"));
        let text = told(r#"{"city": "", "days": "2", "when": 1}"#);
        assert!(text.contains("at /days: \"2\" is not of type \"integer\""), "{text}");
        assert!(text.contains("at /city: ") && text.contains("'when'"), "{text}");
        let schema = Json::parse(r#"{"type": "objekt"}"#).unwrap();
        assert!(ToolSet::new([Tool::new("f", "", schema)]).is_err());
    }

    /// Where to send it.
    #[derive(JsonSchema, Deserialize)]
    #[allow(dead_code)]
    struct Order {
        /// The code of the order.
        code: String,
        /// How fast.
        speed: Option<Speed>,
    }

    #[derive(JsonSchema, Deserialize)]
    #[serde(rename_all = "lowercase")]
    #[allow(dead_code)]
    enum Speed {
        Slow,
        Fast,
    }

    #[test]
    fn tools_from_types() {
        let tool = Tool::from_type::<Order>("send", "Sends an order.");
        assert_eq!((tool.name(), tool.description()), ("send", "Sends an order."));
        let code = tool.parameters().and_then(|schema| schema.get("properties")).and_then(|p| p.get("code")).unwrap();
        assert_eq!(code.get("description").and_then(Json::as_str), Some("The code of the order."));
        assert!(!tool.function().to_string().contains("$ref"), "{}", tool.function());
        let tools = ToolSet::new([tool]).unwrap();
        assert!(tools.check(&call("send", r#"{"code": "A1", "speed": "fast"}"#)).is_ok());
        assert!(tools.check(&call("send", r#"{"code": "A1", "speed": "now"}"#)).is_err());
        assert!(tools.check(&call("send", r#"{"speed": "slow"}"#)).is_err());
    }
}
