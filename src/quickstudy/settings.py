"""Settings as plain frozen dataclasses: each number once, checked where it is made, known to the command line as it is.

What a field may hold stands in its type (`PositiveInt`, `Fraction`, a `Literal`), and `Config` checks it. A method adds
a `Config` of its own beside its class; `Settings` puts all parts of an experiment together.
"""

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal, Self

from annotated_types import Ge, Gt, Le, Lt

from quickstudy.errors import QuickstudyError, shown, unknown

PositiveInt = Annotated[int, Gt(0)]
PositiveFloat = Annotated[float, Gt(0)]
NonNegativeInt = Annotated[int, Ge(0)]
NonNegativeFloat = Annotated[float, Ge(0)]
Fraction = Annotated[float, Ge(0), Le(1)]
OpenFraction = Annotated[float, Gt(0), Lt(1)]
Widths = Annotated[tuple[int, ...], Gt(0)]
"""Of the layers of a network; at least one."""
Amounts = Annotated[tuple[int, ...], Ge(0)]
"""Of experience to adapt from; at least one."""

Batching = Literal["auto", "vmap", "loop", "chunk"]
"""How a meta-batch is gone through, see `quickstudy.batching`."""

Changes = Mapping[str, Mapping[str, Any]]
"""What differs from the defaults, by part of `Settings`: 'network', 'algorithm', 'training', 'data' or 'reading'."""


class Config:
    """A frozen dataclass whose fields are checked against their types.

    Raises:
        QuickstudyError: when made with a value that a field's type does not allow.
    """

    def __post_init__(self) -> None:
        kind: Any = type(self)
        for name, (allowed, optional) in _allowed(kind).items():
            value = getattr(self, name)
            if not (optional and value is None) and (problem := _problem(value, allowed)):
                raise QuickstudyError(f"{name} must be {problem}; got {shown(value)}.")


@functools.cache
def _allowed(kind: Any) -> Mapping[str, tuple[Any, bool]]:
    """By field, the type that says what it may hold, and whether it may be None."""
    found = {}
    for name, hint in typing.get_type_hints(kind, include_extras=True).items():
        union = typing.get_origin(hint) in (typing.Union, types.UnionType)
        parts = typing.get_args(hint) if union else (hint,)
        held = [part for part in parts if part in _WORDS or typing.get_origin(part) in (Annotated, Literal)]
        if held:
            found[name] = held[0], type(None) in parts
    return found


_WORDS = {int: "a whole number", float: "a finite number", bool: "true or false", str: "a text"}


def _problem(value: Any, allowed: Any) -> str:
    """What a value must be that it is not; empty where it is fine."""
    if typing.get_origin(allowed) is Literal:
        choices = typing.get_args(allowed)
        return "" if value in choices else " or ".join(repr(choice) for choice in choices)
    kind: Any = allowed if allowed in _WORDS else allowed.__origin__
    bounds: tuple[Any, ...] = () if allowed in _WORDS else allowed.__metadata__
    if kind not in _WORDS:  # a tuple of whole numbers
        least = 1 if Gt(0) in bounds else 0
        fine = isinstance(value, tuple) and value and all(type(one) is int and one >= least for one in value)
        return "" if fine else f"one or more {'positive whole numbers' if least else 'whole numbers of 0 or more'}"
    typed = isinstance(value, (int, float) if kind is float else kind) and isinstance(value, bool) == (kind is bool)
    if not typed or (kind is float and not math.isfinite(value)):
        return _WORDS[kind]
    held = [
        bound.gt < value if isinstance(bound, Gt)
        else bound.ge <= value if isinstance(bound, Ge)
        else value < bound.lt if isinstance(bound, Lt)
        else value <= bound.le
        for bound in bounds
    ]  # fmt: skip
    if all(held):
        return ""
    if len(bounds) > 1:
        inclusive = "" if isinstance(bounds[0], Ge) else ", both excluded"
        return f"between 0 and 1{inclusive}"
    (bound,) = bounds
    return "positive" if isinstance(bound, Gt) else f"{getattr(bound, 'ge', 0)} or more"


