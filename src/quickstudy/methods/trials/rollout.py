"""Episodes of many tasks, collected together and kept as padded arrays."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from quickstudy.errors import QuickstudyError
from quickstudy.io.progress import console
from quickstudy.learner import Parameters
from quickstudy.methods.trials.policy import Gaussian, GaussianPolicy
from quickstudy.simulation.vector_env import VectorEnv


class PolicyInput(NamedTuple):
    """What a policy may look at before it acts, [task, lane, ...].

    Attributes:
        observation: [task, lane, obs].
        action, reward: of the step before, zeros in the first one.
        done: [task, lane], 1 in the first step of an episode that another one came before.
        alive: [task, lane], False in a lane whose episode is over; a memory must stay as it is there.
    """

    observation: Tensor
    action: Tensor
    reward: Tensor
    done: Tensor
    alive: Tensor


Actor = Callable[[PolicyInput], Gaussian]
"""Called once a step, in order; one with a memory keeps it from call to call."""


class Episodes(NamedTuple):
    """One episode of every lane.

    Attributes:
        observations: [task, lane, step, obs].
        actions: [task, lane, step, act], as drawn; an environment clips them to -1..1.
        rewards: [task, lane, step].
        mean, log_std: of the distribution that each action was drawn from, [task, lane, step, act].
        mask: [task, lane, step], 1 for a real step; what is 0 comes last and must change no result.
        last: the observation after the last real step, [task, lane, obs].
        terminated: [task, lane], the episode ended by the task's rule. If not, it was truncated and its last
            observation still has a value.
        success, success_last: [task, lane], at any step, and at the last one.
        broken: [task, lane], the episode was cut short because the environment failed or its reward was no number.
        measures: what else its env have to say of it, by name, [task, lane].
    """

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    mean: Tensor
    log_std: Tensor
    mask: Tensor
    last: Tensor
    terminated: Tensor
    success: Tensor
    success_last: Tensor
    broken: Tensor
    measures: dict[str, Tensor]

    @property
    def returns(self) -> Tensor:
        """Undiscounted, [task, lane]."""
        return (self.rewards * self.mask).sum(-1)

    @property
    def old(self) -> Gaussian:
        """What the actions were drawn from."""
        return Gaussian(self.mean, self.log_std)


def parametric(policy: GaussianPolicy, parameters: Parameters) -> Actor:
    """A policy without memory."""
    return lambda seen: policy.predict(parameters, seen.observation)


@torch.no_grad()
def collect(env: VectorEnv, actor: Actor, rng: torch.Generator, carried: PolicyInput | None = None) -> Episodes:
    """One episode in every lane.

    A step whose reward or observation is not finite, or whose environment failed, ends its episode just before it.

    Args:
        carried: the action and reward of the last step of the episode before, where an actor remembers them.

    Raises:
        QuickstudyError: all environments of a task are broken in their first step.
    """
    observation = _tensor(env.reset_all(numpy_rng(rng)))
    alive = np.ones(observation.shape[:2], bool)
    ended, success, success_last, broken = (np.zeros_like(alive) for _ in range(4))
    last, steps = observation, []
    seen = _first(observation, env.action_size, carried)
    for _ in range(env.horizon):
        given = actor(seen)
        action = given.sample(rng)
        outcome = env.step(action.numpy(), alive)
        fine = np.isfinite(outcome.rewards) & np.isfinite(outcome.observations).all(-1) & ~outcome.broken
        broken |= alive & ~fine
        env.faults += int((alive & ~fine & ~outcome.broken).sum())
        alive &= fine
        real = torch.from_numpy(alive)
        following = torch.where(real[..., None], _tensor(outcome.observations), last)
        reward = torch.where(real, _tensor(outcome.rewards), 0.0)
        steps.append((seen.observation, action, reward, *given, real.float()))
        success_last, ended = np.where(alive, outcome.success, success_last), ended | (alive & outcome.terminated)
        success |= alive & outcome.success
        alive = alive & ~outcome.terminated & ~outcome.truncated
        last, seen = (
            following,
            PolicyInput(following, action, reward, torch.zeros_like(reward), torch.from_numpy(alive)),
        )
        if not alive.any():
            break
    padded = [torch.stack(part, 2) for part in zip(*steps, strict=True)]
    flags = [torch.from_numpy(flag) for flag in (ended, success, success_last.astype(bool), broken)]
    measures = {name: torch.from_numpy(values) for name, values in env.measures().items()}
    episodes = Episodes._make([*padded, last, *flags, measures])
    _report(env, episodes)
    return episodes


def _first(observation: Tensor, action_size: int, carried: PolicyInput | None) -> PolicyInput:
    alive = torch.ones(observation.shape[:2], dtype=torch.bool)
    if carried is not None:
        return carried._replace(observation=observation, alive=alive)
    nothing = observation.new_zeros(observation.shape[:2])
    return PolicyInput(observation, observation.new_zeros(*alive.shape, action_size), nothing, nothing, alive)


def _report(env: VectorEnv, episodes: Episodes) -> None:
    """Names the tasks with a broken episode; nothing can be learned of a task that has no step at all."""
    if not episodes.broken.any():
        return
    per_task = episodes.broken.sum(1).tolist()
    names = [f"{task.name} ({n})" for task, n in zip(env.tasks, per_task, strict=True) if n]
    empty = [t.name for t, n in zip(env.tasks, episodes.mask.sum((1, 2)).tolist(), strict=True) if n == 0]
    if empty:
        raise QuickstudyError(f"Every environment of {', '.join(empty)} failed or gave no finite reward at once.")
    console.print(f"Episodes were cut short by a failure or a reward that is no number: {', '.join(names)}.")


def numpy_rng(rng: torch.Generator) -> np.random.Generator:
    """A NumPy generator that is drawn from a torch one, so that one state resumes both."""
    return np.random.default_rng(int(torch.randint(2**62, (), generator=rng)))


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(values, "f4"))
