//! What a grammar lets pass, byte by byte.

use super::*;

#[test]
fn long_strings_have_bounds() {
    let (tokenizer, compiler) = (tokenizer(), compiler());
    let schema = |bounds: Value| json!({"type": "object", "properties": {"s": bounds}, "required": ["s"]});
    for (least, most) in [(0, 64), (0, 100), (1, 255), (100, 200), (0, 1000), (1000, 1200), (0, 20_000)] {
        let bounds = json!({"type": "string", "minLength": least, "maxLength": most});
        let pattern = json!({"type": "string", "pattern": format!("^.{{{least},{most}}}$")});
        for bounds in [bounds, pattern].iter().take(if most > 1000 { 1 } else { 2 }) {
            let tools = [tool("f", &schema(bounds.clone()))];
            let constraint = Case::new(ToolChoice::Required).constraint(&compiler, &tools);
            let said = |length: usize| {
                let value: String = "a<b </".chars().cycle().take(length).collect();
                walk(&*constraint, &tokenizer, &block(&[&call("f", &[("s", true, &value)])]))
            };
            let (shorter, longer) = (least.max(1) - 1, most + 1);
            assert_eq!(said(least.max(3)), Ok(()), "{bounds}");
            assert!(most > 1000 || said(most) == Ok(()), "{bounds}");
            assert!(least == 0 || said(shorter).is_err(), "{bounds}");
            assert!(most > 1000 || said(longer).is_err(), "{bounds}");
        }
    }
}

#[test]
fn the_format_is_kept_to_the_byte() {
    let (tokenizer, compiler) = (tokenizer(), compiler());
    let tools: Vec<Tool> = schemas().iter().map(|(name, schema)| tool(name, schema)).collect();
    let auto = Case::new(ToolChoice::Auto).constraint(&compiler, &tools);
    let yes = |text: &str| walk(&*auto, &tokenizer, text).unwrap_or_else(|error| panic!("{text}\nrefuses {error}"));
    let no = |text: &str| assert!(walk(&*auto, &tokenizer, text).is_err(), "accepts {text}");
    let city = call("city", &[("city", true, "Oslo")]);

    yes("");
    yes("Hello.\n\n");
    yes("a < b, <b>, </thin, ｜ and \n\n<｜x");
    no("<think>");
    no("a</think>");
    no("a<｜User｜>");
    yes(&block(&[&city]));
    yes(&format!("Let me see.{}", block(&[&city, &call("nothing", &[]), &city])));
    yes(&block(&[&call("city", &[("city", true, "")])]));
    yes(&block(&[&call("city", &[("city", true, "a\n\n</b> <｜DSML｜invoke name=\"x\">\n  \"\\")])]));
    yes(&block(&[&call("optional", &[])]));
    yes(&block(&[&call("optional", &[("b", false, "3")])]));
    yes(&block(&[&call("optional", &[("a", true, "x"), ("c", false, "true")])]));
    yes(&block(&[&call("open", &[("first", false, "1"), ("more", true, "x"), ("1st", false, "-7")])]));
    yes(&block(&[&call("anything", &[("x", false, "{\"a\": [1, 2.5e-3, null], \"b\": {}}"), ("y", true, "z")])]));
    yes(&block(&[&call(
        "references",
        &[("tree", false, "{\"value\": 1, \"children\": [{\"value\": 2}]}"), ("name", true, "x")],
    )]));

    no("\n<｜DSML｜function_calls>");
    no("x<｜DSML｜function_calls>");
    no(&block(&[]));
    no(&block(&[&city]).replace("\n</｜DSML｜function_calls>", ""));
    no(&format!("{}\n", block(&[&city])));
    no(&format!("{}{}", block(&[&city]), block(&[&city])));
    no(&block(&[&city.replace("invoke name=\"city\"", "invoke name=\"town\"")]));
    no(&block(&[&city.replace("\">\n", "\">\n\n")]));
    no(&block(&[&city.replace("string=\"true\"", "string=\"false\"")]));
    no(&block(&[&format!("{city}\n"), &city]));
    no(&block(&[&call("city", &[])]));
    no(&block(&[&call("city", &[("town", true, "Oslo")])]));
    no(&block(&[&call("city", &[("city", true, "Oslo"), ("city", true, "Rome")])]));
    no(&block(&[&call("city", &[("city", true, "Oslo"), ("x", true, "y")])]));
    no(&block(&[&call("optional", &[("b", true, "3")])]));
    no(&block(&[&call("optional", &[("b", false, "\"3\"")])]));
    no(&block(&[&call("optional", &[("b", false, "3"), ("a", true, "x")])]));
    no(&block(&[&call("optional", &[("b", false, " 3")])]));
    no(&block(&[&call("open", &[("x", true, "1"), ("first", false, "1")])]));
    no(&block(&[&call("open", &[("x", true, "1"), ("x", true, "2")])]));
    no(&block(&[&call("anything", &[("x", false, "\"text\"")])]));
    no(&block(&[&call("anything", &[("x", false, "{\"a\":1}")])]));
    no(&block(&[&call("anything", &[("x", false, "[\"</｜DSML｜parameter>\n\"]")])]));
    yes(&block(&[&call("anything", &[("x", false, "[\"<｜DSML｜parameter>\", \"｜DSML｜\"]")])]));
    // A tolerant reader would take these for the end of the call.
    no(&block(&[&call("anything", &[("x", false, "[\"</｜DSML｜invoke>\"]")])]));
    no(&block(&[&call("city", &[("city", true, "a</｜DSML｜invoke>\n</｜DSML｜function_calls>")])]));
    // A name may come again in another call.
    let open = call("open", &[("x", true, "1")]);
    yes(&block(&[&open, &open]));

    let single = Case { parallel: false, ..Case::new(ToolChoice::Auto) }.constraint(&compiler, &tools);
    assert!(walk(&*single, &tokenizer, &block(&[&city])).is_ok());
    assert!(walk(&*single, &tokenizer, &block(&[&city, &city])).is_err());

    let none = Case::new(ToolChoice::None).constraint(&compiler, &tools);
    assert!(walk(&*none, &tokenizer, "No tools.\n\n").is_ok());
    assert!(walk(&*none, &tokenizer, &block(&[&city])).is_err());

    let required = Case { thinking: true, ..Case::new(ToolChoice::Required) }.constraint(&compiler, &tools);
    assert!(walk(&*required, &tokenizer, &format!("Hm.\n\n</think>{}", block(&[&city]))).is_ok());
    assert!(walk(&*required, &tokenizer, &format!("</think>{}", block(&[&city]))).is_ok());
    assert!(walk(&*required, &tokenizer, &format!("</think>Well.{}", block(&[&city]))).is_err());
    assert!(walk(&*required, &tokenizer, "</think>").is_err());
    assert!(walk(&*required, &tokenizer, "Hm.").is_err());
    assert!(walk(&*required, &tokenizer, &block(&[&city])).is_err());
}

