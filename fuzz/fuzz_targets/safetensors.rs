//! Any bytes as a safetensors file: an error, or entries that cover the data exactly.
#![no_main]

use std::path::Path;

use deepseek_v32::weights::parse_header;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    // The same as a header of the right length with data behind it, so that the length field need not be guessed.
    let (header, data) = bytes.split_at(bytes.len() - bytes.len().min(16));
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header);
    file.extend(data);
    check(&file);
});

fn check(bytes: &[u8]) {
    match parse_header(bytes, bytes.len() as u64) {
        Ok(header) => {
            let mut entries: Vec<_> = header.tensors.values().collect();
            entries.sort_by_key(|entry| entry.start);
            for pair in entries.windows(2) {
                assert_eq!(pair[0].end, pair[1].start);
            }
            if let Some(last) = entries.last() {
                assert_eq!(last.end, bytes.len());
            }
        }
        Err(error) => assert!(!error.at(Path::new("file")).to_string().contains('\n')),
    }
}