@dataclass(frozen=True)
class NetworkConfig(Config):
    """The base network of a method that learns from demonstrations: `quickstudy.nets.MLP`, or `ConvNet` for images.

    Attributes:
        hidden: widths of its hidden layers.
        context: width of the learned constant beside the observation.
        normalise: layer normalisation before each ReLU.
        channels: of the convolutional blocks.
        batch_statistics: normalise convolutions by the batch at hand, which makes a learner transductive.
        bfloat16: take convolutions of numbers rounded to bfloat16.
        num_augmentations: copies of an image, all but the first distorted, of which a convolutional network gives the
            mean.
        embedding: width of what a network of images embeds them in, and of what a method that compares gets from any
            network instead of actions; 0 to compare observations themselves, standardised, without a network.
    """

    hidden: Widths = (128, 128)
    context: NonNegativeInt = 16
    normalise: bool = False
    channels: Widths = (64, 64, 64, 64)
    batch_statistics: bool = False
    bfloat16: bool = False
    num_augmentations: PositiveInt = 1
    embedding: NonNegativeInt = 64


@dataclass(frozen=True)
class PolicyConfig(Config):
    """The policy of a method that learns by trial without a memory: `quickstudy.methods.trials.policy.GaussianPolicy`.

    Attributes:
        hidden: widths of its hidden layers.
        activation: between them.
        std: deviation of actions before training, in halves of their range.
    """

    hidden: Widths = (64, 64)
    activation: Literal["relu", "tanh"] = "relu"
    std: PositiveFloat = 0.7


@dataclass(frozen=True)
class DataConfig(Config):
    """What is recorded for a training from demonstrations.

    Attributes:
        tasks: training tasks.
        demonstrations: of each training task.
        validation_tasks: validation tasks, which choose among checkpoints.
        validation_episodes: episodes of each validation task.
    """

    tasks: PositiveInt = 400
    demonstrations: PositiveInt = 6
    validation_tasks: PositiveInt = 40
    validation_episodes: PositiveInt = 3


@dataclass(frozen=True)
class ReadingConfig(Config):
    """How a user's own recordings are read, where they leave it open.

    Attributes:
        observation: the features, keys or topics whose numbers, side by side, are the observation; by default those
            that the format says.
        action: likewise of the action.
        rate: steps a second that the recordings are brought to; by default their own.
        time_unit: of their time stamps, where the format does not say; by default seconds.
        mask: the group of episodes that are read, of those that the file names; by default all.
    """

    observation: tuple[str, ...] = ()
    action: tuple[str, ...] = ()
    rate: PositiveFloat | None = None
    time_unit: Literal["", "s", "ms", "us", "ns"] = ""
    mask: str = ""


@dataclass(frozen=True)
class TrainConfig(Config):
    """The outer loop of a method that learns from demonstrations.

    Attributes:
        steps: outer steps, one meta-batch each.
        meta_batch: tasks in a meta-batch.
        shots: support demonstrations of each task.
        most_shots: where it is larger, each meta-batch has a number of shots drawn from `shots` to this one, so that
            a learner with a memory of its support knows supports of every length.
        queries: query demonstrations of each task.
        rate: outer learning rate.
        base_rate: factor of the rate for the base network, beside that for what else a method learns; 0 freezes it.
        optimiser: of the outer loop: 'adam', or 'sgd' without momentum.
        schedule: of the rate over all steps: a 'cosine' to a hundredth of it, 'linear' to zero, or 'constant'.
        clip: largest norm of the meta-gradient; longer ones are shortened to it.
        validate_every: outer steps between two looks at the validation tasks; a checkpoint is written each time.
        non_finite: what to do about a task whose loss or gradient is not finite: 'skip' it and say so, or 'stop';
            'halve' skips it, too, and where a training would stop because nothing is left, it goes back to its last
            checkpoint and on from there with half the rate.
        batching: how a meta-batch is gone through, see `quickstudy.batching`.
    """

    steps: PositiveInt = 3000
    meta_batch: PositiveInt = 16
    shots: PositiveInt = 1
    most_shots: int = 1
    queries: PositiveInt = 2
    rate: PositiveFloat = 1e-3
    base_rate: NonNegativeFloat = 1.0
    optimiser: Literal["adam", "sgd"] = "adam"
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    clip: PositiveFloat = 10.0
    validate_every: PositiveInt = 500
    non_finite: Literal["skip", "stop", "halve"] = "skip"
    batching: Batching = "auto"


