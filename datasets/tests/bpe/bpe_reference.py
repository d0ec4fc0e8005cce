"""Tokens that the Python package `tokenizers` (0.23.3) gives for tokenizer.json, for the test in ../pack.rs.

    python3 bpe_reference.py

Learns a small byte-level BPE, writes tokenizer.json, and one line of text and tokens per case to expected.jsonl.
"""

import json

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

LESSONS = [
    "The king greets the queen. The queen fears the ghost, and the ghost follows the fool.\n",
    "It's the sailor's ship; they've seen 1234 ships in 2024.\n\n",
    "    def f(x):\n        return x  # twice\n",
    "Gr\u00fc\u00dfe aus K\u00f6ln, na\u00efve caf\u00e9s, \u4f60\u597d\u4e16\u754c.\n",
] * 20

CASES = [
    "",
    "the king",
    "The king greets the ghost.\n",
    "they've 1234 ships, it's 2024",
    "   leading and trailing   ",
    "\n\n\n  \t\r\n",
    "Gr\u00fc\u00dfe, na\u00efve caf\u00e9s",
    "\u4f60\u597d\u4e16\u754c \U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "e\u0301 is not \u00e9; \u0000 and \u00a0 too",
    "one<|endoftext|>two",
    "\u0645\u0631\u062d\u0628\u0627 \u05e9\u05dc\u05d5\u05dd",
    "x" * 300,
]

tokenizer = Tokenizer(models.BPE())
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
tokenizer.decoder = decoders.ByteLevel()
trainer = trainers.BpeTrainer(
    vocab_size=400,
    min_frequency=2,
    special_tokens=["<|endoftext|>"],
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False,
)
tokenizer.train_from_iterator(LESSONS, trainer)
tokenizer.save("tokenizer.json", pretty=False)

with open("expected.jsonl", "w") as file:
    for text in CASES:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert tokenizer.decode(ids, skip_special_tokens=False) == text, text
        file.write(json.dumps([text, ids]) + "\n")

with open("lessons.json", "w") as file:
    json.dump(LESSONS, file)
    file.write("\n")
