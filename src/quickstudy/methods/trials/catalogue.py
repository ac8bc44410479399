"""Learning by trial: methods and families by name, and all settings of a training as one plain dataclass."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import torch

from quickstudy.errors import QuickstudyError, unknown
from quickstudy.families.grasping.tries import TRIES, GraspingTries
from quickstudy.families.half_cheetah import CheetahDirection, CheetahVelocity
from quickstudy.families.metaworld.fixed_start import ml1, ml10
from quickstudy.families.navigation.trials import NavigationDynamicsTrials, NavigationTrials
from quickstudy.families.navigation2d import Navigation2D, SparseNavigation2D
from quickstudy.methods.trials.advantages import ReturnsConfig
from quickstudy.methods.trials.baselines import MultiTask, OpponentConfig, Scratch
from quickstudy.methods.trials.dagger import DAgger, DAggerConfig
from quickstudy.methods.trials.learner import TrialLearner
from quickstudy.methods.trials.maml import MetaPolicy, MetaPolicyConfig
from quickstudy.methods.trials.matched import MatchedConfig, MatchedStart
from quickstudy.methods.trials.meta_lstm import LearnedRule, LearnedRuleConfig
from quickstudy.methods.trials.outer_loop import TrialConfig
from quickstudy.methods.trials.pearl import PEARL, PEARLConfig
from quickstudy.methods.trials.policy import GaussianPolicy
from quickstudy.methods.trials.reptile import ReptilePolicy, ReptilePolicyConfig
from quickstudy.methods.trials.rl2 import RL2, RL2Config
from quickstudy.methods.trials.trpo import TRPOConfig
from quickstudy.nets import check_widths
from quickstudy.simulation.vector_env import TrialFamily, VectorEnv

_METAWORLD: dict[str, Callable[[], TrialFamily]] = {
    **{
        f"ml1-{task}": partial(ml1, task, horizon=200, repeat=5, recombine=True)
        for task in ("reach", "push", "pick-place")
    },
    "ml10": ml10,
}

FAMILIES: dict[str, Callable[[], TrialFamily]] = {
    "navigation2d": Navigation2D,
    "navigation2d-sparse": SparseNavigation2D,
    "cheetah-direction": CheetahDirection,
    "cheetah-velocity": CheetahVelocity,
    **_METAWORLD,
    "navigation": NavigationTrials,
    "navigation-dynamics": NavigationDynamicsTrials,
    "grasping": GraspingTries,
}


@dataclass(frozen=True)
class PolicyConfig:
    """The policy of every method without a memory: `quickstudy.methods.trials.policy.GaussianPolicy`.

    Attributes:
        hidden: widths of its hidden layers.
        activation: 'relu' or 'tanh'.
        std: deviation of actions before training, in halves of their range.
    """

    hidden: tuple[int, ...] = (64, 64)
    activation: Literal["relu", "tanh"] = "relu"
    std: float = 0.7

    def __post_init__(self) -> None:
        check_widths(hidden=self.hidden)
        if self.activation not in ("relu", "tanh"):
            raise unknown("activation", self.activation, ("relu", "tanh"))
        if not self.std > 0:
            raise QuickstudyError(f"std must be positive; got {self.std}.")


@dataclass(frozen=True)
class TrialSettings:
    """Everything that decides how a learner is trained; with the family and the method, enough to repeat it."""

    family: str
    method: str
    seed: int = 0
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    maml: MetaPolicyConfig = field(default_factory=MetaPolicyConfig)
    reptile: ReptilePolicyConfig = field(default_factory=ReptilePolicyConfig)
    rl2: RL2Config = field(default_factory=RL2Config)
    dagger: DAggerConfig = field(default_factory=DAggerConfig)
    pearl: PEARLConfig = field(default_factory=PEARLConfig)
    meta_lstm: LearnedRuleConfig = field(default_factory=LearnedRuleConfig)
    matched: MatchedConfig = field(default_factory=MatchedConfig)
    opponents: OpponentConfig = field(default_factory=OpponentConfig)
    training: TrialConfig = field(default_factory=TrialConfig)


def _policy(s: TrialSettings, family: TrialFamily, extra: int = 0) -> GaussianPolicy:
    return GaussianPolicy(
        family.observation_size + extra,
        family.action_size,
        s.policy.hidden,
        family.observation_unit,
        s.policy.std,
        s.policy.activation,
    )


METHODS: dict[str, Callable[[TrialSettings, TrialFamily], TrialLearner]] = {
    "maml-trpo": lambda s, f: MetaPolicy(_policy(s, f), replace(s.maml, outer="trpo")),
    "maml-by-return": lambda s, f: MetaPolicy(_policy(s, f), replace(s.maml, outer="trpo", by_return=True)),
    "maml-ppo": lambda s, f: MetaPolicy(_policy(s, f), replace(s.maml, outer="ppo", estimator="likelihood")),
    "promp": lambda s, f: MetaPolicy(_policy(s, f), replace(s.maml, outer="ppo", estimator="lvc")),
    "reptile-ppo": lambda s, f: ReptilePolicy(_policy(s, f), s.reptile),
    "rl2": lambda s, f: _recurrent(s, f, "lstm"),
    "rl2-mann": lambda s, f: _recurrent(s, f, "mann"),
    "rl2-dagger": lambda s, f: DAgger(f.observation_size, f.action_size, f.observation_unit, s.dagger, f.symmetries),
    "pearl": lambda s, f: PEARL(f.observation_size, f.action_size, f.observation_unit, s.pearl),
    "meta-lstm": lambda s, f: LearnedRule(_policy(s, f), s.meta_lstm),
    "matched": lambda s, f: _matched(s, f),
    "scratch": lambda s, f: Scratch(_policy(s, f), s.opponents),
    "transfer": lambda s, f: MultiTask(_policy(s, f), "fine-tune", f.hidden, s.opponents),
    "domain-randomisation": lambda s, f: MultiTask(_policy(s, f), "nothing", f.hidden, s.opponents),
    "oracle": lambda s, f: MultiTask(_policy(s, f, f.hidden_size), "reveal", f.hidden, s.opponents),
}

UNTRAINED = frozenset({"scratch"})
"""Methods that learn nothing from the training tasks."""

NEEDS_ADVICE = frozenset({"rl2-dagger"})
"""Methods that ask an expert in meta-training."""

PRETRAINED_AS = {"transfer": "domain-randomisation"}
"""Methods whose training is another one's: they differ on test tasks alone."""

