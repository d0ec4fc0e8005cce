"""The reference vectors as small problems: pieces of one matrix each, stored outputs x inputs.

The format is that of optimizers/verify/README.md.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

VERIFY = Path(__file__).resolve().parents[3] / "optimizers" / "verify"
DEFAULTS = json.loads((VERIFY / "defaults.json").read_text(encoding="utf-8"))

# Keys that have no effect at these values, so that a library without them can run the case.
WITHOUT_EFFECT = {"cautious": False, "decay": "coupled", "norm_control": None, "second_moment": None}


class Inexpressible(Exception):
    """No setting of the library means what the case says. The text names the key."""


class Keys(dict):
    """The settings of a case. An adapter takes those that its library has; what is left must be without effect."""

    def check(self, key, allowed):
        value = self[key]
        if value not in allowed:
            raise Inexpressible(f"{key} = {value if isinstance(value, str) else json.dumps(value)}")

    def take(self, key, allowed=None):
        if allowed is not None:
            self.check(key, allowed)
        return self.pop(key)

    def name(self, key, names):
        """The library's name for the value of a key."""
        return names[self.take(key, names)]

    def rest(self):
        for key, value in self.items():
            if key not in WITHOUT_EFFECT or value != WITHOUT_EFFECT[key]:
                raise Inexpressible(f"{key}.{value['method']}" if isinstance(value, dict) and "method" in value else key)


@dataclass(frozen=True)
class Case:
    file: str
    name: str
    kind: str
    lr: float
    settings: dict
    start: list
    gradients: list
    expected: list
    tolerance: dict

    def keys(self):
        """Every key of the kind; those that the case leaves out have their defaults."""
        keys = Keys({**DEFAULTS["kinds"][self.kind], **self.settings})
        if keys["weight_decay"] == 0:
            keys.update(cautious=False, decay="coupled")
        if keys.get("momentum") == 0:
            keys.update(momentum_form="none", nesterov=False)  # every form is the gradient itself
        return keys

    @property
    def movement(self):
        """The scale of differences: the furthest that an entry is from where it began, or the largest entry if none moves."""
        moved = max(float(np.max(np.abs(x - x0))) for step in self.expected for x, x0 in zip(step, self.start))
        return moved or max(float(np.max(np.abs(x))) for x in self.start)


def pieces(array, layout, blocks):
    """The matrices that are updated on their own, each outputs x inputs."""
    if array.ndim == 1:
        return [array]
    if array.ndim == 3:
        return [piece for matrix in array for piece in pieces(matrix, layout, blocks)]
    matrix = array if layout == "out_in" else array.T
    if blocks is None:
        return [matrix]
    axis = 0 if blocks["axis"] == "output" else 1
    cuts = np.cumsum(blocks["sizes"])[:-1] if "sizes" in blocks else blocks["count"]
    return np.split(matrix, cuts, axis)


def read_case(file, kind, case):
    shape = case["parameter"]["shape"]
    parts = lambda flat: pieces(np.array(flat, dtype=np.float64).reshape(shape), case["layout"], case["blocks"])
    settings = {key: value for key, value in case["optimizer"].items() if key != "kind"}
    return Case(file, case["name"], kind, case["lr"], settings, parts(case["parameter"]["data"]), [parts(g) for g in case["gradients"]],
                [parts(x) for x in case["expected"]], case["tolerance"])


def read_all(kinds):
    """Every case of these kinds that has expected values."""
    for path in sorted((VERIFY / "vectors").rglob("*.json")):
        file = json.loads(path.read_text(encoding="utf-8"))
        if (file["format"], file["version"]) != ("optimizer-vectors", 1):
            raise SystemExit(f"{path}: another format or version")
        if file["kind"] in kinds:
            name = path.relative_to(VERIFY / "vectors").with_suffix("").as_posix()
            yield from (read_case(name, file["kind"], case) for case in file["cases"] if case["expected"] is not None)
