"""The methods by name, and all settings of a training as one plain dataclass, from which the command line is made."""

import dataclasses
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from quickstudy import datasets
from quickstudy.data import Batch
from quickstudy.errors import QuickstudyError, unknown
from quickstudy.families.motions import recordings
from quickstudy.families.recorded import QUERIES, SHARES, split_labels
from quickstudy.learner import BaseLearner, MetaLearner, imitation_loss, recognition_loss, root_imitation_loss
from quickstudy.methods.demonstrations import baselines
from quickstudy.methods.demonstrations.baselines import FineTuneConfig
from quickstudy.methods.demonstrations.hypernet import Hypernet, HypernetClassifier, HypernetConfig
from quickstudy.methods.demonstrations.maml import MAML, MAMLConfig
from quickstudy.methods.demonstrations.mann import MANN, MANNConfig
from quickstudy.methods.demonstrations.matching import MatchingConfig, MatchingNetworks
from quickstudy.methods.demonstrations.meta_lstm import MetaLSTM, MetaLSTMConfig
from quickstudy.methods.demonstrations.permutation_invariant import HypernetRoles, RolesConfig
from quickstudy.methods.demonstrations.prototypical import PrototypicalConfig, PrototypicalNetworks
from quickstudy.methods.demonstrations.reptile import Reptile, ReptileConfig
from quickstudy.methods.demonstrations.siamese import Siamese, SiameseConfig
from quickstudy.methods.demonstrations.task_parameterised import FramesConfig, MatchingFrames
from quickstudy.methods.demonstrations.warp import Warp
from quickstudy.nets import MLP, ConvClassifier, ConvNet, check_widths
from quickstudy.task import TaskFamily
from quickstudy.train import TrainConfig


@dataclass(frozen=True)
class NetworkConfig:
    """The base network: `quickstudy.nets.MLP`, or `quickstudy.nets.ConvNet` where observations are images.

    Attributes:
        hidden: widths of its hidden layers.
        context: width of the learned constant beside the observation.
        normalise: layer normalisation before each ReLU.
        channels: of the convolutional blocks.
        batch_statistics: normalise convolutions by the batch at hand, which makes a learner transductive.
        bfloat16: take convolutions of numbers rounded to bfloat16.
        num_augmentations: of an image, of which a convolutional network gives the mean.
        embedding: width of what a network of images embeds them in, and of what a method that compares gets from any
            network instead of actions; 0 to compare observations themselves, standardised, without a network.
    """

    hidden: tuple[int, ...] = (128, 128)
    context: int = 16
    normalise: bool = False
    channels: tuple[int, ...] = (64, 64, 64, 64)
    batch_statistics: bool = False
    bfloat16: bool = False
    num_augmentations: int = 1
    embedding: int = 64

    def __post_init__(self) -> None:
        for name, least in (("context", 0), ("num_augmentations", 1), ("embedding", 0)):
            if getattr(self, name) < least:
                raise QuickstudyError(f"{name} must be {least} or more; got {getattr(self, name)}.")
        check_widths(hidden=self.hidden, channels=self.channels)


@dataclass(frozen=True)
class DataConfig:
    """What is recorded for a training.

    Attributes:
        tasks: training tasks.
        demonstrations: of each training task.
        validation_tasks: validation tasks, which choose among checkpoints.
        validation_episodes: episodes of each validation task.
    """

    tasks: int = 400
    demonstrations: int = 6
    validation_tasks: int = 40
    validation_episodes: int = 3

    def __post_init__(self) -> None:
        for name, number in vars(self).items():
            if number < 1:
                raise QuickstudyError(f"{name} must be 1 or more; got {number}.")


