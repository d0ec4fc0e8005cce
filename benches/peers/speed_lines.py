"""The lines of the speed suite: what is trained, and for how many steps."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Line:
    group: str
    name: str
    preset: str
    steps: int
    keys: dict  # polaron's --set


def width(d_model):
    keys = {"model.d_model": d_model, "model.heads": d_model // 64, "model.layers": 4, "train.batch": 8}
    return Line("widths", f"width-{d_model}", "llama-d256", 6, keys)


def context(tokens):
    keys = {"model.context": tokens, "model.layers": 4, "train.batch": max(1, 4096 // tokens)}
    return Line("contexts", f"context-{tokens}", "llama-d256", 6, keys)


def vocabulary(tokens):
    # The rows beyond the characters of the text are never drawn, but every program multiplies by all of them.
    keys = {"model.vocab_size": tokens, "model.layers": 4, "train.batch": 8}
    return Line("vocabularies", f"vocabulary-{tokens}", "llama-d256", 6, keys)


def preset(group, name, steps):
    return Line(group, name, name, steps, {})


LINES = [
    *(preset("presets", *row) for row in (("llama-d64", 40), ("llama-d128", 16), ("llama-d256", 8), ("nanogpt-char", 40))),
    *map(width, (512, 768)),
    *map(context, (1024, 2048, 4096, 8192)),
    *map(vocabulary, (16_000, 50_257)),
    *(preset("families", *row) for row in (("qwen3-tiny", 16), ("gemma3-tiny", 16), ("olmoe-tiny", 16))),
]
GROUPS = [*dict.fromkeys(line.group for line in LINES)]


def chosen(names):
    """the lines of these groups and names; an unknown one is a ValueError"""
    known = {*GROUPS, *(line.name for line in LINES)}
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"unknown lines {unknown}; there are the groups {GROUPS} and the lines {[line.name for line in LINES]}")
    return [line for line in LINES if line.group in names or line.name in names]
