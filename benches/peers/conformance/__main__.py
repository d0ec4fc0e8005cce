#!/usr/bin/env python3
"""Steps optimizers of other libraries on the reference vectors of optimizers/verify/vectors.

    python benches/peers/conformance --library torch              the rows of docs/CONFORMANCE.md, in Markdown
    python benches/peers/conformance --library torch --cases      and every case that differs
    python benches/peers/conformance --library torch --json FILE  and every case as JSON

Needs numpy and the library; docs/CONFORMANCE.md has the versions, and says what agrees means and how a reason is found.
"""

import argparse
import importlib
import json
import warnings
from collections import Counter, defaultdict

import cases
import edits
import numpy as np

LIBRARIES = ["torch", "optax", "pytorch_optimizer", "heavyball", "emerging_optimizers", "keras"]


def difference(plan, case, changes=()):
    """The largest difference of an entry after any step; infinite if one is not finite."""
    with edits.applied(changes), np.errstate(all="ignore"):
        step = plan.start(case.start)
        found = [step(gradients) for gradients in case.gradients]
    off = [np.max(np.abs(x - wanted)) for got, expected in zip(found, case.expected) for x, wanted in zip(got, expected)]
    return float(np.max(off)) if np.all(np.isfinite(off)) else float("inf")


def judge(plan, case):
    """Whether a case agrees, and if not, by how much and why: the part of every reason is what is left without the others."""
    limit, scale = case.tolerance[f"{plan.precision}_max_abs"], case.movement
    off = difference(plan, case)
    result = {"difference": off / scale, "agrees": off <= limit, "why": {}}
    if result["agrees"]:
        return result
    for reasons in edits.subsets(plan.edits):
        if difference(plan, case, edits.of(plan.edits, reasons)) <= limit:
            others = lambda reason: edits.of(plan.edits, set(reasons) - {reason})
            result["why"] = {reason: difference(plan, case, others(reason)) / scale for reason in reasons}
            return result
    return result


def run(library):
    """Every case of the library's kinds, judged, or the key that stands in the way."""
    for case in cases.read_all(library.KINDS):
        facts = {"file": case.file, "case": case.name, "kind": case.kind}
        try:
            plan = library.KINDS[case.kind](case, case.keys())
        except cases.Inexpressible as reason:
            yield {**facts, "inexpressible": str(reason)}
        else:
            yield {**facts, "optimizer": plan.optimizer, "precision": plan.precision, **judge(plan, case)}


def size(values):
    """The largest finite value, and how many are not finite."""
    finite = [value for value in values if np.isfinite(value)]
    worst = [f"{max(finite):.1e}".replace("e-0", "e-").replace("e+0", "e")] if finite else []
    return ", ".join(worst + [f"{len(values) - len(finite)} not finite"] * (len(finite) < len(values)))


def why(differing):
    """`reason (cases, the largest part)` for every reason, and what has none."""
    parts = defaultdict(list)
    for case in differing:
        for reason, part in (case["why"] or {"not explained": case["difference"]}).items():
            parts[reason].append(part)
    by_number = sorted(parts.items(), key=lambda item: -len(item[1]))
    return "; ".join(f"{reason} ({len(found)}, {size(found)})" for reason, found in by_number)


def rows(library, results):
    """The rows of the table, one for every optimizer and kind."""
    groups = defaultdict(list)
    for case in results:
        if "optimizer" in case:
            groups[case["optimizer"], case["kind"], case["precision"]].append(case)
    for (optimizer, kind, precision), found in groups.items():
        differing = [case for case in found if not case["agrees"]]
        worst = size([case["difference"] for case in differing]) if differing else ""
        yield [f"{library.NAME} {library.version()}", f"`{optimizer}`", f"`{kind}`", precision, len(found), len(found) - len(differing),
               len(differing), worst, why(differing)]


def left_out(results):
    """How many cases of every kind are not expressible, by the key that stands in the way."""
    for kind in dict.fromkeys(case["kind"] for case in results):
        reasons = Counter(case["inexpressible"] for case in results if case["kind"] == kind and "inexpressible" in case)
        if reasons:
            yield kind, reasons.total(), ", ".join(f"{reason} ({number})" for reason, number in reasons.most_common())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", choices=LIBRARIES, required=True)
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--cases", action="store_true")
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    library = importlib.import_module(f"libraries.{given.library}")
    results = list(run(library))
    for row in rows(library, results):
        print("| " + " | ".join(map(str, row)) + " |")
    print()
    for kind, count, reasons in left_out(results):
        print(f"* {library.NAME}, `{kind}`, {count} cases: {reasons}")
    if given.cases:
        for case in results:
            if not case.get("agrees", True):
                print(f"  {case['optimizer']} {case['file']} \"{case['case']}\": {size([case['difference']])} {case['why']}")
    if given.json:
        with open(given.json, "w", encoding="utf-8") as file:
            json.dump(results, file, indent=1)


if __name__ == "__main__":
    main()