@dataclass(frozen=True)
class Settings:
    """Everything that decides how a learner is trained; with the family and the method, enough to repeat it.

    Attributes:
        start: a run folder, of any method, whose base network the training starts from, as far as the two are alike.
    """

    family: str
    method: str
    seed: int = 0
    start: str = ""
    network: NetworkConfig = field(default_factory=NetworkConfig)
    maml: MAMLConfig = field(default_factory=MAMLConfig)
    reptile: ReptileConfig = field(default_factory=ReptileConfig)
    meta_lstm: MetaLSTMConfig = field(default_factory=MetaLSTMConfig)
    mann: MANNConfig = field(default_factory=MANNConfig)
    siamese: SiameseConfig = field(default_factory=SiameseConfig)
    matching: MatchingConfig = field(default_factory=MatchingConfig)
    frames: FramesConfig = field(default_factory=FramesConfig)
    prototypical: PrototypicalConfig = field(default_factory=PrototypicalConfig)
    hypernet: HypernetConfig = field(default_factory=HypernetConfig)
    roles: RolesConfig = field(default_factory=RolesConfig)
    fine_tune: FineTuneConfig = field(default_factory=FineTuneConfig)
    training: TrainConfig = field(default_factory=TrainConfig)
    data: DataConfig = field(default_factory=DataConfig)


_RECOGNITION = Settings(
    "omniglot-5way",
    "prototypical",
    network=NetworkConfig(channels=(32, 64, 128, 256), bfloat16=True, embedding=256),
    maml=MAMLConfig(inner_steps=3, inner_rate=0.1),
    training=TrainConfig(steps=6000, meta_batch=16, shots=1, queries=3, validate_every=1500),
    data=DataConfig(validation_tasks=400, validation_episodes=15),
)

_MANY_WAYS = replace(_RECOGNITION, training=replace(_RECOGNITION.training, meta_batch=4))

_GRASPING = Settings(
    "grasping", "meta-sgd", maml=MAMLConfig(inner_steps=3), training=TrainConfig(steps=1500, validate_every=500)
)

_NAVIGATION = Settings(
    "navigation",
    "matching",
    maml=MAMLConfig(inner_steps=3),
    training=TrainConfig(steps=3000, validate_every=1000),
    data=DataConfig(tasks=1000, demonstrations=4, validation_episodes=2),
)

_ML1 = Settings(
    "ml1-push", "hypernet", maml=MAMLConfig(inner_steps=3), training=TrainConfig(steps=3000, validate_every=1000)
)

_SCRAMBLED = replace(_ML1, method="hypernet-roles")

_METAWORLD = ("ml10", "ml10-imitation", "ml45", "ml45-imitation", "tools")
"""Families of several of Meta-World's tasks."""

_MOTIONS = Settings(
    "motions",
    "matching",
    network=NetworkConfig((64, 64), embedding=32),
    maml=MAMLConfig(inner_steps=3),
    matching=MatchingConfig(head="local-linear", scale=30.0, ridge=1e-3),
    training=TrainConfig(1000, meta_batch=8, shots=1, most_shots=3, queries=3, rate=2e-3, validate_every=500),
    data=DataConfig(validation_tasks=16),
)

DEFAULTS: dict[str, Settings] = {
    "grasping": _GRASPING,
    "grasping-panda": _GRASPING,
    "navigation": _NAVIGATION,
    "navigation-dynamics": _NAVIGATION,
    "ml1-reach": _ML1,
    "ml1-push": _ML1,
    "ml1-pick-place": _ML1,
    **{
        name: replace(
            _ML1, method="matching-frames", data=DataConfig(tasks=1000, demonstrations=4, validation_tasks=50)
        )
        for name in _METAWORLD
    },
    "motions": _MOTIONS,
    "omniglot-5way": _RECOGNITION,
    "omniglot-20way": _MANY_WAYS,
    "omniglot-60way": replace(_MANY_WAYS, training=replace(_MANY_WAYS.training, meta_batch=1)),
    "omniglot-within-alphabet-20way": _MANY_WAYS,
    "point-navigation": Settings(
        "point-navigation",
        "maml",
        network=NetworkConfig((64, 64), 8),
        training=TrainConfig(steps=2000, validate_every=500),
    ),
    "sinusoid": Settings(
        "sinusoid",
        "maml",
        network=NetworkConfig((40, 40), context=0),
        maml=MAMLConfig(inner_steps=2, inner_rate=0.01, every_step=True),
        training=TrainConfig(steps=70_000, meta_batch=25, shots=5, queries=10, validate_every=5000),
        data=DataConfig(validation_tasks=600, validation_episodes=100),
    ),
}
"""The settings that a command starts from.

Sinusoid has the paper's (Finn et al. 2017, section 5.1) but for a second inner step that counts as much as the first:
with one alone, a few five-point tasks diverge when they are given more steps at test.
"""


