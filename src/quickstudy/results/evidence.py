"""Evidence: a table of results is a file, written by the command that measured it; this module checks what it holds.

`quickstudy.results.tables` shows these tables.
"""

import functools
import json
import math
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

from quickstudy.errors import QuickstudyError, shown, sound, unknown, within
from quickstudy.io import files
from quickstudy.io.provenance import commit, machine, versions
from quickstudy.method import Experience, Role


class _Rule(NamedTuple):
    """What a field may hold: in words, and as a test. It stands in the field's type."""

    wanted: str
    holds: Callable[[Any], bool]


def _whole(least: int) -> _Rule:
    return _Rule(f"a whole number of at least {least}", lambda value: type(value) is int and value >= least)


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _bounds(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(map(_finite, value)) and value[0] <= value[1]


def _table_row(value: object) -> bool:
    return isinstance(value, list | tuple) and len(value) > 0 and all(map(_finite, value))


def _whole_numbers(value: object) -> bool:
    return isinstance(value, list | tuple) and all(type(number) is int for number in value)


def _text(pattern: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value, re.DOTALL) is not None


def _shown(value: Any) -> bool:
    return isinstance(value, str) and value.replace("\n", "").isprintable()


Text = Annotated[str, _Rule("a text without control characters", _shown)]
MethodName = Annotated[str, _Rule("a text that is not empty", lambda value: _shown(value) and value != "")]
CellName = Annotated[str, _Rule("words and digits joined by hyphens", _text("[a-z0-9]+(-[a-z0-9]+)*"))]
Index = Annotated[int, _whole(0)]
Count = Annotated[int, _whole(1)]
Number = Annotated[float, _Rule("a finite number", _finite)]
Amount = Annotated[float, _Rule("a finite number of at least 0", lambda value: _finite(value) and value >= 0)]
Interval = Annotated[Sequence[float], _Rule("two finite numbers, a lower and then an upper bound", _bounds)]
Scores = Annotated[
    Sequence[Sequence[float]],
    _Rule(
        "a list for each seed with a finite number for each task",
        lambda value: (
            isinstance(value, list | tuple) and all(_table_row(row) and len(row) == len(value[0]) for row in value)
        ),
    ),
]
Groups = Annotated[Sequence[int], _Rule("a whole number for each task", _whole_numbers)]
Means = Annotated[
    Mapping[str, float],
    _Rule("finite numbers by name", lambda value: isinstance(value, Mapping) and all(map(_finite, value.values()))),
]
Versions = Annotated[Mapping[str, str], _Rule("versions by package", lambda value: isinstance(value, Mapping))]


class _Checked:
    """A dataclass whose fields are checked against their types."""

    def _subject(self) -> str:
        raise NotImplementedError

    def __post_init__(self) -> None:
        kind: Any = type(self)
        for name, (rule, optional) in _rules(kind).items():
            value = getattr(self, name)
            if not ((optional and value is None) or rule.holds(value)):
                raise QuickstudyError(f"{self._subject()}: {name} must be {rule.wanted}; got {shown(value)}.")
            if rule.holds is _bounds and value is not None:
                object.__setattr__(self, name, tuple(value))


@functools.cache
def _rules(kind: type) -> dict[str, tuple[_Rule, bool]]:
    """By field: what it may hold, and whether it may be None."""
    found = {}
    for name, hint in typing.get_type_hints(kind, include_extras=True).items():
        parts = [part for part in typing.get_args(hint) if part is not type(None)]
        optional = type(None) in typing.get_args(hint)
        inner = parts[0] if optional else hint
        if typing.get_origin(inner) is Literal:
            choices = typing.get_args(inner)
            found[name] = _Rule(" or ".join(map(repr, choices)), choices.__contains__), optional
        elif typing.get_origin(inner) is Annotated:
            found[name] = inner.__metadata__[0], optional
    return found


@dataclass(frozen=True)
class Row(_Checked):
    """One measurement of one method.

    Attributes:
        method: as on the command line.
        shots: what it adapted from: demonstrations, labelled examples, or own episodes (see `learns_from`).
        value: the mean of the cell's metric; None in a table of speeds.
        ci95: 95 % confidence interval of `value`; none where one distinct task says nothing of others.
        seeds, tasks, episodes: training seeds; tasks of each; episodes of each task.
        distinct_tasks: how many of the tasks are distinct, see `TaskFamily.task_key`; intervals are over these.
        note: what a reader must know about this row.
        steps: adaptation steps, where they vary within the cell.
        workload: what was timed, such as 'W1'.
        threads: processor threads, where they vary.
        ms: median milliseconds: of one adaptation, or of the workload.
        ratio: speed relative to the peer that the protocol names; higher is faster.
        steps_per_second: simulation steps.
        memory_mb: peak memory above what the imports took.
        transductive: the metric where the learner sees all queries of a task together.
        parameters: numbers that the method learns in meta-training.
        training_s: seconds of meta-training, the mean over seeds.
        iqm, iqm_ci95: interquartile mean over seeds and tasks, see `quickstudy.results.statistics`.
        improvement, improvement_ci95: probability of improvement over the method that the protocol names.
        train_tasks, demonstrations, env_steps: what meta-training used: tasks, demonstrations of them all, and
            environment steps.
        act_ms: median milliseconds of one action.
        at: where along the cell's `against`, in a cell that varies a number.
        secondary_metrics: means of other measures than the cell's metric, each with its unit in its name.
        role: what the method is in a comparison, see `quickstudy.method.Method`.
        learns_from: what `shots` counts: 'demonstrations' (labelled examples are some), or own 'trials'.
        scores: [seed][task], means over the episodes of a task: what `value` and its intervals are computed from.
        groups: [task], equal numbers where two tasks are the same; none where all are distinct.
    """

    method: MethodName
    shots: Index | None = None
    value: Number | None = None
    ci95: Interval | None = None
    seeds: Count | None = None
    tasks: Count | None = None
    episodes: Count | None = None
    note: Text = ""
    steps: Index | None = None
    workload: Text = ""
    threads: Count | None = None
    ms: Amount | None = None
    ratio: Amount | None = None
    steps_per_second: Amount | None = None
    memory_mb: Amount | None = None
    transductive: Amount | None = None
    parameters: Count | None = None
    training_s: Amount | None = None
    iqm: Number | None = None
    iqm_ci95: Interval | None = None
    improvement: Amount | None = None
    improvement_ci95: Interval | None = None
    train_tasks: Count | None = None
    demonstrations: Count | None = None
    env_steps: Count | None = None
    act_ms: Amount | None = None
    at: Number | None = None
    secondary_metrics: Means | None = None
    role: Role | None = None
    learns_from: Experience = "demonstrations"
    distinct_tasks: Count | None = None
    scores: Scores | None = None
    groups: Groups | None = None

    def _subject(self) -> str:
        return f"Row '{self.method}'"

    @property
    def key(self) -> tuple[Any, ...]:
        """What tells this row from the others of its cell."""
        return self.method, self.shots, self.steps, self.workload, self.threads, self.at

    @property
    def known_role(self) -> Role | None:
        """Its role; where the file does not say it, that of the method of this name, if there is one."""
        return self.role or _role(self.method)

    @property
    def baseline(self) -> bool:
        """Whether it is there to be compared with: a baseline, a floor or an oracle."""
        return self.known_role not in (None, "meta-learner")

    def plain(self) -> dict[str, Any]:
        """As JSON holds it, without what it does not say."""
        said = {name: value for name, value in asdict(self).items() if value not in (None, "")}
        if self.learns_from == "demonstrations":
            del said["learns_from"]
        return said

    def __str__(self) -> str:
        named = {"shots": self.shots, "steps": self.steps, "workload": self.workload or None, "threads": self.threads}
        return f"'{self.method}'" + "".join(f", {name} {value}" for name, value in named.items() if value is not None)


@functools.cache
def _role(method: str) -> Role | None:
    from quickstudy.methods import records  # only older files need it

    record = records().get(method)
    return None if record is None else record.role


@dataclass(frozen=True)
class Cell(_Checked):
    """One table of evidence.

    Attributes:
        cell: its name, lower case words and digits joined by hyphens; its file is `<cell>.json`.
        metric: what `value` measures, such as 'success'.
        unit: of `value`; a 'fraction' is shown in per cent.
        protocol: one sentence: what is hidden, what varies, what counts as success.
        command: what to run to measure it again.
        seconds: how long that took.
        commit, versions, machine: where it ran, see `quickstudy.io.provenance`.
        against: what the rows' `at` counts, such as 'training tasks'; empty where nothing is varied.
        reference: the method that the rows' `improvement` is over.
        higher_is_better: of `value`.
    """

    cell: CellName
    metric: Text
    unit: Text
    protocol: Text
    command: Text
    seconds: Amount
    commit: Text
    versions: Versions
    machine: Text
    rows: Sequence[Row]
    against: Text = ""
    reference: Text = ""
    higher_is_better: bool = True

    def _subject(self) -> str:
        return f"Cell '{self.cell}'"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "rows", tuple(self.rows))
        if not self.rows:
            raise QuickstudyError(f"Cell '{self.cell}' has no row.")
        seen = set()
        for row in self.rows:
            if row.key in seen:
                raise QuickstudyError(f"Cell '{self.cell}' has two rows for {row}.")
            seen.add(row.key)
            for number in (row.value, row.iqm):
                if self.unit == "fraction" and number is not None and not 0 <= number <= 1:
                    raise QuickstudyError(f"Cell '{self.cell}', {row}: {number} is no fraction.")

    @property
    def baselines(self) -> set[str]:
        """Names of the methods that are there to be compared with."""
        return {row.method for row in self.rows if row.baseline}

    @property
    def experiences(self) -> list[Experience]:
        """What its methods learn from at test: 'demonstrations', 'trials', or both."""
        return sorted({row.learns_from for row in self.rows})

    @classmethod
    def measured_here(cls, *, seconds: float, **fields: Any) -> Self:
        """A cell that this process measured: commit, versions and machine are what they are here."""
        return cls(seconds=round(seconds, 1), commit=commit(), versions=versions(), machine=machine(), **fields)

    def write(self, path: Path) -> None:
        """Writes the cell as JSON, one row a line; the file appears whole or not at all."""
        about = asdict(self) | {"versions": dict(self.versions)}
        del about["rows"]
        for name in ("against", "reference", "higher_is_better"):
            if about[name] in ("", True):
                del about[name]
        head = json.dumps(about, indent=1, ensure_ascii=False, allow_nan=False)
        rows = ",\n".join("  " + json.dumps(row.plain(), ensure_ascii=False, allow_nan=False) for row in self.rows)
        files.write(path, f'{head[:-2]},\n "rows": [\n{rows}\n ]\n}}\n')

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads what `write` wrote.

        Raises:
            QuickstudyError: no such file, not JSON, or not a cell.
        """
        path = Path(path)
        if not path.exists():
            raise QuickstudyError(f"There is no results file '{path}'.")
        content = files.read_json(path)
        with within(f"'{path}'"), sound("it is no table of results"):
            _match(cls, content, "a cell")
            if not isinstance(content["rows"], list):
                raise QuickstudyError(f"rows must be a list; got {shown(content['rows'])}.")
            for row in content["rows"]:
                _match(Row, row, "a row")
            return cls(**{**content, "rows": [Row(**row) for row in content["rows"]]})


def _match(kind: type, content: Any, what: str) -> None:
    """Raises QuickstudyError unless `content` is an object with the fields of the dataclass `kind`."""
    if not isinstance(content, dict):
        raise QuickstudyError(f"{what} must be a JSON object; got {shown(content)}.")
    names = [f.name for f in fields(kind)]
    for name in content:
        if name not in names:
            raise unknown(f"field of {what}", name, names)
    missing = [f.name for f in fields(kind) if f.default is MISSING and f.name not in content]
    if missing:
        raise QuickstudyError(f"{what} lacks {', '.join(missing)}.")
