//! Any text in any split, the first byte of the input says how: the message that the whole text gives, and the same
//! events in the same order.
#![no_main]

use deepseek_v32::chat::{Accumulator, Delta, ParseOptions, Start, StreamParser, Version, parse};
use libfuzzer_sys::fuzz_target;

/// Events with neighbours of one kind put together.
fn coalesced(deltas: Vec<Delta>) -> Vec<Delta> {
    let mut whole: Vec<Delta> = Vec::new();
    for delta in deltas {
        match (whole.last_mut(), delta) {
            (Some(Delta::Reasoning(text)), Delta::Reasoning(more))
            | (Some(Delta::Content(text)), Delta::Content(more)) => text.push_str(&more),
            (
                Some(Delta::ToolCallArguments { index, fragment }),
                Delta::ToolCallArguments { index: same, fragment: more },
            ) if *index == same => fragment.push_str(&more),
            (_, delta) => whole.push(delta),
        }
    }
    whole
}

fuzz_target!(|input: (u8, &str)| {
    let (seed, text) = input;
    let version = Version::ALL[usize::from(seed) % Version::ALL.len()];
    let start = if seed & 4 == 0 { Start::Reasoning } else { Start::Content };
    let longest = 1 + usize::from(seed >> 3);
    let whole = parse(text, &ParseOptions::new(version, start)).expect("tolerant mode reads anything");

    let mut parser = StreamParser::new(version, start);
    let mut deltas = Vec::new();
    let (mut rest, mut step) = (text, usize::from(seed));
    while !rest.is_empty() {
        step = (step * 5 + 3) % longest + 1;
        let cut = rest.char_indices().nth(step).map_or(rest.len(), |(at, _)| at);
        deltas.extend(parser.push(&rest[..cut]));
        rest = &rest[cut..];
    }
    deltas.extend(parser.finish());
    let mut message = Accumulator::new();
    message.extend(deltas.clone());
    assert_eq!(message.finish(), whole.message);
    assert_eq!(parser.incomplete(), whole.incomplete);
    assert_eq!(parser.dropped(), whole.dropped);

    let mut at_once = StreamParser::new(version, start);
    let mut events = at_once.push(text);
    events.extend(at_once.finish());
    assert_eq!(coalesced(deltas), coalesced(events));
});
