"""Makes tiktoken.model, tokenizer_config.json and ids.jsonl: an excerpt of Kimi-K2's vocabulary and what tiktoken makes of it.

    python -m venv VENV && VENV/bin/pip install tiktoken==0.14.0 splintr-rs==0.22.0
    VENV/bin/python make.py [FOLDER]

`splintr-rs` carries Kimi-K2's vocabulary (163,584 tokens). The excerpt keeps the single bytes and the tokens that occur
in the texts below; no other token can take part in encoding them, so the words split as with the whole vocabulary. The
ranks are renumbered in their order. With FOLDER, the whole vocabulary is written there too.
"""

import base64
import json
import pathlib
import sys

import splintr
import tiktoken

BASE = 163584
CONTROL = 256
PATTERN = "|".join([
    r"""[\p{Han}]+""",
    r"""[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?""",
    r"""[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?""",
    r"""\p{N}{1,3}""",
    r""" ?[^\s\p{L}\p{N}]+[\r\n]*""",
    r"""\s*[\r\n]+""",
    r"""\s+(?!\S)""",
    r"""\s+""",
])
# Distance from the first control token, as in Kimi-K2's tokenizer_config.json; whether it is marked as special.
NAMED = {
    0: ("[BOS]", True), 1: ("[EOS]", True), 2: ("<|im_end|>", True), 3: ("<|im_user|>", True),
    4: ("<|im_assistant|>", True), 6: ("<|start_header_id|>", True), 7: ("<|end_header_id|>", True),
    9: ("[EOT]", True), 10: ("<|im_system|>", True), 11: ("<|tool_calls_section_begin|>", False),
    12: ("<|tool_calls_section_end|>", False), 13: ("<|tool_call_begin|>", False),
    14: ("<|tool_call_argument_begin|>", False), 15: ("<|tool_call_end|>", False), 17: ("<|im_middle|>", True),
    22: ("<think>", False), 23: ("</think>", False), 254: ("[UNK]", True), 255: ("[PAD]", True),
}
TEXTS = [
    "", " ", "Hello world", "Hello, world!", "你好世界", "1234567890", "中文English混合", "汉字abc 北京市 Pascal",
    "I'll say it's WE'RE don't İ'S", "  leading and trailing  ", "a\n\n b\r\n\tc   d", "日本語のテキストです。ﾊﾝｶｸ",
    "한국어 문장", "naïve café — “quoted” … ½ ²³ Ⅷ 〇一二", "fn main() { println!(\"{:>8.3}\", x_1 + 42); }",
    "🦀👩‍👩‍👧‍👦🇩🇪", "مرحبا بالعالم", "Привет, мир! ПРИВЕТ", "ÀÉÎÕÜ àéîõü ﬁnance",
    "<|im_user|>user<|im_middle|>hi<|im_end|><|im_assistant|>assistant<|im_middle|>",
    "<think>ok</think><|reserved_token_{}|>", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "----====####    ....",
    "\u0000\u0007\u00a0\u00ad\u200b\ufeff",
]


def encoding(tokens):
    first = len(tokens)
    control = {NAMED.get(i, (f"<|reserved_token_{first + i}|>",))[0]: first + i for i in range(CONTROL)}
    ranks = {token: rank for rank, token in enumerate(tokens)}
    return tiktoken.Encoding(name="kimi", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens=control)


def write(folder, tokens):
    lines = [f"{base64.b64encode(token).decode()} {rank}\n" for rank, token in enumerate(tokens)]
    (folder / "tiktoken.model").write_text("".join(lines))
    decoder = {str(len(tokens) + i): {"content": text, "lstrip": False, "normalized": False, "rstrip": False,
                                      "single_word": False, "special": special}
               for i, (text, special) in NAMED.items()}
    config = {"added_tokens_decoder": decoder, "bos_token": "[BOS]", "eos_token": "[EOS]", "tokenizer_class": "TikTokenTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")


def main():
    kimi = splintr.Tokenizer.from_pretrained("kimi_k2")
    whole = [kimi.decode_token_bytes(rank) for rank in range(BASE)]
    here = pathlib.Path(__file__).parent
    texts = [text.replace("{}", str(BASE + 100)) if "reserved" in text else text for text in TEXTS]
    joined = b"\xff\xff".join(text.encode() for text in texts)
    kept = [rank for rank, token in enumerate(whole) if len(token) == 1 or token in joined]
    excerpt = [whole[rank] for rank in kept]
    write(here, excerpt)
    if len(sys.argv) > 1:
        write(pathlib.Path(sys.argv[1]), whole)
    small, large = encoding(excerpt), encoding(whole)
    renumbered = {rank: small_rank for small_rank, rank in enumerate(kept)}
    renumbered |= {BASE + i: len(kept) + i for i in range(CONTROL)}
    with open(here / "ids.jsonl", "w") as out:
        for text in TEXTS:
            of_small = text.replace("{}", str(len(kept) + 100)) if "reserved" in text else text
            of_large = text.replace("{}", str(BASE + 100)) if "reserved" in text else text
            ids = small.encode(of_small, allowed_special="all")
            kimi_ids = large.encode(of_large, allowed_special="all")
            assert ids == [renumbered[rank] for rank in kimi_ids], text
            plain = small.encode(of_small, disallowed_special=())
            print(json.dumps({"text": of_small, "ids": ids, "plain": plain, "kimi_ids": kimi_ids}, ensure_ascii=False), file=out)


main()
