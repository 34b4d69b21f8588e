//! Any text in any split, the first byte of the input says how: the message that the whole text gives.
#![no_main]

use deepseek_v32::chat::{Accumulator, ParseOptions, Start, StreamParser, Version, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &str)| {
    let (seed, text) = input;
    let version = Version::ALL[usize::from(seed) % Version::ALL.len()];
    let start = if seed & 4 == 0 { Start::Reasoning } else { Start::Content };
    let longest = 1 + usize::from(seed >> 3);
    let whole = parse(text, &ParseOptions::new(version, start)).expect("tolerant mode reads anything");

    let mut parser = StreamParser::new(version, start);
    let mut message = Accumulator::new();
    let (mut rest, mut step) = (text, usize::from(seed));
    while !rest.is_empty() {
        step = (step * 5 + 3) % longest + 1;
        let cut = rest.char_indices().nth(step).map_or(rest.len(), |(at, _)| at);
        message.extend(parser.push(&rest[..cut]));
        rest = &rest[cut..];
    }
    message.extend(parser.finish());
    assert_eq!(message.finish(), whole.message);
    assert_eq!(parser.incomplete(), whole.incomplete);
    assert_eq!(parser.dropped(), whole.dropped);
});
