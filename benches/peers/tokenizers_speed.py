#!/usr/bin/env python3
"""Packs text with `polaron data pack` and encodes the same documents with the Python package `tokenizers`: same tokenizer, same
threads, same tokens.

    python benches/peers/tokenizers_speed.py shakespeare.txt --megabytes 100

Needs `tokenizers` (0.23.3 was used) and a built program (`--polaron`, by default target/release/polaron).  Learns a byte-level BPE
of --vocab tokens from the text with `tokenizers`, makes documents out of the text (paragraphs in another order, every twentieth
word replaced by random letters, so that no cache knows all words) and one text without a single space.  For every number of
threads it prints seconds and megabytes per second of both, and their ratio.  The program also reads the files, parses JSON, computes
checksums and writes; Python encodes documents that are in memory already.  Exit code 1 if a token differs.
"""
import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BATCH = 1000  # documents that Python encodes at once


def learn(text, vocab, path):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocab, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(text.split("\n\n"), trainer)
    tokenizer.save(str(path))


def documents(text, size):
    draws, paragraphs, made = random.Random(1), [part for part in text.split("\n\n") if part.strip()], 0
    letters = "abcdefghijklmnopqrstuvwxyz"
    while made < size:
        first, count = draws.randrange(len(paragraphs)), draws.randrange(1, 60)
        words = "\n\n".join((paragraphs[first:] + paragraphs)[:count]).split(" ")
        for _ in range(len(words) // 20):
            words[draws.randrange(len(words))] = "".join(draws.choices(letters, k=draws.randrange(2, 9)))
        document = " ".join(words)
        made += len(document.encode())
        yield document


def encode(folder, threads):
    """in a process of its own, because the number of threads is read once"""
    os.environ.update(RAYON_NUM_THREADS=str(threads), TOKENIZERS_PARALLELISM="true" if threads > 1 else "false")
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    texts = [json.loads(line)["text"] for line in (folder / "documents.jsonl").read_text().splitlines()]
    begin, cpu, tokens = time.perf_counter(), time.process_time(), []
    for at in range(0, len(texts), BATCH):
        for encoding in tokenizer.encode_batch_fast(texts[at : at + BATCH], add_special_tokens=False):
            tokens.append(encoding.ids)
    seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    end = tokenizer.token_to_id("<|endoftext|>")
    flat = [token for index, ids in enumerate(tokens) for token in ([end] if index else []) + ids]
    (folder / "expected.json").write_text(json.dumps({"seconds": seconds, "cpu": cpu, "tokens": flat}))


def packed_tokens(folder):
    """all tokens of packed data whose vocabulary fits into two bytes"""
    manifest = json.loads((folder / "manifest.json").read_text())
    tokens = []
    for entry in manifest["train"] + manifest["valid"]:
        raw = (folder / entry["file"]).read_bytes()[64:]
        tokens.extend(memoryview(raw).cast("H"))
    return tokens


def compare(folder, name, threads, program):
    subprocess.run([sys.executable, __file__, "--encode", str(folder), "--threads", str(threads)], check=True)
    theirs = json.loads((folder / "expected.json").read_text())
    out = folder / f"packed-{threads}"
    command = [program, "data", "pack", str(folder / "documents.jsonl"), "--tokenizer", str(folder / "tokenizer.json"), "--out", str(out)]
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, env={**os.environ, "RAYON_NUM_THREADS": str(threads)}, stdout=subprocess.DEVNULL)
    seconds, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    megabytes = (folder / "documents.jsonl").stat().st_size / 1e6
    same = packed_tokens(out) == theirs["tokens"]
    print(
        f"{name}, {threads} threads: polaron {seconds:.1f} s ({megabytes / seconds:.1f} MB/s, {cpu:.1f} s of processors), tokenizers "
        f"{theirs['seconds']:.1f} s ({megabytes / theirs['seconds']:.1f} MB/s, {theirs['cpu']:.1f} s), {theirs['seconds'] / seconds:.1f} times "
        f"as fast, {theirs['cpu'] / cpu:.1f} times less work; tokens {'equal' if same else 'DIFFER'}",
        flush=True,
    )
    return same


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", nargs="?", type=Path, help="UTF-8 text to learn from and to make documents of")
    parser.add_argument("--megabytes", type=float, default=100)
    parser.add_argument("--vocab", type=int, default=32000)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--polaron", default="target/release/polaron")
    parser.add_argument("--encode", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.encode:
        return encode(args.encode, args.threads[0])
    text = args.text.read_text()
    same = True
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        learn(text, args.vocab, place / "tokenizer.json")
        letters = random.Random(2).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=1_500_000)
        # One text of 1 MB at most: longer ones without a space are cut, where Python is not asked to.
        for name, texts in [("documents", documents(text, args.megabytes * 1e6)), ("without spaces", ["".join(letters[:1_000_000])])]:
            folder = place / name.replace(" ", "-")
            folder.mkdir()
            (folder / "tokenizer.json").write_bytes((place / "tokenizer.json").read_bytes())
            with open(folder / "documents.jsonl", "w") as file:
                file.writelines(json.dumps({"text": document}) + "\n" for document in texts)
            same &= all([compare(folder, name, threads, args.polaron) for threads in args.threads])
    sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()
