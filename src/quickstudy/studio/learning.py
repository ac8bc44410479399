"""What learners do in the studio: they are loaded, adapt, act, and are compared with others."""

import copy
import functools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_leaves, tree_map

from quickstudy import outside
from quickstudy.demonstration import Demonstration
from quickstudy.errors import QuickstudyError
from quickstudy.evaluation import SkillPolicy, adapt
from quickstudy.experiment import Experiment
from quickstudy.families.base import SimulatedFamily
from quickstudy.learner import MetaLearner, Skill
from quickstudy.methods.demonstrations.matching import MatchingNetworks
from quickstudy.methods.trials.recurrent import Recurrent
from quickstudy.methods.trials.rollout import PolicyInput
from quickstudy.nets import masked_softmax, unit
from quickstudy.results import runs
from quickstudy.studio.learners import card, packaged
from quickstudy.task import Task

NOTHING, NO_ADAPTATION, TRANSFER, SCRATCH = "nothing", "no-adaptation", "transfer", "scratch"
"""What a learner can be compared with, besides the other learners."""
FROM_SCRATCH: Mapping[str, Any] = {"algorithm": {"steps": 100, "rate": 3e-3}}
FINE_TUNED: Mapping[str, Any] = {"algorithm": {"steps": 100, "rate": 1e-3}}


@dataclass(frozen=True)
class Choice:
    """A trained learner that can be chosen.

    Attributes:
        name: what the page calls it.
        run: its folder.
        family: that it was trained on, by name.
        method: of it.
        by_trial: whether it learns by its own tries and takes no demonstration.
    """

    name: str
    run: Path
    family: str
    method: str
    by_trial: bool = False


def choices(own: Sequence[Path] = ()) -> list[Choice]:
    """The learners that come with the package, and those of a user's own runs, which come first.

    Raises:
        QuickstudyError: one of the folders is no run, learns by trials that it does not remember, or is of a family
            that the studio has no scene for.
    """
    from quickstudy.studio.arenas import ARENAS

    found: list[Choice] = []
    own = list(dict.fromkeys(run.absolute() for run in own))
    for run in (*own, *(run for run in packaged() if card(run)["family"] in ARENAS)):
        settings = runs.load_settings(run)
        if settings.family not in ARENAS:
            raise QuickstudyError(
                f"'{run}' was trained on '{settings.family}'; the studio has scenes for {', '.join(ARENAS)}."
            )
        by_trial = Experiment.of(settings.family, settings.method).by_trial
        if by_trial and not settings.method.startswith(("rl2", "rl-rl2")):
            raise QuickstudyError(
                f"'{run}' holds a '{settings.method}'; of the methods by trial the studio shows those with a memory, "
                "rl2 and its kin."
            )
        name = f"{settings.method} ({run.name})" if run in own else settings.method
        if any((one.family, one.name) == (settings.family, name) for one in found):  # a page shows names alone
            name = f"{settings.method} ({run})"
        found.append(Choice(name, run, settings.family, settings.method, by_trial))
    return found


@functools.lru_cache(maxsize=16)
def loaded(run: Path) -> Any:
    """The learner of a run, which all sessions share.

    Nobody acts with it or adapts it but by a copy, see `own`: a network whose parameters are those of a skill for the
    time of a call (`torch.func.functional_call`) serves one thread alone.
    """
    return runs.load(run, adapting=True)[1].requires_grad_(True)


@functools.lru_cache(maxsize=16)
def baseline(family: str, name: str) -> MetaLearner:
    """A baseline on the package's pre-trained network of a family; from scratch without its weights.

    Raises:
        QuickstudyError: the package has no such network.
    """
    run = next((run for run in packaged(family) if run.name.endswith("-transfer")), None)
    if run is None:
        raise QuickstudyError(f"The package holds no pre-trained network of '{family}' to compare with.")
    changes = FROM_SCRATCH if name == SCRATCH else {} if name == NO_ADAPTATION else FINE_TUNED
    pretrained = loaded(run)
    made: MetaLearner = Experiment.of(family, name, 0, changes).build()
    if name == SCRATCH:
        made.base.mean.copy_(pretrained.base.mean)
        made.base.deviation.copy_(pretrained.base.deviation)
    else:
        made.load_state_dict(pretrained.state_dict())
    made.seen = pretrained.seen
    return made.eval()


def warm_up(learner: MetaLearner, family: SimulatedFamily) -> None:
    """Adapts to a demonstration of nothing: the first call of a process loads modules for seconds."""
    shape = learner.seen.observations.mean if learner.seen is not None else np.zeros(family.observation_size)
    steps = np.repeat(np.asarray(shape, np.float32)[None], 8, 0)
    nothing = Demonstration(steps, np.zeros((8, family.action_size), np.float32))
    learner = own(learner)
    SkillPolicy(learner, stacked(adapt(learner, [nothing], family)))(steps[None, :1])


def own(learner: Any) -> Any:
    """A copy for one thread, which keeps what is known of the training."""
    return copy.deepcopy(learner)


