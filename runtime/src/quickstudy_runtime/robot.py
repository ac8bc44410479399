"""Load a bundle, adapt to a demonstration, act."""

import functools
import json
import math
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from quickstudy_runtime import tensors
from quickstudy_runtime.bundle import Bundle, Channels, check_leaves, read
from quickstudy_runtime.errors import BundleError, InputError, place, shown
from quickstudy_runtime.guard import Gate, Guard, Names
from quickstudy_runtime.version import VERSION

_MOST_STEPS, _MOST_FILE = 1_000_000, 1 << 30
"""Steps of all demonstrations, each counted as the longest; bytes that a file of them unpacks to."""
_TOO_FAR = (30.0, 8.0)
"""Deviations from training's mean, and widths of its range beyond it, from which on, both together, a demonstration is
too far from training to adapt to; as `quickstudy adapt` has it."""

Demonstration = Any
"""(observations, actions), a mapping with these two keys, or the path of an .npz file that holds them."""


class Robot:
    """A trained learner, ready to learn tasks.

    Args:
        bundle: what `quickstudy export` wrote.
        guard: how strict its skills are, see `Guard`.
        threads: of the processor, for one call.

    Raises:
        BundleError: its graphs cannot be run.
    """

    def __init__(self, bundle: Bundle, guard: Guard | None = None, threads: int = 1) -> None:
        self.bundle, self.guard = bundle, guard
        self._order = [(channels, Names(channels)) for channels in (bundle.observation, bundle.action)]
        self.by_trial = bundle.learns_from == "trials"
        Gate(bundle.observation, bundle.action, guard)  # a guard that does not fit is told now
        self._act = _Graph(bundle, "act", threads)
        self._adapt = _Graph(bundle, "adapt", threads) if "adapt" in bundle.graphs else None
        try:
            skill = Skill(self, bundle.begin, Guard(on_bad="refuse", margin=math.inf))
            skill._policy(_middle(bundle.observation), 0.0, False)
        except InputError as error:
            raise BundleError(f"The bundle does not act: {error}") from error

    def __repr__(self) -> str:
        bundle = self.bundle
        return (
            f"Robot({bundle.method} on {bundle.family}: {len(bundle.observation)} observation channels, "
            f"{len(bundle.action)} action channels)"
        )

    def adapt(self, demonstrations: Iterable[Demonstration] | Demonstration, guard: Guard | None = None) -> "Skill":
        """Learns one task from its demonstrations.

        Args:
            demonstrations: each of [step, obs] and [step, act], arrays or named channels; or paths of .npz files. One
                path or mapping alone is one demonstration.

        Raises:
            InputError: none at all, or one that cannot be used.
        """
        if self._adapt is None:
            raise InputError(
                f"'{self.bundle.method}' does not learn from demonstrations; begin() gives the skill that it acts with."
            )
        if isinstance(demonstrations, str | Path | Mapping):
            demonstrations = [demonstrations]
        if not isinstance(demonstrations, Iterable):
            raise InputError(f"Demonstrations must be a list of them; got {shown(demonstrations)}.")
        made = self._adapt({"support": self._collate(list(demonstrations)), **self.bundle.parameters})
        leaves = {leaf.name: made[leaf.name] for leaf in self.bundle.skill}
        try:
            check_leaves(leaves, self.bundle.skill, "what adaptation made")
        except BundleError as error:
            raise InputError(f"Nothing was learned from these demonstrations: {error}") from error
        return Skill(self, leaves, guard or self.guard)

    def begin(self, guard: Guard | None = None) -> "Skill":
        """The skill before any demonstration."""
        return Skill(self, dict(self.bundle.begin), guard or self.guard)

    def load_skill(self, path: str | Path, guard: Guard | None = None) -> "Skill":
        """A skill that `Skill.save` wrote.

        Raises:
            BundleError: no such file, damaged, or a skill of another bundle.
        """
        where = place(path)
        try:
            data = Path(path).read_bytes()
        except (OSError, ValueError) as error:
            raise BundleError(f"{where} cannot be read ({getattr(error, 'strerror', None) or error}).") from None
        arrays, metadata = tensors.load(data, where)
        try:
            about = json.loads(metadata.get("quickstudy", "{}"))
            whose = about.get("bundle")
        except (ValueError, AttributeError, RecursionError):
            raise BundleError(f"{where} does not say what skill it is.") from None
        if whose != self.bundle.hash:
            raise BundleError(f"{where} is a skill of another learner than this bundle holds.")
        check_leaves(arrays, self.bundle.skill, where)
        return Skill(self, arrays, guard or self.guard)

    def warm_up(self) -> float:
        """Acts and adapts once on made-up numbers, so that no first call is slow; gives the seconds that it took."""
        started = time.perf_counter()
        middle = _middle(self.bundle.observation)
        if self._adapt is not None:
            self.adapt([(np.tile(middle, (2, 1)), np.tile(_middle(self.bundle.action), (2, 1)))])
        Skill(self, self.bundle.begin, Guard(on_bad="refuse", margin=math.inf)).act(middle)
        return time.perf_counter() - started

    def _collate(self, given: Sequence[Demonstration]) -> np.ndarray:
        """Demonstrations padded to one length: observations, actions, mask side by side, [shot, step, ...]."""
        if not given:
            raise InputError("Adaptation needs at least one demonstration; got none.")
        pairs = [self._checked(one, i) for i, one in enumerate(given)]
        steps = max(len(x) for x, _ in pairs)
        if steps * len(pairs) > _MOST_STEPS:
            raise InputError(
                f"{len(pairs)} demonstrations of up to {steps:,} steps are too many: {_MOST_STEPS:,} are allowed, each "
                "of them counted as the longest."
            )
        width = len(self.bundle.observation) + len(self.bundle.action)
        support = np.zeros((len(pairs), steps, width + 1), np.float32)
        for i, (x, y) in enumerate(pairs):
            support[i, : len(x), :width], support[i, : len(x), width] = np.concatenate([x, y], 1), 1.0
        return support

    def _checked(self, given: Demonstration, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Observations and actions [step, width], centred as the graphs take them."""
        where = f"Demonstration {number}"
        if isinstance(given, str | Path):
            where, given = place(given), _arrays(Path(given))

        def fault(reason: str, sentence: str, what: str = "") -> InputError:
            return InputError(f"{where} cannot be used: {f'of its {what}, ' if what else ''}{sentence}.")

        if isinstance(given, Mapping):
            if not {"observations", "actions"} <= given.keys():
                raise fault("", "it needs 'observations' and 'actions'")
            given = given["observations"], given["actions"]
        if not isinstance(given, tuple | list) or len(given) != 2:
            raise fault("", "it must be (observations, actions)")
        tables = []
        for what, (channels, names), part in zip(("observations", "actions"), self._order, given, strict=True):
            table = names.table(part, functools.partial(fault, what=what))
            bad = np.argwhere(~np.isfinite(table))
            if len(bad):
                step, channel = bad[0]
                raise fault("", f"in step {step}, channel '{channels.names[channel]}' is {table[step, channel]}")
            far = _farthest(table, channels)
            if far is not None:
                step, channel = far
                raise fault(
                    "",
                    f"in step {step}, channel '{channels.names[channel]}' is {table[step, channel]:g}; training had "
                    f"{channels.met_low[channel]:g} to {channels.met_high[channel]:g}",
                )
            tables.append(_scaled(table, channels))
            if not np.isfinite(tables[-1]).all():
                raise fault("", "a number in it is too large", what)
        if not len(tables[0]) or len(tables[0]) != len(tables[1]):
            raise fault("", f"it has {len(tables[0])} observations and {len(tables[1])} actions")
        return tables[0], tables[1]


class Skill:
    """What a robot learned of one task: it acts, and keeps what it remembers while it acts.

    Attributes:
        counts: what was acted, held, refused, clipped and why, see `quickstudy_runtime.guard.Gate`.
        status: what the last `act` did: '' where it acted, else why not.
    """

    def __init__(
        self,
        robot: Robot,
        leaves: Mapping[str, np.ndarray],
        guard: Guard | None = None,
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._robot, self._start, self._clocks = robot, dict(leaves), (clock, timer)
        self._gate = Gate(robot.bundle.observation, robot.bundle.action, guard, clock, timer)
        self.reset()

    def __repr__(self) -> str:
        return f"Skill({self._robot!r}, {dict(self.counts)})"

    @property
    def counts(self) -> Counter[str]:
        return self._gate.counts

    @property
    def status(self) -> str:
        return self._gate.status

    def reset(self, last: Any = None) -> None:
        """A new episode: memories and clocks start again; what was learned from demonstrations stays.

        What a learner by trial remembers is what it learned: for it this is a new task, and between the episodes of
        one task `act(..., done=True)` takes its place.

        Args:
            last: [act], what the robot was told before. Where a bad observation is to keep the last value of a channel,
                that is it until the first action; without it such an observation is refused.

        Raises:
            InputError: `last` is no action.
        """
        self._gate.restart(last)
        self._leaves = dict(self._start)
        self._previous = np.zeros(len(self._robot.bundle.action), np.float32)

    def act(
        self,
        observation: Any,
        *,
        stamp: float | None = None,
        sequence: int | None = None,
        reward: float = 0.0,
        done: bool = False,
    ) -> np.ndarray:
        """The action [act] for an observation, finite and within the limits.

        Args:
            observation: [obs], or named channels.
            stamp: when it was measured, in seconds of the system's clock; checked where it is given.
            sequence: its number, which must rise; checked where it is given.
            reward, done: of the step before, for a learner by trial.

        Raises:
            InputError: the observation cannot be used, and the guard refuses rather than holds.
        """
        try:
            values = self._gate.admit(observation, stamp, sequence)
            if self._gate.too_soon():
                return self._gate.repeat()
            action = self._gate.release(self._policy(values, reward, done))
        except InputError as error:
            action = self._gate.instead(error)
        if self._robot.by_trial:
            self._previous = _scaled(action, self._robot.bundle.action)
        return action

    def _policy(self, values: np.ndarray, reward: float, done: bool) -> np.ndarray:
        bundle = self._robot.bundle
        observation = _scaled(values, bundle.observation)
        if not np.isfinite(observation).all():
            raise self._gate.fault("range", "The observation is not used: a number in it is too large.")
        given = {**self._leaves, **bundle.parameters, "observation": observation}
        if self._robot.by_trial:
            try:
                given["reward"] = np.array([float(reward)], np.float32)
                given["done"] = np.array([bool(done)], np.float32)
            except (TypeError, ValueError, OverflowError):
                given["reward"] = np.array([np.nan])
            if not np.isfinite(given["reward"]).all():
                raise self._gate.fault("reward", f"The reward must be a finite number; got {shown(reward)}.")
            given["previous_action"] = self._previous
        made = self._robot._act(given)
        action, changed = made["action"], {name: made[f"next.{name}"] for name in bundle.changes}
        if action.shape != (len(bundle.action),):
            raise self._gate.fault("learner", f"The learner's action has the shape {shown(action.shape)}.")
        if not all(np.isfinite(array).all() for array in (action, *changed.values())):
            raise self._gate.fault("learner", "What the learner does or remembers is not finite; it is not used.")
        self._leaves |= changed
        with np.errstate(over="ignore"):
            return action * bundle.action.scale + bundle.action.offset

    def copy(self) -> "Skill":
        """The same skill for another robot, with memories, clocks and counts of its own."""
        return Skill(self._robot, self._start, self._gate.guard, *self._clocks)

    def save(self, path: str | Path) -> None:
        """Writes the skill as .safetensors with what it is of, whole or not at all.

        Raises:
            BundleError: it cannot be written there.
        """
        bundle, path = self._robot.bundle, Path(path)
        about = {
            "bundle": bundle.hash, "run": bundle.run, "method": bundle.method, "family": bundle.family,
            "rate": bundle.rate, "runtime": VERSION,
            **{what: {"names": channels.names, "units": channels.units, "offset": channels.offset.tolist(),
                      "scale": channels.scale.tolist()}
               for what, channels in (("observation", bundle.observation), ("action", bundle.action))},
        }  # fmt: skip
        temporary = path.with_name(f".{path.name}.partial")
        try:
            temporary.write_bytes(tensors.save(self._start, {"quickstudy": json.dumps(about)}))
            temporary.replace(path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise BundleError(f"The skill cannot be written to {place(path)} ({error.strerror}).") from None


class _Graph:
    """One graph of a bundle, run by ONNX Runtime."""

    def __init__(self, bundle: Bundle, name: str, threads: int) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 4
        try:
            self._session = ort.InferenceSession(
                bundle.graphs[name], options, providers=["CPUExecutionProvider"], enable_fallback=0
            )
        except Exception as error:  # ONNX Runtime's own errors share no base
            raise BundleError(
                f"The bundle's graph '{name}' cannot be run by this ONNX Runtime {ort.__version__}."
            ) from error
        self._inputs = [one.name for one in self._session.get_inputs()]
        self._outputs = [one.name for one in self._session.get_outputs()]
        allowed = {leaf.name for leaf in bundle.skill} | set(bundle.parameters)
        allowed |= {"observation", "previous_action", "reward", "done"} if name == "act" else {"support"}
        wanted = (
            {"action", *(f"next.{n}" for n in bundle.changes)}
            if name == "act"
            else {leaf.name for leaf in bundle.skill}
        )
        if not set(self._inputs) <= allowed or not wanted <= set(self._outputs):
            raise BundleError(f"The bundle's graph '{name}' does not take or give what its manifest says.")
        self._name = name

    def __call__(self, given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        try:
            made = self._session.run(None, {name: given[name] for name in self._inputs})
        except Exception as error:
            raise InputError(f"The graph '{self._name}' failed on this input.") from error
        return dict(zip(self._outputs, made, strict=True))


def load(path: str | Path, guard: Guard | None = None, threads: int = 1) -> Robot:
    """A trained learner from its bundle.

    Raises:
        BundleError: there is none, or it is damaged, changed, or of another version.
    """
    return Robot(read(path), guard, threads)


def _scaled(values: np.ndarray, channels: Channels) -> np.ndarray:
    """Numbers [..., channel] as the graphs take them; too large ones are infinite."""
    with np.errstate(over="ignore"):
        scaled: np.ndarray = ((values - channels.offset) / channels.scale).astype(np.float32)
    return scaled


def _farthest(table: np.ndarray, channels: Channels) -> tuple[int, int] | None:
    """Step and channel of values [step, channel] that lie too far outside of training; None where none does."""
    with np.errstate(over="ignore", invalid="ignore"):
        width = channels.met_high - channels.met_low
    known = np.isfinite(width) & (width > 0) & (channels.deviation > 0)
    if not known.any():
        return None
    part, low, high = table[:, known], channels.met_low[known], channels.met_high[known]
    with np.errstate(over="ignore"):
        deviations = np.abs(part - channels.mean[known]) / channels.deviation[known]
        widths = np.maximum(part - high, low - part) / width[known]
    too_far = np.where((deviations > _TOO_FAR[0]) & (widths > _TOO_FAR[1]), deviations, 0.0)
    if not too_far.any():
        return None
    step, place = np.unravel_index(too_far.argmax(), too_far.shape)
    return int(step), int(np.flatnonzero(known)[place])


def _middle(channels: Channels) -> np.ndarray:
    low = np.where(np.isfinite(channels.low), channels.low, np.where(np.isfinite(channels.high), channels.high, 0.0))
    high = np.where(np.isfinite(channels.high), channels.high, low)
    return (low + high) / 2


def _arrays(path: Path) -> dict[str, Any]:
    """Observations and actions of an .npz, by name where it names their channels."""
    keys = ("observations", "actions", "observation_names", "action_names")
    try:
        with zipfile.ZipFile(path) as members:
            size = sum(one.file_size for one in members.infolist())
        if size > _MOST_FILE:
            raise InputError(f"{place(path)} unpacks to more than a demonstration has ({_MOST_FILE >> 20} MB).")
        with np.load(path, allow_pickle=False) as file:
            found: dict[str, Any] = {key: np.asarray(file[key]) for key in file.files if key in keys}
        names = {what: [str(name) for name in found.get(f"{what}_names", ())] for what in ("observation", "action")}
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"There is no file {place(path)}.") from None
    except Exception:  # zipfile, zlib, struct and NumPy each have their own
        raise InputError(f"{place(path)} is not an .npz of arrays.") from None
    for what, every in names.items():
        table = found.get(f"{what}s")
        if not every or table is None:
            continue
        if table.ndim != 2 or table.shape[1] != len(every):
            raise InputError(f"{place(path)} cannot be used: its {what}_names do not fit its {what}s.")
        found[f"{what}s"] = {name: table[:, i] for i, name in enumerate(every)}
    return found
