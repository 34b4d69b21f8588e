"""Times HF transformers and this crate on the same checkpoint and prompt, in turn, and prints both and the ratio.

    pip install torch "transformers>=5.23"
    cargo build --release --example generate
    python benches/compare_transformers.py [--model DIR] [--tokens 1000] [--new 64] [--threads N] [--repeat 5]

Both compute in f32 on the CPU with as many threads and decode greedily, without MTP. Transformers stays loaded and warm;
each run of ours is a new process that times itself without loading. The best of the repeats counts, and both must
generate the same ids.
"""

import argparse
import json
import os
import platform
import subprocess
import tempfile
import time
from pathlib import Path

import torch
import transformers

ROOT = Path(__file__).resolve().parent.parent


def arguments():
    parser = argparse.ArgumentParser(description="transformers beside this crate")
    parser.add_argument("--model", type=Path, default=ROOT / "examples/assets/tiny-v32")
    parser.add_argument("--generate", type=Path, default=ROOT / "target/release/examples/generate")
    parser.add_argument("--tokens", type=int, default=1000, help="the prompt's length, at most")
    parser.add_argument("--new", type=int, default=64, help="tokens to generate")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--repeat", type=int, default=5)
    return parser.parse_args()


def joined_prompt(model, limit):
    """Recorded prompts of the checkpoint, one after the other, up to `limit` tokens."""
    samples = json.loads((model / "golden.json").read_text())["samples"]
    text, count = "", 0
    for sample in samples:
        if count + len(sample["prompt_ids"]) <= limit:
            text += sample["prompt"]
            count += len(sample["prompt_ids"])
    return text


class Theirs:
    """transformers in this process."""

    def __init__(self, model, prompt):
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(model)
        self.model = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
        self.prompt = torch.tensor([self.tokenizer.encode(prompt, add_special_tokens=False)])

    @torch.inference_mode()
    def run(self, new):
        """Seconds of the prompt's pass and of the steps after it, and the ids."""
        start = time.perf_counter()
        out = self.model(self.prompt, use_cache=True, logits_to_keep=1)
        ids = [int(out.logits[0, -1].argmax())]
        prefill = time.perf_counter() - start
        start = time.perf_counter()
        while len(ids) < new:
            step = torch.tensor([[ids[-1]]])
            out = self.model(step, past_key_values=out.past_key_values, use_cache=True)
            ids.append(int(out.logits[0, -1].argmax()))
        return prefill, time.perf_counter() - start, ids


class Ours:
    """The `generate` example, a new process each time."""

    def __init__(self, binary, model, prompt_file, threads):
        self.command = [binary, "--json", "--ignore-eos", "--temperature", "0"]
        self.command += ["--model", model, "--prompt-file", prompt_file]
        self.environment = dict(os.environ, RAYON_NUM_THREADS=str(threads))

    def run(self, new):
        command = [str(part) for part in [*self.command, "-n", new]]
        out = subprocess.run(command, env=self.environment, check=True, capture_output=True, text=True).stdout
        result = json.loads(out)
        return result["prefill_seconds"], result["decode_seconds"], result["ids"], result["prompt_tokens"]


def processor():
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":")[1].strip()
    except OSError:
        pass
    return platform.processor()


def main():
    args = arguments()
    torch.set_num_threads(args.threads)
    transformers.logging.set_verbosity_error()
    prompt = joined_prompt(args.model, args.tokens)
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as file:
        file.write(prompt)
        file.flush()
        ours = Ours(args.generate, args.model, file.name, args.threads)
        theirs = Theirs(args.model, prompt)
        theirs.run(4)
        best = [float("inf")] * 4
        for _ in range(args.repeat):
            their_prefill, their_decode, their_ids = theirs.run(args.new)
            our_prefill, our_decode, our_ids, prompt_tokens = ours.run(args.new)
            assert prompt_tokens == theirs.prompt.shape[1], "the tokenizers disagree"
            assert our_ids == their_ids, f"ids differ:\n{our_ids}\n{their_ids}"
            best = list(map(min, best, [their_prefill, our_prefill, their_decode, our_decode]))

    print(f"{processor()}, {args.threads} threads, f32, transformers {transformers.__version__}, torch {torch.__version__}")
    print(f"{prompt_tokens} prompt tokens, {args.new} generated, the same ids; best of {args.repeat}")
    print(f"{'':<10}{'transformers':>18}{'ours':>18}{'ratio':>9}")
    for name, count, their, our in [
        ("prefill", prompt_tokens, best[0], best[1]),
        ("decode", args.new - 1, best[2], best[3]),
    ]:
        print(f"{name:<10}{count / their:>10,.0f} tokens/s{count / our:>9,.0f} tokens/s{their / our:>8.1f}x")


if __name__ == "__main__":
    main()
