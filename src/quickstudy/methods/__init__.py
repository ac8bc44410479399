"""The methods: every module in `demonstrations` and `trials` holds its class, its settings and its records.

A module's records are its `METHODS`. Those of other packages are found by the entry points `quickstudy.methods`, or
named as `package.module:attribute`; the attribute is a `Method`, a class whose own is called `method`, or, for an entry
point, a tuple of either.
"""

import functools
import importlib
import pkgutil

from quickstudy.errors import QuickstudyError, unknown
from quickstudy.io.plugins import load_attribute, with_installed
from quickstudy.method import Experience, Method


@functools.cache
def records() -> dict[str, Method]:
    """All methods by name: those here in the order of their modules, then those of entry points."""
    found: dict[str, Method] = {}
    for package in ("demonstrations", "trials"):
        parent = importlib.import_module(f"quickstudy.methods.{package}")
        for module in pkgutil.iter_modules(parent.__path__, f"{parent.__name__}."):
            for record in getattr(importlib.import_module(module.name), "METHODS", ()):
                found[record.name] = record
    return with_installed(found, "quickstudy.methods", lambda _, where, attribute: _record(attribute, where))


def get(name: str) -> Method:
    """The method of this name, or at `package.module:attribute`.

    Raises:
        QuickstudyError: there is none.
    """
    if ":" in name:
        return _record(load_attribute(name), name)
    if name not in records():
        raise unknown("method", name, records())
    return records()[name]


def names(learns_from: Experience | None = None) -> list[str]:
    """The methods' names, of those that learn from this alone."""
    return [name for name, record in records().items() if learns_from in (None, record.learns_from)]


def _record(found: object, name: str) -> Method:
    record = found if isinstance(found, Method) else getattr(found, "method", None)
    if not isinstance(record, Method):
        raise QuickstudyError(
            f"'{name}' is no method: it must be a quickstudy.Method, or a class with one as its attribute 'method'."
        )
    return record
