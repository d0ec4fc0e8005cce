"""The number of parameters of every preset of a paper's size, counted by `transformers` without allocating any.

    python benches/peers/sizes.py         # needs torch and transformers, see README.md; a minute
"""

import torch
import transformers as hf

LLAMA = {"vocab_size": 32000, "tie_word_embeddings": False}
MODELS = {
    "gpt2-124m": (hf.GPT2LMHeadModel, hf.GPT2Config()),
    "llama2-130m": (hf.LlamaForCausalLM, hf.LlamaConfig(hidden_size=768, intermediate_size=2048, num_hidden_layers=12, num_attention_heads=12, **LLAMA)),
    "llama2-350m": (hf.LlamaForCausalLM, hf.LlamaConfig(hidden_size=1024, intermediate_size=2736, num_hidden_layers=24, num_attention_heads=16, **LLAMA)),
    "qwen3-0.6b": (hf.Qwen3ForCausalLM, hf.Qwen3Config(vocab_size=151936, hidden_size=1024, intermediate_size=3072, num_hidden_layers=28, num_attention_heads=16, num_key_value_heads=8, head_dim=128, tie_word_embeddings=True)),
    "gemma3-1b": (hf.Gemma3ForCausalLM, hf.Gemma3TextConfig(vocab_size=262144, hidden_size=1152, intermediate_size=6912, num_hidden_layers=26, num_attention_heads=4, num_key_value_heads=1, head_dim=256, tie_word_embeddings=True)),
    "olmoe-1b-7b": (hf.OlmoeForCausalLM, hf.OlmoeConfig(vocab_size=50304, hidden_size=2048, intermediate_size=1024, num_hidden_layers=16, num_attention_heads=16, num_key_value_heads=16, num_experts=64, num_experts_per_tok=8, tie_word_embeddings=False)),
    "gpt-oss-small": (hf.GptOssForCausalLM, hf.GptOssConfig(vocab_size=201088, hidden_size=2048, intermediate_size=2048, num_hidden_layers=12, num_attention_heads=64, num_key_value_heads=8, head_dim=64, num_local_experts=16, num_experts_per_tok=4, tie_word_embeddings=False)),
}

for preset, (model, config) in MODELS.items():
    with torch.device("meta"):
        built = model(config)
    built.tie_weights()
    print(f"{preset:14} {sum(parameter.numel() for parameter in built.parameters()):,}")
