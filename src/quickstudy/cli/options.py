"""The options of `train` and `profile`: the settings of the named family and method, with their defaults for these.

The family is found wherever it stands. What was guessed from the words before parsing is held against what was parsed,
so that no training ever takes the defaults of another family or method.
"""

import dataclasses
import typing
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from quickstudy import families, methods
from quickstudy.cli.words import TimeUnit, parsed, reading_of
from quickstudy.errors import QuickstudyError
from quickstudy.experiment import Experiment
from quickstudy.method import Method
from quickstudy.settings import DataConfig, ReadingConfig, Settings
from quickstudy.task import TaskFamily

_OTHERS: dict[str, list[tuple[str, Any, Any, str]]] = {
    "train": [
        (
            "output_dir",
            Annotated[Path | None, arg(metavar="PATH", help_behavior_hint="")],
            None,
            "The run folder; runs/<family>-<method>/<time> by default.",
        ),
        ("resume", bool, False, "Go on with the training in --output-dir exactly where it stopped."),
        (
            "device",
            str,
            "cpu",
            "What torch trains on, such as cuda; validation episodes are simulated by the processor all the same.",
        ),
        (
            "cluster",
            Annotated[str | None, arg(metavar="auto|HOST:PORT", help_behavior_hint="")],
            None,
            "Share the work over the machines of this Ray cluster; auto is the one of this machine.",
        ),
        (
            "workers",
            Annotated[int | None, arg(metavar="INT", help_behavior_hint="")],
            None,
            "Of the cluster, at most; as many as it has cores by default, or accelerators with --device cuda.",
        ),
        ("patience", float, 300.0, "Seconds that a worker of the cluster is waited for before others take over."),
    ],
    "profile": [("outer_steps", int, 3, "Steps of the outer loop that count; one more goes before.")],
}


def parse(command: str, words: Sequence[str], about: str) -> tuple[Experiment, dict[str, Any]]:
    """The experiment that the words describe, and the other options of the command.

    Raises:
        QuickstudyError: an unknown family or method, or a value that a setting does not allow.
    """
    program, asked = f"quickstudy {command}", _after(words, "--method")
    named = methods.get(asked) if asked else None
    place = _family(words, named)
    if place is None:
        parsed(_options(command, named, None, about), prog=program, args=list(words) or ["--help"])
        raise QuickstudyError(f"'{program}' needs a family; 'quickstudy families' lists them.")
    name = words[place]
    prefix = _reading_prefix(named)
    reading = _reading(words, prefix) if families.is_path(name) else ReadingConfig()
    family = families.get(name, reading=reading)
    record = named or methods.get(family.default_method)
    if reason := record.why_not(family):
        raise QuickstudyError(reason)
    defaults = dataclasses.replace(record.defaults(families.located(name), family), method=asked or record.name)
    ordered = [name, *words[:place], *words[place + 1 :]]  # after an option with many values it would be one of them
    if {"-h", "--help"} & set(words):
        ordered = ["--help"]  # what was parsed already would be missing from it
    fields = _options(command, record, defaults, about, family, prefix if families.is_path(name) else None)
    made: Any = parsed(fields, prog=program, args=ordered)
    assert (made.family, made.method) == (name, defaults.method)
    parts = {f.name: getattr(made, f.name) for f in dataclasses.fields(Settings) if hasattr(made, f.name)}
    parts |= {"family": defaults.family, "reading": reading}
    others = {option: getattr(made, option) for option, *_ in _OTHERS[command]}
    return Experiment(family, record, dataclasses.replace(defaults, **parts)), others


def _reading_prefix(named: Method | None) -> str:
    """What stands before the options of reading: a word where a method has a rate of its own."""
    own = {field.name for field in dataclasses.fields(named.settings)} if named else set()
    return "reading." if own & set(_READING) else ""


def _reading(words: Sequence[str], prefix: str) -> ReadingConfig:
    """How a user's own data is read, which must be known before its settings can be."""
    given = {name: _after(words, f"--{prefix}{name.replace('_', '-')}") for name in _READING}
    try:
        rate = float(given["rate"]) if given["rate"] else None
    except ValueError as error:
        raise QuickstudyError(f"--{prefix}rate must be a number of steps a second; got '{given['rate']}'.") from error
    return reading_of(given["observation"], given["action"], rate, given["time_unit"] or "", given["mask"])