OUTER: dict[str, dict[str, Any]] = {
    "reptile": {"optimiser": "sgd", "rate": 1.0, "schedule": "linear", "clip": 1e9},
    "hypernet-roles": {"rate": 2e-3, "clip": 1.0},
}
"""Settings of the outer loop that a method needs on every family.

Reptile's outer step is theta + rate (mean phi - theta), the rate falling to zero; nothing else would be Reptile.
"""

_NARROW: dict[str, dict[str, Any]] = {
    "network": {"channels": (32, 32, 64, 64), "embedding": 64},
    "data": {"validation_tasks": 100},
}
"""For methods whose inner loop goes through the network again and again."""

_COMPARING = ("siamese", "matching", "matching-convex")

_GRASPING_OVERRIDES: dict[str, dict[str, dict[str, Any]]] = {
    "mann": {
        "mann": {"slots": 64, "controller": 128, "support_loss": 1.0},
        "training": {"steps": 500, "queries": 1, "most_shots": 3},
    },
    "reptile": {"reptile": {"inner_steps": 10, "batch": 50}},
    **{method: {"training": {"steps": 600, "validate_every": 300}} for method in _COMPARING},
    "meta-lstm": {
        "network": {"hidden": (64, 64)},
        "meta_lstm": {"initial_rate": 0.05},
        "training": {"meta_batch": 4},
    },
}

_LONG_OVERRIDES: dict[str, dict[str, dict[str, Any]]] = {
    # All pairs of a query and a support step: so many that a large meta-batch takes seconds.
    "siamese": {
        "network": {"embedding": 32},
        "siamese": {"width": 32},
        "training": {"meta_batch": 4, "queries": 1},
    },
    "mann": {
        "mann": {"slots": 64, "controller": 128, "support_loss": 1.0},
        "training": {"steps": 500, "validate_every": 250, "meta_batch": 8, "queries": 1, "most_shots": 3},
    },
    "reptile": {"reptile": {"inner_steps": 10, "batch": 50}},
    "meta-lstm": {
        "network": {"hidden": (64, 64)},
        "meta_lstm": {"initial_rate": 0.05},
        "training": {"steps": 1500, "validate_every": 500, "meta_batch": 4},
    },
    **{method: {"training": {"steps": 1500, "validate_every": 500}} for method in ("maml", "meta-sgd")},
    "matching-frames": {"training": {"steps": 500, "validate_every": 100, "rate": 3e-3, "most_shots": 2}},
}
"""Families whose demonstrations are long."""

