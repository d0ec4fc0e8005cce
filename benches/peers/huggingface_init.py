"""Writes tiny models that `transformers` initialises, for the tests of the program: train/tests/command_line/huggingface/NAME.

Each folder is what `save_pretrained` writes, and `logits.json` beside it holds tokens and the logits of the loaded model, in float64. The
models of bfloat16 and float16 are read as float64 too, so that their logits are those of the rounded weights.

    ~/venv-torch/bin/python benches/peers/huggingface_init.py
"""

import json
import pathlib
import shutil

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "train/tests/command_line/huggingface"
CHARACTERS = " abcdefghijklmnopqrstuvwxyz.,\n"
LENGTH = 8
SIZES = {
    "vocab_size": len(CHARACTERS),
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 16,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
HEAD = {"head_dim": 6}
WINDOW = {"sliding_window": 5}
# Larger than the default, so that every part of the model is seen in the logits.
SPREAD = {"initializer_range": 0.3}
EXPERTS = {"intermediate_size": 8, "num_experts_per_tok": 2}
GPT2 = transformers.GPT2Config(
    vocab_size=len(CHARACTERS), n_positions=16, n_embd=16, n_inner=24, n_layer=2, n_head=4, bos_token_id=None, eos_token_id=None, **SPREAD
)
LLAMA = transformers.LlamaConfig(**SIZES, **SPREAD)
# Name: configuration, element type, largest file.
MODELS = {
    "gpt2": (GPT2, torch.float32, "1GB"),
    "llama": (LLAMA, torch.float32, "1GB"),
    "qwen3": (transformers.Qwen3Config(**SIZES, **HEAD, **SPREAD, tie_word_embeddings=True), torch.float32, "1GB"),
    "gemma3": (
        transformers.Gemma3TextConfig(**SIZES, **HEAD, **WINDOW, **SPREAD, query_pre_attn_scalar=6), torch.float32, "1GB"
    ),
    "olmoe": (
        transformers.OlmoeConfig(**SIZES | EXPERTS, **SPREAD, num_experts=4), torch.float32, "1GB"
    ),
    "gpt_oss": (
        transformers.GptOssConfig(
            **SIZES | EXPERTS, **HEAD, **WINDOW, **SPREAD, num_local_experts=4,
            rope_parameters={"rope_type": "default", "rope_theta": 1.5e5},
        ),
        torch.float32,
        "1GB",
    ),
    "llama-sharded": (LLAMA, torch.float32, "8KB"),
    "llama-bf16": (LLAMA, torch.bfloat16, "1GB"),
    "gpt2-f16": (GPT2, torch.float16, "1GB"),
}


def tokenizer():
    """One token per character."""
    tokenizer = Tokenizer(models.WordLevel({character: i for i, character in enumerate(CHARACTERS)}, unk_token="."))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    return tokenizer


def noise(model):
    """Biases and gains begin as zeros and ones; a mistake in one of them must be seen."""
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1 or name.endswith("bias"):
            parameter.data += 0.2 * torch.randn_like(parameter)


def write(name, config, dtype, largest):
    folder = FOLDER / name
    shutil.rmtree(folder, ignore_errors=True)
    torch.manual_seed(1)
    model = transformers.AutoModelForCausalLM.from_config(config)
    noise(model)
    model.to(dtype).save_pretrained(folder, max_shard_size=largest)
    (folder / "generation_config.json").unlink(missing_ok=True)
    tokenizer().save(str(folder / "tokenizer.json"))
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float64, attn_implementation="eager", experts_implementation="eager"
    )
    tokens = torch.tensor([[(i * i * 3 + 5 * i + 1) % len(CHARACTERS) for i in range(LENGTH)]])
    with torch.no_grad():
        logits = model(tokens).logits[0]
    logits = [[float(f"{x:.7g}") for x in row] for row in logits.tolist()]
    (folder / "logits.json").write_text(json.dumps({"tokens": tokens[0].tolist(), "logits": logits}) + "\n")
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"wrote {name}: {len(list(folder.iterdir()))} files, {size} bytes")


if __name__ == "__main__":
    for name, model in MODELS.items():
        write(name, *model)
