"""The contract of a family's vector environment, point by point: what demonstrations, episodes and trials rely on.

Environments may be stepped in any company, and those whose episode is over wait for the others. So what one of them
does is compared, bit for bit, with what it does alone, again, and beside others that wait.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch

from quickstudy.check.families import Looked
from quickstudy.check.points import BrokenError, SkippedError
from quickstudy.errors import QuickstudyError
from quickstudy.families.base import SimulatedFamily
from quickstudy.simulation.vector_env import StepResult, VectorEnv
from quickstudy.task import Task

TASKS, EPISODES, STEPS = 3, 2, 12
"""Most tasks, environments of each, and steps of the episodes that are compared."""
PURPOSE = 9
"""Of the generators of these episodes, see `Task.generator`."""


class Trace(NamedTuple):
    """What environments did in some steps; once an episode is over, its last step again and again.

    Attributes:
        observations: [step + 1, task, episode, obs], the first ones too.
        rewards: [step, task, episode].
        measures: by name, [step, task, episode].
        said: the observations as they were given, of those too that were not active.
    """

    observations: np.ndarray
    rewards: np.ndarray
    measures: dict[str, np.ndarray]
    said: np.ndarray


def states_its_form(looked: Looked) -> str:
    """A whole episode of random actions."""
    family, tasks = _simulated(looked)
    with family.vector_env(tasks, EPISODES) as env:
        shape = len(tasks), EPISODES
        if env.shape != shape or env.action_size != family.action_size or env.horizon > family.horizon:
            raise BrokenError(
                f"vector_env must give {shape} environments of {family.action_size} actions and at most "
                f"{family.horizon} steps; got {env.shape}, {env.action_size} and {env.horizon}."
            )
        _observed(env.reset(_generators(tasks, EPISODES)), family, shape, "reset")
        active, steps, actions = np.ones(shape, bool), 0, _actions(tasks, EPISODES, family.horizon, family.action_size)
        while active.any():
            if steps == family.horizon:
                raise BrokenError(f"An episode is not over after {family.horizon} steps, the horizon: truncate it.")
            result = env.step(actions[steps], active)
            _stepped(result, family, shape, active)
            active, steps = active & ~result.over, steps + 1
        for name, values in env.measures().items():
            if np.shape(values) != shape or not np.isfinite(values).all():
                raise BrokenError(f"measures' '{name}' must be {shape} finite numbers; got shape {np.shape(values)}.")
    return f"[task, episode, ...]; rewards are finite, episodes of random actions are over after at most {steps} steps"


def repeats_by_its_generators(looked: Looked) -> str:
    family, tasks = _simulated(looked)
    with family.vector_env(tasks, EPISODES) as env, family.vector_env(tasks, EPISODES) as other:
        first, again, fresh = _trace(env, family), _trace(env, family), _trace(other, family)
        if not _same(first, again):
            raise BrokenError("An episode depends on the one before it: reset must put everything back.")
        if not _same(first, fresh):
            raise BrokenError("The same generators and actions give two episodes: draw from these generators alone.")
        if family.fixed_start:
            return "the same generators give the same episode"
        if _same(first, _trace(env, family, seed=1)):
            raise BrokenError(
                "Other generators give the same episode: draw the start from them; where a task has one start only, "
                "set fixed_start = True."
            )
    return "the same generators give the same episode, others another one"


def is_alone_as_in_company(looked: Looked) -> str:
    family, tasks = _simulated(looked)
    place = len(tasks) - 1, EPISODES - 1
    with family.vector_env(tasks, EPISODES) as env, family.vector_env(tasks[-1:], 1) as alone:
        company, own = _trace(env, family), _trace(alone, family, episodes=(EPISODES - 1,))
        if not _same(_of(company, place), _of(own, (0, 0))):
            raise BrokenError(
                f"An environment of {tasks[-1].name} alone does something else than beside others: each must depend "
                "on its own task, generator and actions only."
            )
    return "an environment does the same alone and beside others, bit for bit"


def waits_when_it_is_over(looked: Looked) -> str:
    family, tasks = _simulated(looked)
    if family.horizon < 2:
        raise SkippedError("an episode has one step")
    with family.vector_env(tasks, EPISODES) as env:
        plain, waited = _trace(env, family), _trace(env, family, waits_after=1)
    last = len(tasks) - 1, EPISODES - 1
    others = [(i, j) for i in range(len(tasks)) for j in range(EPISODES) if (i, j) != last]
    if any(not _same(_of(plain, place), _of(waited, place)) for place in others):
        raise BrokenError("An environment that waits changes what others do: step those that are active alone.")
    waiting = _of(waited, last)
    still = [waiting.said[1:], *waiting.measures.values()]
    if any(not np.array_equal(values, np.broadcast_to(values[0], values.shape)) for values in still):
        raise BrokenError("An environment that is not active goes on: leave its state and measures as they are.")
    return "one that is over stays as it is, and changes no other"


def clips_actions(looked: Looked) -> str:
    family, tasks = _simulated(looked)
    try:
        made = family.make(tasks[0])
        bounded = bool(np.isfinite(getattr(made.action_space, "high", np.inf)).all())
        made.close()
    except QuickstudyError:
        bounded = True
    if not bounded:
        raise SkippedError("its actions have no bounds")
    with family.vector_env(tasks, EPISODES) as env:
        if not _same(_trace(env, family, stretched=1.0), _trace(env, family, stretched=5.0)):
            raise BrokenError("Actions of ±5 do something else than those of ±1: clip them to -1..1, for rewards too.")
    return "actions beyond -1..1 are as those of -1 or 1"


def expert_acts(looked: Looked) -> str:
    family, tasks = _simulated(looked)
    if not family.has_expert:
        raise SkippedError("it has no expert")
    with family.vector_env(tasks, EPISODES) as env:
        env.reset(_generators(tasks, EPISODES))
        active, wanted = np.ones(env.shape, bool), (*env.shape, family.action_size)
        for _ in range(min(STEPS, family.horizon)):
            given = np.asarray(env.expert_action())
            if given.shape != wanted:
                raise BrokenError(f"expert_action must give [task, episode, act], {wanted}; got {given.shape}.")
            if not active.any():
                break
            if np.isinf(given).any() or (family.horizon > 2 and not np.isfinite(given[active]).all()):
                raise BrokenError("expert_action must be finite, NaN only where it does not matter what is done.")
            active = active & ~env.step(np.nan_to_num(given), active).over
    return "[task, episode, act]"


def draws_training_tasks(looked: Looked) -> str:
    family, _ = _simulated(looked)
    count = min(4, family.sizes["train"])
    once, again = (family.draw(count, torch.Generator().manual_seed(0)) for _ in range(2))
    if len(once) != count or any(task.split != "train" for task in once):
        raise BrokenError(f"draw({count}, rng) must give {count} tasks of the training split; got {once}.")
    if once != again:
        raise BrokenError("draw gives other tasks for the same generator: draw from it alone.")
    return f"as many tasks of its {family.sizes['train']:,} as are asked for"


def symmetries_fit(looked: Looked) -> str:
    family, _ = _simulated(looked)
    if not family.symmetries:
        raise SkippedError("it names no symmetry")
    wanted = [(size, size) for size in (family.observation_size, family.action_size)]
    for symmetry in family.symmetries:
        shapes = [np.shape(matrix) for matrix in symmetry]
        if shapes != wanted:
            raise BrokenError(f"A symmetry has matrices {wanted} of observations and actions; got {shapes}.")
        if not all(np.allclose(matrix @ matrix.T, np.eye(len(matrix))) for matrix in symmetry):
            raise BrokenError("A symmetry neither stretches nor loses anything: its matrices must be orthogonal.")
    return f"{len(family.symmetries)}, whose matrices are orthogonal and as wide as observations and actions"


POINTS: dict[str, Callable[[Looked], str]] = {
    "environments have the stated form": states_its_form,
    "environments repeat themselves": repeats_by_its_generators,
    "environments do not mix": is_alone_as_in_company,
    "one that is over waits": waits_when_it_is_over,
    "actions are clipped": clips_actions,
    "the expert acts": expert_acts,
    "training tasks can be drawn": draws_training_tasks,
    "symmetries fit": symmetries_fit,
}


def has_none(looked: Looked) -> str:
    raise SkippedError("it is not simulated: it gives no vector environment")


WITHOUT: dict[str, Callable[[Looked], str]] = {"environments keep their contract": has_none}
"""In place of `POINTS`, for a family without a vector environment."""


def _simulated(looked: Looked) -> tuple[SimulatedFamily, list[Task]]:
    """The family, and the tasks whose environments are looked at."""
    assert isinstance(looked.family, SimulatedFamily)
    return looked.family, looked.tasks[:TASKS]


def _generators(tasks: Sequence[Task], episodes: int, seed: int = 0) -> list[np.random.Generator]:
    return [task.generator(PURPOSE, seed, episode) for task in tasks for episode in range(episodes)]


def _actions(tasks: Sequence[Task], episodes: int | Sequence[int], steps: int, size: int) -> np.ndarray:
    """Random actions [step, task, episode, act], which belong to the task and the episode."""
    numbers = range(episodes) if isinstance(episodes, int) else episodes
    drawn = [[task.generator(PURPOSE + 1, e).uniform(-1.0, 1.0, (steps, size)) for e in numbers] for task in tasks]
    return np.moveaxis(np.array(drawn), 2, 0).astype("f4")


def _trace(
    env: VectorEnv,
    family: SimulatedFamily,
    seed: int = 0,
    episodes: Sequence[int] = tuple(range(EPISODES)),
    waits_after: int | None = None,
    stretched: float | None = None,
) -> Trace:
    """The first steps of an episode with random actions.

    Args:
        waits_after: steps after which the last environment is no longer active.
        stretched: actions are -1 or 1 times this.
    """
    drawn = [task.generator(PURPOSE, seed, episode) for task in env.tasks for episode in episodes]
    actions = _actions(env.tasks, episodes, min(STEPS, family.horizon), family.action_size)
    if stretched is not None:
        actions = stretched * np.sign(actions)
    said, rewards, active = [env.reset(drawn).copy()], [], np.ones(env.shape, bool)
    seen, measures = [said[0]], list[dict[str, np.ndarray]]()
    for step, action in enumerate(actions):
        active[-1, -1] &= step != waits_after
        if active.any():
            result = env.step(action, active)
            said.append(result.observations.copy())
        measures.append({name: np.array(values) for name, values in env.measures().items()})
        seen.append(np.where(active[..., None], said[-1], seen[-1]))
        rewards.append(np.where(active, result.rewards, 0.0))
        active = active & ~result.over
    by_name = {name: np.stack([some[name] for some in measures]) for name in measures[0]}
    return Trace(np.stack(seen), np.stack(rewards), by_name, np.stack(said))


def _observed(values: np.ndarray, family: SimulatedFamily, shape: tuple[int, int], whose: str) -> None:
    """Raises BrokenError unless these are observations."""
    wanted = (*shape, family.observation_size)
    if np.shape(values) != wanted or not np.issubdtype(np.asarray(values).dtype, np.floating):
        raise BrokenError(
            f"{whose} must give observations [task, episode, obs], {wanted} numbers; got {np.shape(values)} of "
            f"{np.asarray(values).dtype}."
        )
    if not np.isfinite(values).all():
        raise BrokenError(f"{whose} gives an observation that is not finite.")


def _stepped(result: StepResult, family: SimulatedFamily, shape: tuple[int, int], active: np.ndarray) -> None:
    """Raises BrokenError unless this is what a step returns."""
    _observed(result.observations, family, shape, "step")
    for name, values in zip(result._fields[1:], result[1:], strict=True):
        kind = np.floating if name == "rewards" else np.bool_
        if np.shape(values) != shape or not np.issubdtype(np.asarray(values).dtype, kind):
            words = "numbers" if name == "rewards" else "truth values"
            raise BrokenError(
                f"step must give {name} as {words} [task, episode], {shape}; got {np.shape(values)} of "
                f"{np.asarray(values).dtype}."
            )
    if not np.isfinite(result.rewards[active]).all():
        raise BrokenError("A reward is not finite.")
    if result.broken.any():
        raise BrokenError("An environment failed: step says that it is broken.")


def _of(trace: Trace, place: tuple[int, int]) -> Trace:
    """That of one environment."""
    return Trace(
        trace.observations[:, *place],
        trace.rewards[:, *place],
        {name: values[:, *place] for name, values in trace.measures.items()},
        trace.said[:, *place],
    )


def _same(one: Trace, other: Trace) -> bool:
    return (
        np.array_equal(one.observations, other.observations)
        and np.array_equal(one.rewards, other.rewards)
        and one.measures.keys() == other.measures.keys()
        and all(np.array_equal(values, other.measures[name]) for name, values in one.measures.items())
    )
