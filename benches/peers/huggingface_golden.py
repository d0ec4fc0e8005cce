"""Writes small models of `transformers` for the tests of `polaron-models`: models/tests/huggingface/CLASS.json.

Each file holds the `config.json` that `transformers` saves, the names and shapes of the tensors in its safetensors file, tokens, and the
logits of the model whose weights follow the rule of `value` below, in float64.

    ~/venv-torch/bin/python benches/peers/huggingface_golden.py
"""

import json
import pathlib
import tempfile

import numpy as np
import torch
import transformers
from safetensors.numpy import load_file, save_file

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "models/tests/huggingface"
VOCAB, LENGTH = 11, 10

SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "max_position_embeddings": 12,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
WINDOWS = {"sliding_window": 3}

MODELS = {
    "gpt2": transformers.GPT2Config(
        vocab_size=VOCAB, n_positions=12, n_embd=16, n_layer=2, n_head=4, bos_token_id=None, eos_token_id=None
    ),
    "llama": transformers.LlamaConfig(
        **SIZES, attention_bias=True, mlp_bias=True, tie_word_embeddings=True, rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 5000.0},
    ),
    "qwen3": transformers.Qwen3Config(**SIZES, rope_parameters={"rope_type": "default", "rope_theta": 1e6}),
    "gemma3": transformers.Gemma3TextConfig(
        **SIZES | WINDOWS | {"num_hidden_layers": 3}, query_pre_attn_scalar=6, sliding_window_pattern=2
    ),
    "olmoe": transformers.OlmoeConfig(
        **{key: value for key, value in SIZES.items() if key != "head_dim"}, num_experts=4, num_experts_per_tok=2
    ),
    "gpt_oss": transformers.GptOssConfig(
        **SIZES | WINDOWS, num_local_experts=4, num_experts_per_tok=2,
        rope_parameters={"rope_type": "default", "rope_theta": 1.5e5},
    ),
}


def value(name, count):
    """Element i of a tensor: small, without a pattern, and a sum of powers of two, so that every program has the same."""
    salt = sum(name.encode())
    return np.array([(((salt + i) ** 3 + 11 * i) % 127 - 63) / 128 for i in range(count)], dtype=np.float32)


def golden(config):
    model = transformers.AutoModelForCausalLM.from_config(config)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        path = pathlib.Path(folder) / "model.safetensors"
        shapes = {name: list(tensor.shape) for name, tensor in sorted(load_file(path).items())}
        save_file(
            {name: value(name, int(np.prod(shape))).reshape(shape) for name, shape in shapes.items()},
            path,
            metadata={"format": "pt"},
        )
        model = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float64, attn_implementation="eager", experts_implementation="eager"
        )
        saved = json.loads((pathlib.Path(folder) / "config.json").read_text())
    tokens = torch.tensor([[(i * i * 3 + 5 * i + 1) % VOCAB for i in range(LENGTH)]])
    with torch.no_grad():
        logits = model(tokens).logits[0]
    return {
        "config": saved,
        "tensors": shapes,
        "tokens": tokens[0].tolist(),
        "logits": [[round(x, 9) for x in row] for row in logits.tolist()],
    }


if __name__ == "__main__":
    torch.manual_seed(1)
    FOLDER.mkdir(exist_ok=True)
    for name, config in MODELS.items():
        (FOLDER / f"{name}.json").write_text(json.dumps(golden(config)) + "\n")
        print(f"wrote {name}.json")