def stacked(skill: Skill) -> Skill:
    """A skill as that of one task of several, [1, ...]."""
    return tree_map(lambda t: t.detach()[None], skill)


@dataclass(frozen=True)
class Learned:
    """A learner that has adapted.

    Attributes:
        learner, skill: which, and what it learned.
        shots: demonstrations that it learned from.
        milliseconds: that it took.
        moved: how far parameters moved from the initial ones, of their length; None where no parameter moves.
        far: the channel that lies farthest outside of what training showed; None where it does not.
    """

    learner: MetaLearner
    skill: Skill
    shots: int
    milliseconds: float
    moved: float | None
    far: outside.Outside | None

    def policy(self) -> SkillPolicy:
        """Acts for one task; a new one for every episode, as it may remember."""
        return SkillPolicy(own(self.learner), stacked(self.skill))


def learned(learner: MetaLearner, demonstrations: Sequence[Demonstration], family: SimulatedFamily) -> Learned:
    """What a learner makes of demonstrations; before the first one, what it knows anyway.

    Raises:
        QuickstudyError: see `quickstudy.evaluation.adapt`.
    """
    started = time.perf_counter()
    if not demonstrations:
        with torch.no_grad():
            return Learned(learner, learner.begin(), 0, 0.0, None, None)
    skill = adapt(own(learner), demonstrations, family)
    took = 1e3 * (time.perf_counter() - started)
    far = None if learner.seen is None else outside.farthest(learner.seen, demonstrations, family)
    return Learned(learner, skill, len(demonstrations), took, _moved(learner, skill), far if far and far.far else None)


def _moved(learner: MetaLearner, skill: Skill) -> float | None:
    if not learner.adapts_weights:
        return None
    before, after = (tree_leaves(tree_map(lambda t: t.detach(), some)) for some in (learner.begin(), skill))
    if [t.shape for t in before] != [t.shape for t in after]:
        return None
    away = sum(float((a - b).square().sum()) for a, b in zip(after, before, strict=True))
    length = sum(float(b.square().sum()) for b in before)
    return float(np.sqrt(away / length)) if length > 0 else None


@torch.no_grad()
def attention(found: Learned, observation: np.ndarray) -> np.ndarray | None:
    """How much an observation [obs] attends to each demonstrated step, [step]; None where the learner does not attend.

    Vinyals et al. 2016, section 2.1.1, as `MatchingNetworks.predict` has it.
    """
    learner = found.learner
    if not isinstance(learner, MatchingNetworks) or learner.head == "local-linear" or found.shots == 0:
        return None
    x = torch.from_numpy(np.asarray(observation, np.float32))
    f = learner.base(x)
    if learner.config.full_context:
        f = learner.query_context(f, found.skill.keys, found.skill.real)
    cosines = unit(f) @ unit(found.skill.keys).mT
    weights = masked_softmax(learner.log_scale.exp() * cosines, found.skill.real)
    return weights[found.skill.real > 0].numpy()


def many(found: Learned, family: SimulatedFamily, task: Task, count: int, seed: int) -> np.ndarray:
    """Tries at once in randomised scenes of a task, without pictures; which succeeded, [try]."""
    tried = family.run([task], count, found.policy(), seed)
    return np.asarray(tried[family.metric][0] > 0.5)


class Trier:
    """A learner with a memory that learns a task by its own tries, one after the other.

    Attributes:
        learner: which.
        tries: that it remembers.
    """

    def __init__(self, learner: Recurrent, action_size: int) -> None:
        self.learner, self.tries = learner, 0
        self._state: Any = learner.core.begin(1)
        self._rng = torch.Generator().manual_seed(0)
        self._last = torch.zeros(1, 1, action_size), 0.0, 0.0

    def policy(self) -> "Trier":
        """It acts itself, and remembers."""
        return self

    @torch.no_grad()
    def __call__(self, observations: np.ndarray) -> np.ndarray:
        """An action [1, 1, act] for an observation [1, 1, obs]."""
        x = torch.from_numpy(np.asarray(observations, np.float32))
        action, reward, done = self._last
        seen = PolicyInput(x, action, torch.full((1, 1), reward), torch.full((1, 1), done), torch.ones(1, 1).bool())
        features, self._state = self.learner.core.advance(self._state, self.learner.inputs(seen).flatten(0, 1))
        drawn = self.learner.act(features.unflatten(0, (1, 1))).sample(self._rng)
        self._last = drawn, 0.0, 0.0
        return drawn.numpy()

    def take(self, reward: float, over: bool) -> None:
        """The reward of the last action, and whether the try ended with it."""
        self._last = self._last[0], reward, float(over)
        self.tries += over

    def rounds(self, family: SimulatedFamily, task: Task, count: int, seed: int, rounds: int = 4) -> list[np.ndarray]:
        """Fresh trials of a task without pictures: which succeeded in each round of tries, [try] each."""
        with family.vector_env([task], count) as env:
            every = self.learner.trial(env, rounds - 1, torch.Generator().manual_seed(seed))
        return [np.asarray(episodes.success[0]) for episodes in every]