OVERRIDES: dict[tuple[str, str], dict[str, dict[str, Any]]] = {
    **{
        (family, method): {
            "training": {"steps": steps, "meta_batch": tasks, "queries": 10, "most_shots": 5, "base_rate": 0.1}
        }
        for method, family, steps, tasks in (
            ("mann", "omniglot-5way", 3000, 16),
            ("mann", "omniglot-20way", 3000, 4),
            ("mann-raw", "omniglot-5way", 7000, 32),
            ("mann-raw", "omniglot-20way", 7000, 8),
        )
    },
    **{
        (family, method): {"training": {"steps": 2000, "validate_every": 500}}
        for family in ("omniglot-60way", "omniglot-within-alphabet-20way")
        for method in ("siamese", "matching", "matching-fce")
    },
    ("omniglot-60way", "prototypical"): {"training": {"steps": 13_000}},
    **{
        (family, "hypernet"): {"training": {"steps": 1500, "validate_every": 500, "rate": 5e-4}}
        for family in ("omniglot-60way", "omniglot-within-alphabet-20way")
    },
    **{
        (family, method): {
            **_NARROW,
            "maml": {"inner_steps": 2, "inner_rate": 0.03, "shared_head": True},
            "training": {"steps": 3200, "meta_batch": tasks, "rate": 2e-3, "most_shots": 5, "validate_every": 400},
        }
        for family, tasks in (("omniglot-5way", 8), ("omniglot-20way", 4))
        for method in ("maml", "anil")
    },
    **{
        (family, "reptile"): {
            **_NARROW,
            "reptile": {"inner_steps": 8, "inner_rate": 2e-3, "test_steps": 20},
            "training": {"steps": 3000, "meta_batch": tasks, "queries": 9, "validate_every": 500},
        }
        for family, tasks in (("omniglot-5way", 5), ("omniglot-20way", 2))
    },
    **{
        (family, "meta-lstm"): {
            **_NARROW,
            "meta_lstm": {"inner_steps": 4, "initial_rate": 0.01},
            "training": {"steps": 1500, "meta_batch": tasks, "validate_every": 100},
        }
        for family, tasks in (("omniglot-5way", 4), ("omniglot-20way", 2))
    },
    ("sinusoid", "reptile"): {"reptile": {"inner_rate": 0.01}, "training": {"steps": 30_000}},
    ("sinusoid", "meta-lstm"): {"meta_lstm": {"initial_rate": 0.05}, "training": {"steps": 15_000}},
    **{
        ("sinusoid", method): {"network": {"embedding": 40}, "training": {"steps": 15_000}}
        for method in ("mann", "siamese", "matching", "matching-convex", "hypernet")
    },
    # Cosines of waves of phase are a kernel that is the same at every phase.
    ("motions", "matching"): {"network": {"embedding": 0}, "training": {"rate": 1e-2}},
    **{
        (family, method): changes
        for family in ("grasping", "grasping-panda")
        for method, changes in _GRASPING_OVERRIDES.items()
    },
    **{
        (family, method): changes
        for family in ("navigation", "navigation-dynamics", *_METAWORLD)
        for method, changes in _LONG_OVERRIDES.items()
    },
}
"""What one method does otherwise on one family, by (family, method): settings by the name of their group."""


def defaults(family: str, method: str | None = None, seed: int = 0) -> Settings:
    """The default settings of a family, and the general ones for a family without its own.

    Raises:
        QuickstudyError: `family` is the path of a data set that cannot be read, or has too few tasks.
    """
    path, known = Path(family), family
    if family in DEFAULTS:
        settings = DEFAULTS[family]
    elif recordings.are_in(path):
        settings, known = _for_motions(path), "motions"
    else:
        settings = _for_dataset(path) if datasets.is_dataset(path) else _for_name(family)
    method = method or settings.method
    settings = replace(settings, family=family, method=method, seed=seed)
    for changes in ({"training": OUTER.get(method, {})}, OVERRIDES.get((known, method), {})):
        settings = replace(settings, **{group: replace(getattr(settings, group), **c) for group, c in changes.items()})
    return settings


def _for_name(family: str) -> Settings:
    if family.endswith(".npz"):
        return _RECOGNITION
    if family.startswith("ml1-"):
        return _SCRAMBLED if family.endswith("-scrambled") else _ML1
    return Settings(family, "maml")


