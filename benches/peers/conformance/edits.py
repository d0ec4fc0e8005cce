"""One thing of a library's own source changed, to see whether that is why its numbers differ."""

import contextlib
import inspect
import sys
import textwrap
from dataclasses import dataclass
from itertools import combinations


@dataclass(frozen=True)
class Edit:
    """`old` becomes `new` in the text of a function, under every name by which the library calls it."""

    reason: str
    places: tuple  # (module or class, name) pairs; the first is where the text is
    old: str
    new: str
    given: tuple = ()  # functions of ours that the new text calls


@contextlib.contextmanager
def applied(edits):
    """The library with these edits."""
    by_place = {}
    for edit in edits:
        by_place.setdefault(edit.places, []).append(edit)
    undo = []
    try:
        for places, in_text in by_place.items():
            changed = rewritten(getattr(*places[0]), in_text)
            for owner, name in places:
                undo.append((owner, name, owner.__dict__[name]))
                setattr(owner, name, staticmethod(changed) if isinstance(owner.__dict__[name], staticmethod) else changed)
        yield
    finally:
        for owner, name, original in reversed(undo):
            setattr(owner, name, original)


def rewritten(function, edits):
    """The function compiled from its own text after these edits; each old text must occur once."""
    source = textwrap.dedent(inspect.getsource(function))
    scope = dict(vars(sys.modules[function.__module__]))
    for edit in edits:
        if source.count(edit.old) != 1:
            raise SystemExit(f"{function.__qualname__}: expected {edit.old!r} once; the adapter was written for another version")
        source = source.replace(edit.old, edit.new)
        scope.update({given.__name__: given for given in edit.given})
    exec(compile(source, inspect.getsourcefile(function), "exec"), scope)  # noqa: S102
    return scope[function.__name__]


def subsets(edits):
    """Sets of reasons with their edits, the smallest first."""
    reasons = list(dict.fromkeys(edit.reason for edit in edits))
    for size in range(1, len(reasons) + 1):
        for chosen in combinations(reasons, size):
            yield chosen


def of(edits, reasons):
    return [edit for edit in edits if edit.reason in reasons]
