//! Safetensors files and indexes that cannot be read.

use super::*;

#[test]
fn truncated_files_are_named() {
    let files = bf16_files();
    let dir = tempfile::tempdir().unwrap();
    files.write_single(dir.path());
    let path = dir.path().join("model.safetensors");
    let whole = fs::read(&path).unwrap();
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    for length in [0, 1, 7, 8, 9, header - 1] {
        fs::write(&path, &whole[..length]).unwrap();
        refused(dir.path(), &["model.safetensors", "truncated"]);
    }
    let last = files.tensors.keys().next_back().unwrap();
    for (length, tensor) in [(header, "lm_head.weight"), (header + 1, "lm_head.weight"), (whole.len() - 1, last)] {
        fs::write(&path, &whole[..length]).unwrap();
        refused(dir.path(), &["model.safetensors", tensor, "truncated"]);
    }
    let longer = [whole, vec![0; 3]].concat();
    fs::write(&path, longer).unwrap();
    refused(dir.path(), &["model.safetensors", "3 bytes after the last tensor"]);
}

#[test]
fn what_is_no_safetensors_file_is_named() {
    for (bytes, part) in [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0".to_vec(), "Git LFS pointer"),
        (u64::MAX.to_le_bytes().to_vec(), "absurd"),
        (with_header("", b""), "invalid JSON"),
        (with_header("{", b""), "invalid JSON"),
        (with_header("[]", b""), "object"),
        (with_header("\"\\ud800\"", b""), "invalid JSON"),
        (with_header(&"[".repeat(100_000), b""), "recursion"),
        ([2u64.to_le_bytes().as_slice(), &[0xff, 0xfe]].concat(), "UTF-8"),
        (with_header("{\"__metadata__\": []}", b""), "__metadata__"),
        (with_header("{\"__metadata__\": {\"a\": 1}}", b""), "__metadata__"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        bf16_files().write_single(dir.path());
        fs::write(dir.path().join("model.safetensors"), bytes).unwrap();
        refused(dir.path(), &["model.safetensors", part]);
    }
}

#[test]
fn header_entries_must_make_sense() {
    for (field, value, part) in [
        ("dtype", json!("F33"), "F33"),
        ("dtype", json!(32), "dtype"),
        ("dtype", Value::Null, "dtype"),
        ("shape", json!([-136]), "shape"),
        ("shape", json!("136"), "shape"),
        ("shape", json!([136.5]), "shape"),
        ("shape", json!([0]), "zero"),
        ("shape", json!([135]), "bytes"),
        ("shape", json!([u64::MAX, 2]), "overflows"),
        ("shape", json!([u64::MAX]), "overflows"),
        ("shape", json!([1, 1, 1, 1, 1, 1, 1, 1, 136]), "9 dimensions"),
        ("data_offsets", json!([0]), "data_offsets"),
        ("data_offsets", json!([0, 1, 2]), "data_offsets"),
        ("data_offsets", json!([10, 4]), "backwards"),
        ("data_offsets", json!([-4, 540]), "data_offsets"),
        ("data_offsets", json!([0, 543]), "bytes"),
        ("data_offsets", json!([0, u64::MAX]), "bytes"),
        ("data_offsets", json!([u64::MAX - 544, u64::MAX]), "truncated"),
    ] {
        refused_file(|header, _| header[NORM][field] = value.clone(), &[NORM, part]);
    }
    for field in ["dtype", "shape", "data_offsets"] {
        refused_file(|header, _| drop(header[NORM].as_object_mut().unwrap().remove(field)), &[NORM, field, "missing"]);
    }
    refused_file(|header, _| header[NORM] = json!([1, 2]), &[NORM, "not an object"]);
}

#[test]
fn tensors_must_cover_the_file_exactly() {
    let offset = |header: &Value, name: &str| header[name]["data_offsets"][0].as_u64().unwrap();
    // One tensor moved onto another's bytes.
    refused_file(
        |header, _| {
            let start = offset(header, "lm_head.weight");
            header[NORM]["data_offsets"] = json!([start, start + 544]);
        },
        &["overlaps"],
    );
    refused_file(
        |header, _| {
            let start = offset(header, NORM);
            header[NORM]["data_offsets"] = json!([start - 2, start + 542]);
        },
        &[NORM, "overlaps"],
    );
    // Bytes of no tensor, before and between.
    refused_file(
        |header, data| {
            for (name, entry) in header.as_object_mut().unwrap() {
                if name != "__metadata__" {
                    let offsets = [&entry["data_offsets"][0], &entry["data_offsets"][1]];
                    entry["data_offsets"] = json!(offsets.map(|offset| offset.as_u64().unwrap() + 16));
                }
            }
            data.splice(0..0, [0; 16]);
        },
        &["lm_head.weight", "16 unused bytes"],
    );
    refused_file(|header, _| drop(header.as_object_mut().unwrap().remove(UP)), &["unused bytes"]);
    refused_file(
        |header, data| {
            let start = offset(header, NORM) as usize;
            data.truncate(start + 200);
        },
        &[NORM, "truncated"],
    );
}

#[test]
fn a_name_twice_in_a_header_is_refused() {
    let files = bf16_files();
    let dir = tempfile::tempdir().unwrap();
    files.write_single(dir.path());
    let path = dir.path().join("model.safetensors");
    let (header, data) = split_file(&fs::read(&path).unwrap());
    let twice = header.to_string().replacen('{', &format!("{{\"{NORM}\":{},", header[NORM]), 1);
    fs::write(&path, with_header(&twice, &data)).unwrap();
    refused(dir.path(), &["model.safetensors", NORM, "duplicate"]);
}

// ---- index and shards

#[test]
fn indexes_must_be_well_formed() {
    for (text, part) in [
        ("", "invalid JSON"),
        ("[]", "weight_map"),
        ("{}", "weight_map"),
        ("{\"weight_map\": []}", "weight_map"),
        ("{\"weight_map\": {}}", "empty"),
        ("{\"weight_map\": {\"a\": 1}}", "`a`"),
        ("{\"weight_map\": {\"a\": \"x.safetensors\", \"a\": \"y.safetensors\"}}", "duplicate key `a`"),
        ("{\"weight_map\": {\"a\": \"../x.safetensors\"}}", "../x.safetensors"),
        ("{\"weight_map\": {\"a\": \"/etc/x.safetensors\"}}", "/etc/x.safetensors"),
        ("{\"weight_map\": {\"a\": \"b/x.safetensors\"}}", "b/x.safetensors"),
        ("{\"weight_map\": {\"a\": \"..\"}}", ".."),
        ("{\"weight_map\": {\"a\": \"\"}}", "`a`"),
        ("{\"weight_map\": {\"a\": \"x.bin\"}}", "x.bin"),
        ("{\"weight_map\": {\"a\": \"x\\u0000.safetensors\"}}", "`a`"),
        ("{\"weight_map\": {\"a\": \"gone.safetensors\"}}", "gone.safetensors"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        fp8_files().write_sharded(dir.path(), 2);
        fs::write(dir.path().join("model.safetensors.index.json"), text).unwrap();
        refused(dir.path(), &["model.safetensors.index.json", part]);
    }
}

#[test]
fn index_and_shards_must_agree() {
    let second = shard_name(1, 3);
    refused_shards(
        |dir, _| fs::remove_file(dir.join(&second)).unwrap(),
        &["model.safetensors.index.json", &second, "not in the directory"],
    );
    refused_shards(|_, map| drop(map.remove(NORM)), &[".safetensors", NORM, "index does not name it"]);
    refused_shards(
        |_, map| drop(map.insert("model.extra.weight".to_string(), json!(second))),
        &[&second, "model.extra.weight", "does not have it"],
    );
    let moved = |_: &Path, map: &mut serde_json::Map<String, Value>| {
        let other = if map[NORM] == json!(second) { shard_name(0, 3) } else { second.clone() };
        map.insert(NORM.to_string(), json!(other));
    };
    refused_shards(moved, &[".safetensors", NORM, "index places it in"]);
    refused_shards(
        |_, map| map.values_mut().filter(|shard| **shard == json!(second)).for_each(|s| *s = json!(shard_name(0, 3))),
        &[&shard_name(0, 3), "does not have it"],
    );
    // One shard spoilt.
    refused_shards(|dir, _| fs::write(dir.join(&second), b"").unwrap(), &[&second, "truncated"]);
    refused_shards(
        |dir, _| {
            let bytes = fs::read(dir.join(&second)).unwrap();
            fs::write(dir.join(&second), &bytes[..bytes.len() - 1]).unwrap();
        },
        &[&second, "truncated"],
    );
    // One tensor in two shards.
    refused_shards(
        |dir, map| {
            let tensor = RawTensor::new("F32", &[136], 1);
            let name = NORM.to_string();
            fs::write(dir.join("another.safetensors"), safetensors_file([(&name, &tensor)].into_iter())).unwrap();
            map.insert("model.extra.weight".to_string(), json!("another.safetensors"));
        },
        &["another.safetensors", NORM, "index places it in"],
    );
}

#[test]
fn a_tensor_missing_from_all_shards_names_the_index() {
    let mut files = fp8_files();
    files.tensors.remove(EXPERT);
    files.tensors.remove(&format!("{EXPERT}_scale_inv"));
    let dir = tempfile::tempdir().unwrap();
    files.write_sharded(dir.path(), 3);
    refused(dir.path(), &["model.safetensors.index.json", EXPERT, "missing"]);
}

proptest! {
    #[test]
    fn any_header_is_an_answer_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200), len in any::<u64>()) {
        let _ = parse_header(&bytes, bytes.len() as u64);
        let _ = parse_header(&bytes, len);
        let _ = parse_header(&with_header(&String::from_utf8_lossy(&bytes), &[0; 8]), len);
    }

    #[test]
    fn any_entry_is_an_answer_or_an_error(
        dtype in proptest::sample::select(vec!["F32", "BF16", "F8_E4M3", "F4", "F6_E2M3", "U8", "X"]),
        shape in proptest::collection::vec(prop_oneof![0u64..5, any::<u64>()], 0..5),
        begin in prop_oneof![0u64..40, any::<u64>()],
        end in prop_oneof![0u64..40, any::<u64>()],
        data in 0usize..40,
    ) {
        let header = json!({"a": {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}});
        let file = with_header(&header.to_string(), &vec![0; data]);
        if let Ok(header) = parse_header(&file, file.len() as u64) {
            let entry = &header.tensors["a"];
            prop_assert_eq!(entry.end - entry.start, data);
            prop_assert_eq!(entry.end, file.len());
        }
    }

    #[test]
    fn any_index_is_an_answer_or_an_error(text in "\\PC{0,100}", name in "\\PC{0,20}") {
        let _ = parse_index(&text);
        let index = json!({"weight_map": {"a": name}}).to_string();
        if let Ok(index) = parse_index(&index) {
            prop_assert_eq!(Path::new(&index.weight_map["a"]).components().count(), 1);
        }
    }

    #[test]
    fn a_flipped_bit_never_panics(position in any::<prop::sample::Index>(), bit in 0u8..8) {
        let mut file = safetensors_file(fp8_files().tensors.iter().take(5));
        let at = position.index(file.len());
        file[at] ^= 1 << bit;
        let _ = parse_header(&file, file.len() as u64);
    }
}
