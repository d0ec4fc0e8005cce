#!/usr/bin/env python3
"""Text from a model of polaron beside the same text from `transformers`, for speed.py: time of the first token, tokens per second.

Both programs continue the same prompt several times in one process, greedily; the first time is not counted.  They are timed from
what they hand out: polaron's pieces as they arrive through a pipe, transformers' tokens as its streamer gets them.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from speed_programs import MEBIBYTE, Failed, pinned, run, settings

GROUP = "generation"
PRESETS = ["llama-d128", "llama-d256"]
KEYS = {"model.context": 512, "train.batch": 8, "schedule.warmup": 5, "train.valid_windows_end": 1, "train.sample_tokens": 0}
STEPS = 30
PROMPT, TOKENS, REPEATS = 64, 256, 6  # characters, which are the tokens here


def model(program, folder, preset, text):
    """trains for a moment; returns the run and its export for transformers"""
    trained, exported = folder / f"generate-{preset}", folder / f"generate-{preset}-hf"
    data = ["--data", text, "--set", "data.tokenizer=char"]
    run([program, "train", "--model", preset, "--steps", STEPS, "--out", trained, *data, *settings(KEYS)], os.cpu_count())
    run([program, "export", trained, "--format", "hf", "--out", exported], os.cpu_count())
    return trained, exported


def by_polaron(program, trained, prompt, prompts, threads):
    """one text after the other; returns the text, and of every repetition the seconds of the first token and the rate of the others"""
    prompts.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for _ in range(REPEATS)))
    command = [program, "generate", trained, "--prompts", prompts, "--tokens", TOKENS, "--temperature", 0, "--ignore-eot"]
    command += ["--threads", threads]
    child = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, **pinned(threads))
    written, arrivals = b"", []  # the bytes so far, and how many there were when
    while piece := os.read(child.stdout.fileno(), 1 << 16):
        written += piece
        arrivals.append((len(written), time.perf_counter()))
    _, status, used = os.wait4(child.pid, 0)
    if status != 0:
        raise Failed(f"polaron generate ended with {os.waitstatus_to_exitcode(status)}")
    when = lambda bytes: next(moment for length, moment in arrivals if length >= bytes)
    texts, first, rate = [], [], []
    for index in range(1, REPEATS + 1):
        head = f"=== {index} of {REPEATS} ===\n{prompt}".encode()
        begin = written.index(head) + len(head)
        texts.append(written[begin : begin + TOKENS].decode())
        first.append(when(begin + 1) - when(begin))
        rate.append((TOKENS - 1) / (when(begin + TOKENS) - when(begin + 1)))
    return result(texts, first, rate, 1024 * used.ru_maxrss)


def result(texts, first, rate, memory):
    assert len(set(texts)) == 1, "a greedy text must not change"
    return {"text": texts[0], "first": statistics.median(first[1:]), "rate": statistics.median(rate[1:]), "memory": memory / MEBIBYTE}


def by_transformers(exported, prompt, threads):
    command = [sys.executable, __file__, "--folder", exported, "--prompt", prompt, "--threads", threads]
    return json.loads(run(command, threads).splitlines()[-1])


def worker(folder, prompt, threads):
    """the same by transformers, in a process of its own"""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    import transformers
    from speed_worker import memory

    torch.set_num_threads(threads)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    network = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    network.generation_config.eos_token_id = None
    inputs = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")

    class Clock(transformers.generation.streamers.BaseStreamer):
        """notes when each token is handed out; the prompt comes first"""

        def __init__(self):
            self.moments = []

        def put(self, value):
            self.moments.append(time.perf_counter())

        def end(self):
            pass

    texts, first, rate = [], [], []
    for _ in range(REPEATS):
        clock, start = Clock(), time.perf_counter()
        made = network.generate(
            input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], do_sample=False, use_cache=True,
            max_new_tokens=TOKENS, streamer=clock,
        )  # fmt: skip
        texts.append(tokenizer.decode(made[0, inputs["input_ids"].shape[1] :]))
        _, one, *_, last = clock.moments
        first.append(one - start)
        rate.append((TOKENS - 1) / (last - one))
    print(json.dumps(result(texts, first, rate, memory("VmHWM"))))


def table(args, folder, text, print_heads, print_row):
    """prints the table; returns whether all texts are equal"""
    heads = ["model", "threads"]
    for name in ("polaron", "transformers"):
        heads += [f"{name}: first token, ms", "tokens/s", "MiB"]
    print_heads([*heads, "first token, transformers / polaron", "tokens/s, polaron / transformers", "text"])
    prompt, good = text.read_text()[:PROMPT], True
    for preset in PRESETS:
        trained, exported = model(args.polaron, folder, preset, text)
        for threads in args.cores:
            rounds = []
            for _ in range(args.rounds):
                ours = by_polaron(args.polaron, trained, prompt, folder / "prompts.jsonl", threads)
                rounds.append((ours, by_transformers(exported, prompt, threads)))
            middle = lambda key: [statistics.median(pair[side][key] for pair in rounds) for side in (0, 1)]
            first, rate, memory = middle("first"), middle("rate"), middle("memory")
            cells = [cell for side in (0, 1) for cell in (f"{1e3 * first[side]:.1f}", f"{rate[side]:.0f}", f"{memory[side]:.0f}")]
            ratio = lambda pairs: f"**{statistics.median(a / b for a, b in pairs):.2f}**"
            cells.append(ratio((theirs["first"], ours["first"]) for ours, theirs in rounds))
            cells.append(ratio((ours["rate"], theirs["rate"]) for ours, theirs in rounds))
            same = all(ours["text"] == theirs["text"] for ours, theirs in rounds)
            good &= same
            print_row([f"{preset}, {PROMPT} + {TOKENS} tokens", threads, *cells, "equal" if same else "**differs**"])
            if not same:
                print(f"polaron: {rounds[0][0]['text']!r}\ntransformers: {rounds[0][1]['text']!r}", file=sys.stderr)
    return good


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--prompt", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parsed = parser.parse_args()
    worker(parsed.folder, parsed.prompt, parsed.threads)
