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
    """What a policy may look at before it acts, [task, episode, ...].

    Attributes:
        observation: [task, episode, obs].
        action, reward: of the step before, zeros in the first one.
        done: [task, episode], 1 in the first step of an episode that follows another one of the same trial.
        active: [task, episode], False where the episode is over; a memory must stay as it is there.
    """

    observation: Tensor
    action: Tensor
    reward: Tensor
    done: Tensor
    active: Tensor


Actor = Callable[[PolicyInput], Gaussian]
"""Called once a step, in order; one with a memory keeps it from call to call."""


class Episodes(NamedTuple):
    """One episode in every environment.

    Attributes:
        observations: [task, episode, step, obs].
        actions: [task, episode, step, act], as drawn; an environment clips them to -1..1.
        rewards: [task, episode, step].
        mean, log_std: of the distribution that each action was drawn from, [task, episode, step, act].
        mask: [task, episode, step], 1 for a real step; what is 0 comes last and must change no result.
        last: the observation after the last real step, [task, episode, obs].
        terminated: [task, episode], the episode ended by the task's rule. If not, it was truncated and its last
            observation still has a value.
        success, success_last: [task, episode], at any step, and at the last one.
        broken: [task, episode], the episode was cut short because the environment failed or its reward was no number.
        measures: what else the environments have to say of it, by name, [task, episode].
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
        """Undiscounted, [task, episode]."""
        return (self.rewards * self.mask).sum(-1)

    @property
    def old(self) -> Gaussian:
        """What the actions were drawn from."""
        return Gaussian(self.mean, self.log_std)


def memoryless(policy: GaussianPolicy, parameters: Parameters) -> Actor:
    """An actor that looks at observations alone."""
    return lambda seen: policy.predict(parameters, seen.observation)


@torch.no_grad()
def collect(env: VectorEnv, actor: Actor, rng: torch.Generator, before: PolicyInput | None = None) -> Episodes:
    """One episode in every environment.

    A step whose reward or observation is not finite, or whose environment failed, ends its episode just before it.

    Args:
        before: the action and reward of the last step of the episode before, where an actor remembers them.

    Raises:
        QuickstudyError: all environments of a task are broken in their first step.
    """
    observation = _tensor(env.reset_all(numpy_rng(rng)))
    active = np.ones(observation.shape[:2], bool)
    terminated, success, success_last, broken = (np.zeros_like(active) for _ in range(4))
    last, steps = observation, []
    seen = _first_input(observation, env.action_size, before)
    for _ in range(env.horizon):
        distribution = actor(seen)
        action = distribution.sample(rng)
        result = env.step(action.numpy(), active)
        sound = np.isfinite(result.rewards) & np.isfinite(result.observations).all(-1) & ~result.broken
        broken |= active & ~sound
        env.faults += int((active & ~sound & ~result.broken).sum())
        active &= sound
        real = torch.from_numpy(active)
        following = torch.where(real[..., None], _tensor(result.observations), last)
        reward = torch.where(real, _tensor(result.rewards), 0.0)
        steps.append((seen.observation, action, reward, *distribution, real.float()))
        success_last = np.where(active, result.success, success_last)
        terminated |= active & result.terminated
        success |= active & result.success
        active = active & ~result.over
        last = following
        seen = PolicyInput(following, action, reward, torch.zeros_like(reward), torch.from_numpy(active))
        if not active.any():
            break
    padded = [torch.stack(part, 2) for part in zip(*steps, strict=True)]
    flags = [torch.from_numpy(flag) for flag in (terminated, success, success_last.astype(bool), broken)]
    measures = {name: torch.from_numpy(values) for name, values in env.measures().items()}
    episodes = Episodes._make([*padded, last, *flags, measures])
    _report_broken(env, episodes)
    return episodes


def _first_input(observation: Tensor, action_size: int, before: PolicyInput | None) -> PolicyInput:
    active = torch.ones(observation.shape[:2], dtype=torch.bool)
    if before is not None:
        return before._replace(observation=observation, active=active)
    zeros = observation.new_zeros(observation.shape[:2])
    return PolicyInput(observation, observation.new_zeros(*active.shape, action_size), zeros, zeros, active)


def _report_broken(env: VectorEnv, episodes: Episodes) -> None:
    """Names the tasks with a broken episode; nothing can be learned of a task that has no step at all."""
    if not episodes.broken.any():
        return
    per_task = episodes.broken.sum(1).tolist()
    names = [f"{task.name} ({n})" for task, n in zip(env.tasks, per_task, strict=True) if n]
    empty = [t.name for t, n in zip(env.tasks, episodes.mask.sum((1, 2)).tolist(), strict=True) if n == 0]
    if empty:
        raise QuickstudyError(f"Every environment of {', '.join(empty)} failed or gave no finite reward at once.")
    console.print(
        f"Episodes were cut short by a failure or a reward that is no number: {', '.join(names)}.", markup=False
    )


def numpy_rng(rng: torch.Generator) -> np.random.Generator:
    """A NumPy generator that is drawn from a torch one, so that one state resumes both."""
    return np.random.default_rng(int(torch.randint(2**62, (), generator=rng)))


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(values, "f4"))