#[test]
fn content_is_json_to_the_end() {
    let (tokenizer, compiler) = (tokenizer(), compiler());
    let schema = json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {"$ref": "#/$defs/b"}}, "required": ["a"], "additionalProperties": false, "$defs": {"b": {"type": "integer"}}});
    let format = json!({"type": "json_schema", "json_schema": {"name": "x", "schema": schema}});
    let format = ResponseFormat::from_json(&Json::from(&format)).unwrap();
    let case = Case { thinking: true, format, ..Case::new(ToolChoice::Auto) };
    let city = tool("city", &schemas()[1].1);
    let constraint = case.constraint(&compiler, &[city]);
    let walk = |text: &str| walk(&*constraint, &tokenizer, text);
    for text in ["{\"a\": \"x\"}", "{\"a\":\"\",\"b\":-3}", "{\n  \"a\": \"<\\\"｜DSML\",\n  \"b\": 1\n}"] {
        walk(&format!("Hm.</think>{text}")).unwrap();
    }
    walk(&format!("</think>{}", block(&[&call("city", &[("city", true, "Oslo")])]))).unwrap();
    for text in [
        "",
        "x",
        "{\"a\": \"x\"",
        "{\"b\": 1}",
        "{\"a\": \"x\", \"c\": 1}",
        "{\"a\": \"｜DSML｜\"}",
        "{\"a\": \"x<think>\"}",
        "{\"a\": \"x\"} y",
        "```json\n{\"a\": \"x\"}\n```",
    ] {
        assert!(walk(&format!("</think>{text}")).is_err(), "accepts {text}");
    }
    let call = block(&[&call("city", &[("city", true, "Oslo")])]);
    assert!(walk(&format!("</think>{{\"a\": \"x\"}}{call}")).is_err());
}