@dataclass(frozen=True)
class TrialConfig(Config):
    """The outer loop of a method that learns by trial.

    Attributes:
        steps: outer steps, one meta-batch of freshly drawn tasks each.
        meta_batch: tasks in a meta-batch.
        episodes_per_task: episodes of each task between two updates; for a learner with a memory, trials of each task.
        validate_every: outer steps between two looks at the validation tasks; a checkpoint is written each time.
        validation_tasks: of each look.
        validation_rounds: adaptations after which the family's metric on them chooses among checkpoints.
        most_faults: environments that may fail, rewards that may be no numbers and steps that may be not finite, all
            together, before training stops.
        lr_decay_fraction: share of the steps, the last ones, over which the rate of the learner's optimiser falls to
            zero in a straight line; 0 keeps it as it is. What a learner does decides what it learns from: one that
            still changes is tested on experience that it has only begun to make.
    """

    steps: PositiveInt = 200
    meta_batch: PositiveInt = 20
    episodes_per_task: PositiveInt = 20
    validate_every: PositiveInt = 20
    validation_tasks: PositiveInt = 20
    validation_rounds: PositiveInt = 1
    most_faults: NonNegativeInt = 100
    lr_decay_fraction: Fraction = 0.0


@dataclass(frozen=True)
class NoSettings(Config):
    """Of a method that has nothing to set."""


@dataclass(frozen=True)
class Settings(Config):
    """Everything that decides how a learner is trained: enough to repeat it.

    Attributes:
        family, method: as on the command line.
        seed: draws the initial parameters, and the meta-batches or tasks and noise.
        start: a run folder, of any method that learns from demonstrations, whose base network the training starts from,
            as far as the two are alike.
        network: of the base learner.
        algorithm: the method's own, of the class that its record names.
        training: of the outer loop.
        data: what is recorded, for a method that learns from demonstrations.
        reading: how a user's own recordings are read.
    """

    family: str
    method: str
    seed: NonNegativeInt = 0
    start: str = ""
    network: Any = field(default_factory=NetworkConfig)
    algorithm: Any = field(default_factory=NoSettings)
    training: Any = field(default_factory=TrainConfig)
    data: DataConfig = field(default_factory=DataConfig)
    reading: ReadingConfig = field(default_factory=ReadingConfig)

    def changed(self, changes: Changes) -> Self:
        """With other values of some fields, by part.

        Raises:
            QuickstudyError: there is no such field, or it does not allow the value.
        """
        made: Self = _changed(self, changes)
        return made


def _changed(config: Any, changes: Mapping[str, Any]) -> Any:
    """A dataclass with other values; those of a field that is a dataclass itself are changed one by one."""
    values = dict(changes)
    for name, value in changes.items():
        own = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
        if name not in own:
            raise unknown("setting", name, own)
        if isinstance(value, Mapping) and dataclasses.is_dataclass(own[name]):
            values[name] = _changed(own[name], value)
    return replace(config, **values)


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted names."""
    pairs: dict[str, Any] = {}
    for name, value in settings.items():
        pairs |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return pairs


def from_plain(kind: type, plain: Mapping[str, Any], where: str) -> Any:
    """A settings dataclass from what `dataclasses.asdict` and JSON made of it.

    Raises:
        QuickstudyError: a field that does not exist (a file of another version), or a value that is not allowed.
    """
    hints = typing.get_type_hints(kind)
    surplus = plain.keys() - hints.keys()
    if surplus:
        raise QuickstudyError(f"'{where}' has the unknown setting {', '.join(sorted(surplus))}.")
    values = {}
    for name, value in plain.items():
        nested = isinstance(value, Mapping) and dataclasses.is_dataclass(hints[name])
        values[name] = from_plain(hints[name], value, where) if nested else value
        if isinstance(value, list):
            values[name] = tuple(value)
    return kind(**values)