def _options(
    command: str,
    record: Method | None,
    defaults: Settings | None,
    about: str,
    family: TaskFamily | None = None,
    reading: str | None = None,
) -> type:
    """A dataclass of all options, for tyro; without settings, of those that every method has.

    Args:
        reading: what stands before the options of how a user's own data is read, where it is such.
    """
    s = defaults or Settings("", "maml")
    records = {name: m for name, m in methods.records().items() if family is None or not m.why_not(family)}
    usual = [name for name, m in records.items() if m.compared and m.role == "meta-learner"]
    usual = [name for name in usual if record is None or records[name].learns_from == record.learns_from]
    said = f"Such as {', '.join(usual[:_SHOWN])}; an unknown name lists all. Your own is package.module:attribute."
    fields: list[tuple[str, Any, Any]] = [
        ("family", _FAMILY, dataclasses.MISSING),
        ("method", _helped(str, said), dataclasses.field(default=s.method)),
        ("seed", _helped(int, "Draws the initial parameters, and the meta-batches."), dataclasses.field(default=0)),
    ]
    if record is None or record.learns_from == "demonstrations":
        started = "A run whose base network the training starts from, as far as the two are alike."
        fields.append(("start", _helped(str, started), dataclasses.field(default="")))
    fields += [(n, _helped(kind, text), dataclasses.field(default=value)) for n, kind, value, text in _OTHERS[command]]
    if record is not None and defaults is not None:
        parts = {"algorithm": "", "network": "network", "training": "training", "data": "data"}
        for part, prefix in parts.items():
            value = getattr(s, part)
            if dataclasses.fields(value) and (part != "data" or record.learns_from == "demonstrations"):
                kind = Annotated[type(value), arg(name=prefix)]  # type: ignore[valid-type]
                fields.append((part, kind, dataclasses.field(default=value)))
    if reading is not None:
        for name, (kind, text) in _READING.items():
            option = arg(name=f"{reading}{name.replace('_', '-')}", help=text, help_behavior_hint="")
            named = Annotated[kind, option]  # type: ignore[valid-type]
            fields.append((f"reading_{name}", named, dataclasses.field(default="" if kind is TimeUnit else None)))
    made = [(n, kind, f) if f is not dataclasses.MISSING else (n, kind) for n, kind, f in fields]
    return dataclasses.make_dataclass(command, made, frozen=True, namespace={"__doc__": about})


_SHOWN = 8
"""Methods that help names."""

_READING: dict[str, tuple[Any, str]] = {
    "observation": (str | None, "Features, keys or topics of your data that are the observation, as a,b."),
    "action": (str | None, "Likewise of the action."),
    "rate": (float | None, "Steps a second that your data is brought to."),
    "time_unit": (TimeUnit, "Of its time stamps."),
    "mask": (str | None, "The group of its episodes that is read, such as 'train'."),
}

_FAMILY = Positional[Annotated[str, arg(metavar="FAMILY", help="A task family; 'quickstudy families' lists them.")]]


def _helped(kind: Any, text: str) -> Any:
    return Annotated[kind, arg(help=text)]


def _after(words: Sequence[str], option: str) -> str | None:
    """The last value that an option is given."""
    found = None
    for i, word in enumerate(words):
        if word == option and i + 1 < len(words):
            found = words[i + 1]
        elif word.startswith(f"{option}="):
            found = word.removeprefix(f"{option}=")
    return found


def _family(words: Sequence[str], named: Method | None) -> int | None:
    """Where the family stands: the first word that is neither an option nor the value of one.

    Args:
        named: the method, where it is known already; without it, an option is what it may be to any method.
    """
    options = _arities([named] if named else methods.records().values())
    place = 0
    while place < len(words):
        word = words[place]
        if not word.startswith("-"):
            return place
        place += 1
        if "=" in word or place == len(words) or words[place].startswith("--"):
            continue
        arity = options.get(word.lstrip("-").replace("_", "-"), {"none", "one"})
        if "many" in arity:
            while place < len(words) and words[place].isdigit():
                place += 1
        elif arity == {"one"} or ("one" in arity and words[place] not in families.records()):
            place += 1
    return None


def _arities(records: Iterable[Method]) -> dict[str, set[str]]:
    """How many values an option takes, by its name: 'none', 'one' or 'many', or several of these by the method."""
    found: dict[str, set[str]] = {"help": {"none"}, "h": {"none"}, "method": {"one"}, "seed": {"one"}, "start": {"one"}}
    found |= {f"{prefix}{name.replace('_', '-')}": {"one"} for name in _READING for prefix in ("", "reading.")}
    leaves = [(name.replace("_", "-"), kind) for others in _OTHERS.values() for name, kind, *_ in others]
    for record in records:
        parts = {"": record.settings, "network.": record.network, "training.": record.training, "data.": DataConfig}
        leaves += [leaf for prefix, kind in parts.items() for leaf in _leaves(kind, prefix)]
    for name, hint in leaves:
        if hint is bool:
            head, dot, last = name.rpartition(".")
            found.setdefault(f"{head}{dot}no-{last}", set()).add("none")
        found.setdefault(name, set()).add("none" if hint is bool else "many" if "tuple" in str(hint) else "one")
    return found


def _leaves(kind: type, prefix: str) -> Iterator[tuple[str, Any]]:
    """The options that a settings class becomes, and their types."""
    for name, hint in typing.get_type_hints(kind).items():
        option = f"{prefix}{name.replace('_', '-')}"
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            yield from _leaves(hint, f"{option}.")
        else:
            yield option, hint
