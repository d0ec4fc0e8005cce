"""Trains small runs with polaron, exports them with `--format hf`, loads them in `transformers`, and compares.

For every model class and tokenizer: the mean loss over all validation windows, 200 greedy tokens, and the text that comes back from its
tokens. Prints a table; the exit code is 1 if a loss differs by more than 1e-5 or a text at all.

    ~/venv-torch/bin/python benches/peers/huggingface.py --polaron target/release/polaron
"""

import argparse
import gzip
import json
import os
import pathlib
import subprocess
import sys
import tempfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import tokenizers
import torch
import transformers

TEXT = pathlib.Path(__file__).resolve().parents[2] / "datasets/data/shakespeare.txt.gz"
PRESETS = ["nanogpt-char", "llama-d64", "qwen3-tiny", "gemma3-tiny", "olmoe-tiny", "gpt-oss-tiny"]
TOKENIZERS = ["char", "byte", "bpe:400", "file"]
VALID_FRACTION, PROMPT, TOKENS, TOLERANCE = 0.1, "ROMEO:\n", 200, 1e-5


def given_tokenizer(text, path):
    """A tokenizer of another kind than polaron's own: Unigram, with spaces as in SentencePiece."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.Unigram())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    tokenizer.decoder = tokenizers.decoders.Metaspace()
    trainer = tokenizers.trainers.UnigramTrainer(
        vocab_size=400, special_tokens=["<unk>", "</s>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(text.splitlines(keepends=True), trainer)
    tokenizer.save(str(path))


def run(polaron, *arguments):
    done = subprocess.run([polaron, *map(str, arguments)], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"polaron {' '.join(map(str, arguments))}: {done.stderr}")
    return done.stdout


def train(polaron, preset, kind, folder, steps):
    """Trains and exports; gives the folders of the run and of the export."""
    run_folder, exported = folder / f"{preset}-{kind}".replace(":", ""), folder / f"{preset}-{kind}-hf".replace(":", "")
    data = [folder / "text.txt", "--set", f"data.tokenizer={kind}"]
    if kind == "file":
        data = [folder / "packed", "--set", "data.tokenizer=auto"]
    settings = ["--set", "train.sample_tokens=0", "--set", "schedule.warmup=5", "--set", "train.batch=8"]
    run(polaron, "train", "--model", preset, "--steps", steps, "--out", run_folder, "--data", *data, *settings)
    run(polaron, "export", run_folder, "--format", "hf", "--out", exported)
    return run_folder, exported


def last_validation(run_folder):
    events = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    last = [event for event in events if event["event"] == "valid"][-1]
    assert "windows" not in last, "the validation must cover all windows"
    return last["loss"]


@torch.no_grad()
def loss_of_all_windows(model, tokens, context):
    valid = torch.tensor(tokens[int(len(tokens) * (1 - VALID_FRACTION)) :])
    windows = (len(valid) - 1) // context
    inputs, targets = valid[: windows * context].view(windows, -1), valid[1 : windows * context + 1].view(windows, -1)
    total = 0.0
    for batch in range(0, windows, 16):
        logits = model(inputs[batch : batch + 16]).logits.double()
        total += torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), targets[batch : batch + 16].flatten(), reduction="sum"
        ).item()
    return total / (windows * context)


@torch.no_grad()
def greedy(model, tokenizer, context):
    """The likeliest tokens after the prompt; as in polaron, a window of `context` tokens slides."""
    tokens = tokenizer.encode(PROMPT, add_special_tokens=False)
    before = len(tokens)
    for _ in range(TOKENS):
        logits = model(torch.tensor([tokens[-context:]])).logits[0, -1]
        token = int(logits.argmax())
        if token == tokenizer.eos_token_id:
            break
        tokens.append(token)
    return tokenizer.decode(tokens), len(tokens) - before


def compare(polaron, preset, kind, folder, steps):
    run_folder, exported = train(polaron, preset, kind, folder, steps)
    model = transformers.AutoModelForCausalLM.from_pretrained(exported).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(exported)
    context = tokenizer.model_max_length
    text = (folder / "text.txt").read_text()
    tokens = tokenizer.encode(text, add_special_tokens=False)
    ours, theirs = last_validation(run_folder), loss_of_all_windows(model, tokens, context)
    expected = run(polaron, "generate", run_folder, "--prompt", PROMPT, "--tokens", TOKENS, "--temperature", 0)
    found, count = greedy(model, tokenizer, context)
    same_text, same_tokens = tokenizer.decode(tokens) == text, found + "\n" == expected
    difference = abs(ours - theirs)
    print(
        f"| {type(model).__name__} | {preset} | {kind} | {len(tokens):,} | {ours:.6f} | {difference:.1e} "
        f"| {f'{count} equal' if same_tokens else 'differ'} | {'equal' if same_text else 'differs'} |",
        flush=True,
    )
    if not same_tokens:
        print(f"polaron: {expected!r}\ntransformers: {found!r}", file=sys.stderr)
    return difference <= TOLERANCE and same_text and same_tokens


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--polaron", default="polaron", help="the program")
    parser.add_argument("--steps", type=int, default=30, help="steps of each run")
    parser.add_argument("--characters", type=int, default=200_000, help="how much of the text is used")
    parser.add_argument("--presets", nargs="*", default=PRESETS)
    parser.add_argument("--tokenizers", nargs="*", default=TOKENIZERS)
    args = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        text = gzip.open(TEXT, "rt").read()[: args.characters]
        (folder / "text.txt").write_text(text)
        given_tokenizer(text, folder / "given.json")
        run(args.polaron, "data", "pack", folder / "text.txt", "--tokenizer", folder / "given.json", "--out", folder / "packed")
        print("| class | preset | tokenizer | tokens | loss in polaron | difference | greedy tokens | decoded text |")
        print("|---|---|---|---|---|---|---|---|")
        results = [
            compare(args.polaron, preset, kind, folder, args.steps)
            for preset in args.presets
            for kind in args.tokenizers
        ]
    print("PASS" if all(results) else "FAIL")
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