_RECURRENT = TrialConfig(meta_batch=40, episodes_per_task=2, validation_rounds=1)

DEFAULTS: dict[str, TrialConfig] = {
    "rl2": _RECURRENT,
    "rl2-mann": _RECURRENT,
    "rl2-dagger": _RECURRENT,
    "pearl": TrialConfig(meta_batch=20, episodes_per_task=2, validation_rounds=1),
}
"""The outer loop's settings of methods that need others than the rest."""


def _of_robots(episodes: int, few: TrialConfig, maml: MetaPolicyConfig, rl2: RL2Config) -> dict[str, Any]:
    """Settings by method, where a step of simulation is dear: fewer env, and trials of so many episodes."""
    recurrent = replace(
        few,
        meta_batch=2 * few.meta_batch,
        episodes_per_task=max(2, few.episodes_per_task // 4),
        validation_rounds=episodes - 1,
    )
    settings: dict[str, dict[str, Any]] = {method: {"training": few} for method in METHODS}
    for method in ("maml-trpo", "maml-by-return", "maml-ppo", "promp"):
        settings[method] = {"training": few, "maml": maml}
    for method in ("rl2", "rl2-mann"):
        settings[method] = {"training": recurrent, "rl2": replace(rl2, episodes=episodes)}
    settings["pearl"] = {"training": recurrent, "pearl": PEARLConfig(episodes=episodes)}
    return settings


# The reward is dense, so what a step is worth shows in the next few; returns over whole trials are noise beside it.
_POINTS_BY_MEMORY = {
    "training": replace(_RECURRENT, steps=400, episodes_per_task=4),
    "rl2": RL2Config(minibatches=4, discount=0.95, gae_lambda=0.9),
}
_POINTS: Mapping[str, Any] = {
    "rl2": _POINTS_BY_MEMORY,
    "rl2-mann": _POINTS_BY_MEMORY,
    "pearl": {
        "training": replace(DEFAULTS["pearl"], steps=1000, validate_every=100),
        "pearl": PEARLConfig(discount=0.9, divergence=1e-3),
    },
}
_NAVIGATION = {
    **_of_robots(
        3,
        TrialConfig(steps=500, meta_batch=10, episodes_per_task=8, validation_tasks=10),
        MetaPolicyConfig(),
        RL2Config(width=128),
    ),
    "rl2-dagger": {
        "training": TrialConfig(150, 20, 2, validate_every=25, validation_rounds=2),
        "dagger": DAggerConfig(episodes=3, kept=400, batch=16),
    },
}
_GRASPING = {
    **_of_robots(
        TRIES,
        TrialConfig(steps=300, meta_batch=10, episodes_per_task=20, validation_tasks=20),
        # Every episode is one decision, so the return is the reward; a thinned Fisher matrix would see too few of them.
        MetaPolicyConfig(returns=ReturnsConfig(gae_lambda=1.0), trpo=TRPOConfig(fisher_every=1)),
        RL2Config(std=0.5, minibatches=4),
    ),
    # As many objects as there can be: what an outcome says of an object is learned from objects, not from tries.
    # Trials are ten steps long, so learning from them costs nothing beside living through them.
    "rl2-dagger": {
        "training": TrialConfig(100, 50, 2, validate_every=10, validation_rounds=TRIES - 1, lr_decay_fraction=0.5),
        "dagger": DAggerConfig(
            episodes=TRIES, kept=20_000, updates=80, batch=128, rate=4e-3, spread=1.0, candidates=64
        ),
    },
}

# To turn a gait round takes a long step of adaptation. Without credit for sampling the return rose to 380, then fell.
_CHEETAH = {
    "maml-trpo": {
        "training": TrialConfig(steps=1400, meta_batch=8, validate_every=50),
        "maml": MetaPolicyConfig(inner_rate=0.5, estimator="lvc", trpo=TRPOConfig(max_kl=0.03)),
    }
}

BY_FAMILY: Mapping[str, Mapping[str, Any]] = {
    "navigation2d": _POINTS,
    "cheetah-direction": _CHEETAH,
    "navigation": _NAVIGATION,
    "navigation-dynamics": _NAVIGATION,
    "grasping": _GRASPING,
}
"""Settings of a method in a family that needs others than those of the method."""


def _recurrent(s: TrialSettings, family: TrialFamily, core: Literal["lstm", "mann"]) -> TrialLearner:
    return RL2(
        family.observation_size,
        family.action_size,
        family.observation_unit,
        replace(s.rl2, core=core),
    )


def _matched(s: TrialSettings, family: TrialFamily) -> TrialLearner:
    def known(tasks: int, episodes_per_task: int) -> VectorEnv:
        return family.vector_env(family.tasks("train", tasks), episodes_per_task)

    return MatchedStart(_policy(s, family), family.observation_size, family.action_size, known, s.matched)


def family(name: str) -> TrialFamily:
    """The family of that name.

    Raises:
        QuickstudyError: unknown.
    """
    if name not in FAMILIES:
        raise unknown("family of trials", name, FAMILIES)
    return FAMILIES[name]()


def defaults(family: str, method: str, seed: int = 0) -> TrialSettings:
    """The settings that a command starts from."""
    own = BY_FAMILY.get(family, {}).get(method, {})
    settings = TrialSettings(family, method, seed, **{"training": DEFAULTS.get(method, TrialConfig()), **own})
    return _of_metaworld(settings) if family in _METAWORLD else settings


def _of_metaworld(settings: TrialSettings) -> TrialSettings:
    """The published budget of an update: 20 tasks with 10 episodes each, which a learner with a memory lives through.

    The width is that of Finn et al. 2017. `rl2-dagger` has what fits into two million steps, in trials of two episodes.
    Reaching takes four: its goal is known after one, and a memory that never had to keep it for longer lost it again.
    """
    episodes, lr_decay_fraction = (4, 0.5) if settings.family == "ml1-reach" else (settings.dagger.episodes, 0.0)
    if settings.method == "rl2-dagger":
        training = TrialConfig(
            400 // episodes, 25, 1, validate_every=25, validation_tasks=25, lr_decay_fraction=lr_decay_fraction
        )
    else:
        memory = settings.method in ("rl2", "rl2-mann")
        episodes_per_task = 2 if memory or settings.method == "pearl" else 10
        rounds = 9 if memory else 1
        training = TrialConfig(
            steps=300, meta_batch=20, episodes_per_task=episodes_per_task, validation_tasks=10, validation_rounds=rounds
        )
    return replace(
        settings,
        policy=PolicyConfig(hidden=(100, 100)),
        rl2=replace(settings.rl2, episodes=10),
        dagger=replace(settings.dagger, episodes=episodes, kept=2000, updates=100, batch=32, spread=1.0),
        pearl=replace(settings.pearl, kept=100),
        training=training,
    )


def build(settings: TrialSettings, family: TrialFamily) -> TrialLearner:
    """The learner that `settings` describe, with initial parameters drawn from its seed.

    Raises:
        QuickstudyError: an unknown method, or one that needs an expert where there is none.
    """
    if settings.method not in METHODS:
        raise unknown("method of learning by trial", settings.method, METHODS)
    if settings.method in NEEDS_ADVICE and not family.has_expert:
        having = ", ".join(name for name, made in FAMILIES.items() if made().has_expert)
        raise QuickstudyError(
            f"Method '{settings.method}' asks an expert during its trials, and '{family.name}' has none. These have: "
            f"{having}."
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return METHODS[settings.method](settings, family)