def _for_motions(path: Path) -> Settings:
    """Those of recorded motions, for as many demonstrations as a file has of each."""
    fewest = min(len(motion.demonstrations) for motion in recordings.load(path))
    training, data = _MOTIONS.training, _MOTIONS.data
    return replace(
        _MOTIONS,
        training=replace(training, queries=min(training.queries, fewest - training.most_shots)),
        data=replace(data, validation_episodes=min(data.validation_episodes, fewest // 2)),
    )


def _for_dataset(path: Path) -> Settings:
    """Settings for the tasks and demonstrations that a data set has."""
    counts = datasets.load(path).counts
    try:
        splits = split_labels(sorted(counts), SHARES, seed=0)
    except QuickstudyError as error:
        raise QuickstudyError(f"'{path}': {error}") from error
    tasks, validation = len(splits["train"]), len(splits["validation"])
    demonstrations = min(counts[label] for label in splits["train"])
    return Settings(
        str(path),
        "maml",
        training=TrainConfig(
            steps=2000, meta_batch=min(16, tasks), queries=max(1, min(2, demonstrations - 1)), validate_every=500
        ),
        data=DataConfig(min(400, tasks), min(10, demonstrations), min(40, validation), QUERIES),
    )


def _base(s: Settings, family: TaskFamily, outputs: int | None = None, extra: int = 0) -> BaseLearner:
    """A base learner with as many outputs as the family's actions, or that many; `extra` inputs beside observations."""
    inputs = family.observation_size + extra
    network: nn.Module
    if family.image is None or extra:
        layers = s.network.hidden, s.network.context, s.network.normalise
        network = MLP(inputs, outputs or family.action_size, *layers)
    else:
        options = s.network.channels, s.network.batch_statistics, s.network.bfloat16, s.network.num_augmentations
        network = ConvNet(family.image, outputs or s.network.embedding, *options)
        network = network if outputs else ConvClassifier(network, family.action_size)
    return BaseLearner(network, inputs, _criterion(family), family.image is not None)


def _raw(family: TaskFamily) -> BaseLearner:
    """A base learner that hands its standardised observations on."""
    return BaseLearner(nn.Identity(), family.observation_size, _criterion(family), family.image is not None)


def _embedder(s: Settings, family: TaskFamily) -> tuple[BaseLearner, int]:
    """What embeds observations, and the width of that."""
    width = s.network.embedding
    return (_base(s, family, width), width) if width else (_raw(family), family.observation_size)


def _criterion(family: TaskFamily) -> Callable[[Tensor, Batch], Tensor]:
    if family.labelled:
        return recognition_loss
    return root_imitation_loss if family.metric == "rmse" else imitation_loss


def _maml(**options: Any) -> Callable[[Settings, TaskFamily], MetaLearner]:
    return lambda s, family: MAML(_base(s, family), replace(s.maml, **options))


def _compares(kind: type, config: str, **options: Any) -> Callable[[Settings, TaskFamily], MetaLearner]:
    """A method whose network embeds observations instead of giving actions."""

    def make(s: Settings, family: TaskFamily) -> MetaLearner:
        chosen = replace(getattr(s, config), **options)
        return kind(*_embedder(s, family), family.action_size, family.labelled, chosen)

    return make


def _floor(kind: type[baselines.Replay]) -> Callable[[Settings, TaskFamily], MetaLearner]:
    return lambda s, family: kind(baselines.recorded_base(family.observation_size), family.action_size)


def _frames(s: Settings, family: TaskFamily) -> MetaLearner:
    assert family.observation_layout is not None  # else it does not suit
    return MatchingFrames(
        baselines.recorded_base(family.observation_size), family.action_size, family.observation_layout, s.frames
    )


def _roles(s: Settings, family: TaskFamily) -> MetaLearner:
    network = MLP(family.observation_size, family.action_size, s.network.hidden, normalise=s.network.normalise)
    return HypernetRoles(network, family.observation_size, family.action_size, s.roles, s.hypernet)


def _warp(s: Settings, family: TaskFamily) -> MetaLearner:
    assert family.observation_layout is not None  # else it does not suit
    return Warp(baselines.recorded_base(family.observation_size), family.action_size, family.observation_layout)


METHODS: dict[str, Callable[[Settings, TaskFamily], MetaLearner]] = {
    "maml": _maml(),
    "fomaml": _maml(first_order=True),
    "anil": _maml(adapt_only="head"),
    "meta-sgd": _maml(learn_rates="parameter-step"),
    "reptile": lambda s, family: Reptile(_base(s, family), s.reptile),
    "meta-lstm": lambda s, family: MetaLSTM(_base(s, family), s.meta_lstm),
    "mann": lambda s, family: MANN(*_embedder(s, family), family.action_size, s.mann),
    "mann-raw": lambda s, family: MANN(_raw(family), family.observation_size, family.action_size, s.mann),
    "siamese": _compares(Siamese, "siamese"),
    "matching": _compares(MatchingNetworks, "matching"),
    "matching-fce": _compares(MatchingNetworks, "matching", full_context=True),
    "matching-convex": _compares(MatchingNetworks, "matching", head="convex"),
    "matching-frames": _frames,
    "prototypical": _compares(PrototypicalNetworks, "prototypical"),
    "hypernet": lambda s, family: (
        HypernetClassifier(_base(s, family, s.network.embedding), family.action_size, s.hypernet)
        if family.labelled
        else Hypernet(_base(s, family), family.action_size, s.hypernet)
    ),
    "hypernet-roles": _roles,
    "transfer": lambda s, family: baselines.Transfer(_base(s, family), s.fine_tune),
    "scratch": lambda s, family: baselines.FromScratch(_base(s, family), s.fine_tune),
    "no-adaptation": lambda s, family: baselines.NoAdaptation(_base(s, family)),
    "oracle": lambda s, family: baselines.Oracle(_base(s, family, extra=family.hidden_size), family.hidden_size),
    "replay": _floor(baselines.Replay),
    "nearest": _floor(baselines.NearestNeighbour),
    "warp": _warp,
}

COMPARED = (
    "maml",
    "meta-sgd",
    "reptile",
    "meta-lstm",
    "mann",
    "siamese",
    "matching",
    "matching-convex",
    "matching-frames",
    "hypernet",
    "transfer",
    "transfer-equal-time",
    "scratch",
    "no-adaptation",
    "replay",
    "nearest",
    "warp",
    "oracle",
)
"""What a comparison holds where nobody says otherwise."""

SKILLS_ONLY = frozenset({"matching-convex", "hypernet-roles", "oracle", "replay"})
"""Methods that mean nothing where labels are to be recognised; there, matching networks are always convex."""

RECOGNITION_ONLY = frozenset({"prototypical"})
"""Methods that need classes."""

NEEDS_PLACES = frozenset({"matching-frames", "warp"})
"""Methods that must be told where hand, object and goal are observed."""

UNTRAINED = frozenset({"scratch", "replay", "nearest", "warp"})
"""Methods that learn nothing from the training tasks (but the mean and deviation of their observations)."""


def suits(method: str, family: TaskFamily) -> bool:
    """Whether a method can learn tasks of this family."""
    if method in NEEDS_PLACES:
        return family.observation_layout is not None
    return method not in (SKILLS_ONLY if family.labelled else RECOGNITION_ONLY)


def build(settings: Settings, family: TaskFamily) -> MetaLearner:
    """The learner that `settings` describe, with initial parameters drawn from its seed.

    Raises:
        QuickstudyError: an unknown method, or one that does not suit the family.
    """
    if settings.method not in METHODS:
        raise unknown("method", settings.method, METHODS)
    if not suits(settings.method, family):
        if settings.method in NEEDS_PLACES:
            raise QuickstudyError(
                f"Method '{settings.method}' needs a family that says where hand, object and goal are observed; "
                f"'{family.name}' does not."
            )
        kinds = ("skills", "recognition")
        wanted, got = kinds if family.labelled else reversed(kinds)
        raise QuickstudyError(f"Method '{settings.method}' is for {wanted}; '{family.name}' is a family of {got}.")
    if settings.method == "reptile" and settings.training.optimiser != "sgd":
        raise QuickstudyError(
            f"Reptile's outer optimiser must be 'sgd', whose step is Reptile's; got '{settings.training.optimiser}'."
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return METHODS[settings.method](settings, family)


def from_plain(kind: type, plain: Mapping[str, Any], where: str) -> Any:
    """A settings dataclass from what `dataclasses.asdict` and JSON made of it.

    Raises:
        QuickstudyError: a field that does not exist (a file of another version).
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
