"""What learners do in the studio: they are loaded, adapt, act, and are compared with others."""

import functools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import binomtest
from torch.utils._pytree import tree_leaves, tree_map

from quickstudy import outside
from quickstudy.demonstration import Demonstration
from quickstudy.errors import QuickstudyError
from quickstudy.evaluation import SkillPolicy, adapt
from quickstudy.experiment import Experiment
from quickstudy.families.base import SimulatedFamily
from quickstudy.learner import MetaLearner, Skill
from quickstudy.methods.demonstrations.matching import MatchingNetworks
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
    """

    name: str
    run: Path
    family: str
    method: str


def choices(own: Sequence[Path] = ()) -> list[Choice]:
    """The learners that come with the package, and those of a user's own runs, which come first.

    Raises:
        QuickstudyError: one of the folders is no run, learns by trial, or is of a family that the studio has no
            scene for.
    """
    from quickstudy.studio.arena import FAMILIES

    found = []
    for run in (*own, *(run for run in packaged() if card(run)["family"] in FAMILIES)):
        settings = runs.load_settings(run)
        if settings.family not in FAMILIES:
            raise QuickstudyError(
                f"'{run}' was trained on '{settings.family}'; the studio has scenes for {' and '.join(FAMILIES)}."
            )
        if run in own and Experiment.of(settings.family, settings.method).by_trial:
            raise QuickstudyError(f"'{run}' learns by its own trials and takes no demonstration.")
        name = f"{settings.method} ({run.name})" if run in own else settings.method
        found.append(Choice(name, run, settings.family, settings.method))
    return found


@functools.lru_cache(maxsize=16)
def loaded(run: Path) -> MetaLearner:
    """The learner of a run; all sessions share it, as nothing changes it."""
    learner: MetaLearner = runs.load(run, adapting=True)[1]
    return learner.requires_grad_(True)


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
    SkillPolicy(learner, stacked(adapt(learner, [nothing], family)))(steps[None, :1])


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
        return SkillPolicy(self.learner, stacked(self.skill))


def learned(learner: MetaLearner, demonstrations: Sequence[Demonstration], family: SimulatedFamily) -> Learned:
    """What a learner makes of demonstrations; before the first one, what it knows anyway.

    Raises:
        QuickstudyError: see `quickstudy.evaluation.adapt`.
    """
    started = time.perf_counter()
    if not demonstrations:
        with torch.no_grad():
            return Learned(learner, learner.begin(), 0, 0.0, None, None)
    skill = adapt(learner, demonstrations, family)
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


def interval(successes: int, tries: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927)."""
    if tries == 0:
        return 0.0, 1.0
    found = binomtest(successes, tries).proportion_ci(0.95, method="wilson")
    return float(found.low), float(found.high)
