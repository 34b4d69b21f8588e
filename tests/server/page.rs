//! The page: its structure, and what it decides, where there is a Node.js to run it.
#![cfg(feature = "server")]

use std::process::Command;

use crate::server_support::http::get;
use crate::server_support::tiny;

const LOGIC: &str = include_str!("../../src/server/page/logic.js");
const PAGE: &str = include_str!("../../src/server/page/page.js");

#[test]
fn the_page_is_whole_and_takes_nothing_from_elsewhere() {
    let page = get(tiny(), "/").body;
    assert!(page.contains(LOGIC) && page.contains(PAGE) && !page.contains("{{"));
    for id in PAGE.split("$(\"").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        assert_eq!(page.matches(&format!("id=\"{id}\"")).count(), 1, "{id}");
    }
    for name in ["stays", "toolsOf", "speedOf", "notesOf", "lostOf", "dataOf"] {
        assert!(LOGIC.contains(&format!("function {name}(")), "{name}");
    }
    assert_eq!(page.matches("<script").count(), 1);
    // Logic knows no page.
    assert!(!LOGIC.contains("document") && !LOGIC.contains("$("));
}

#[test]
fn what_a_message_needs_is_checked_before_it_is_taken() {
    let submit = &PAGE[PAGE.find("addEventListener(\"submit\"").unwrap()..];
    let (checked, taken) = (submit.find("valid()").unwrap(), submit.find("$(\"input\").value = \"\"").unwrap());
    assert!(checked < taken);
    // What an answer says of a call that could not be read is drawn with it.
    assert!(PAGE.contains("lostOf(choice.tool_call_error, choice.dropped"));
    assert!(PAGE.contains("element(this.article, \"p\", \"error\", this.lost.why)"));
    // An error of an answer stands with the answer alone.
    let caught = &PAGE[PAGE.find("} catch (error) {\n    stopped = true;").unwrap()..];
    let caught = &caught[..caught.find("finally").unwrap()];
    assert!(caught.contains("element(drawn.article, \"p\", \"error\"") && !caught.contains("fail("), "{caught}");
}

/// The checks run in Node.js if there is one; the page needs none.
#[test]
fn the_pages_decisions_are_right() {
    let checks = r#"
        const assert = require("node:assert");
        // A tall message was added at the end: nothing was scrolled, and the page stays.
        let staying = true;
        assert.equal(staying, true);
        // The scroll to the end is told after more was added: it went down, so the page stays.
        staying = stays(staying, 100, 900, 5000);
        assert.equal(staying, true);
        // The user scrolls up, scrolls down a little, and returns to the end.
        staying = stays(staying, 900, 400, 600);
        assert.equal(staying, false);
        staying = stays(staying, 400, 450, 550);
        assert.equal(staying, false);
        staying = stays(staying, 450, 900, 20);
        assert.equal(staying, true);
        // Content that shrinks leaves the view at the end.
        assert.equal(stays(true, 900, 500, 0), true);

        assert.equal(toolsOf("  \n"), undefined);
        assert.deepEqual(toolsOf("[{\"a\": 1}]"), [{ a: 1 }]);
        assert.throws(() => toolsOf("[{"), /not JSON/);
        for (const text of ["{}", "3", "\"a\"", "null"]) assert.throws(() => toolsOf(text), /not a JSON list/);

        // One piece for each token: those after the first, in the time after it.
        assert.equal(speedOf(11, 11, 1000, 2000), 10);
        // A call of 60 tokens in three pieces within a millisecond.
        assert.equal(speedOf(60, 3, 1000, 1000.8), null);
        assert.equal(speedOf(60, 1, 1000, 1000), null);
        assert.equal(speedOf(2, 2, 1000, 1000), null);
        const call = { tokens: 60, pieces: 3, began: 0, first: 3000, last: 3000.8, ended: 3001, thought: 0,
            prompt: 7, reason: "tool_calls", stopped: false };
        assert.equal(notesOf(call), "60 tokens in 3.0 s · prompt 7");
        const text = { ...call, pieces: 60, first: 100, last: 3050, thought: 9, reason: "length" };
        assert.equal(notesOf(text),
            "first token 100 ms · 20.0 tokens/s · 60 tokens · 9 of them reasoning · prompt 7 · cut off: no more tokens were allowed");
        assert.equal(notesOf({ ...call, tokens: 0, pieces: 0, first: null, last: undefined, prompt: undefined, stopped: true }),
            "0 tokens in 3.0 s · stopped");

        // A call that could not be read: its text stands in the content, or is told.
        assert.equal(lostOf(undefined, undefined, "Hi"), null);
        assert.deepEqual(lostOf("no name", ["<x>"], "So: <x>"), { why: "A call could not be read: no name.", text: "" });
        assert.deepEqual(lostOf("no name", ["<x>", "<y>"], ""), { why: "A call could not be read: no name.", text: "<x>\n<y>" });
        assert.deepEqual(lostOf(null, ["<x>"], "a"), { why: "Left out of the answer:", text: "<x>" });

        // Events in any pieces.
        const stream = ": keep-alive\n\ndata: {\"a\": 1}\n\ndata:{}\n\nevent: x\ndata: [DONE]\n\n";
        for (let size = 1; size <= stream.length; size++) {
            let rest = "", found = [];
            for (let at = 0; at < stream.length; at += size) {
                const next = dataOf(rest + stream.slice(at, at + size));
                found.push(...next.data);
                rest = next.rest;
            }
            assert.deepEqual(found, ["{\"a\": 1}", "{}", "[DONE]"]);
            assert.equal(rest, "");
        }
    "#;
    let run = Command::new("node").arg("-e").arg(format!("{LOGIC}\n{checks}")).output();
    match run {
        Err(error) => eprintln!("not run, there is no Node.js: {error}"),
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
    }
}
