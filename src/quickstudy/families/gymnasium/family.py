"""A family of any Gymnasium environment: its tasks are the values of the constructor's arguments.

What the arguments are is hidden from the learner: a demonstration by the user's expert reveals it, or its own trials
do. Everything goes through the environment's own `reset` and `step`, so it is as fast as the environment is.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import gymnasium
import numpy as np

from quickstudy.errors import QuickstudyError
from quickstudy.families.base import SimulatedFamily
from quickstudy.families.gymnasium.parameters import Space
from quickstudy.families.gymnasium.spaces import Parts, Scale, given_goal
from quickstudy.families.gymnasium.vector_env import Expert, Flat, GymVectorEnv
from quickstudy.task import Policy, Task, check_run

_FILM_RATE = 20
"""Pictures a second."""


class GymFamily(SimulatedFamily):
    """The family; see the module's text and `quickstudy.families.from_gymnasium`.

    Actions of a bounded space are scaled to -1..1 for learners. An episode's success is that of its last step.
    """

    demonstrated_at_once = 32

    def __init__(
        self,
        make_env: Callable[..., gymnasium.Env],
        space: Space,
        expert: Expert | None,
        *,
        name: str,
        protocol: str,
        sizes: Mapping[str, int],
        success: float | None,
        metric: Literal["success", "return"] | None,
        horizon: int | None,
        disturbance: float,
        threads: int,
    ):
        """
        Args:
            space: what the tasks are drawn from.
            others: see `quickstudy.families.from_gymnasium`.

        Raises:
            QuickstudyError: an environment or numbers that are not such.
        """
        if not 0.0 <= disturbance <= 1.0:
            raise QuickstudyError(f"The disturbance of demonstrations must be within 0..1; got {disturbance}.")
        if threads < 1:
            raise QuickstudyError(f"Stepping environments needs at least 1 thread; got {threads}.")
        self.name, self.sizes, self._space, self._make = name, dict(sizes), space, make_env
        self._expert, self._success, self.disturbance, self._threads = expert, success, disturbance, threads
        self.has_expert = expert is not None
        self.default_method = "maml" if self.has_expert else "maml-trpo"
        env = self._open(space.sample("train", np.random.default_rng(0)))
        does, self._without = Scale.of(env.action_space), given_goal(env)
        seen = Parts(env.observation_space, self._without)
        self.observation_channels, self.observation_size, self.action_size = seen.names, len(seen), len(does.half)
        self.scales_actions = not np.isfinite(does.reach).all()  # those of a bounded space are within -1..1
        limit = env.spec.max_episode_steps if env.spec is not None else None
        if horizon is None and limit is None:
            raise QuickstudyError(f"'{name}' needs a horizon: its environments do not say how long an episode may be.")
        self.horizon = int(horizon or limit or 0)
        if self.horizon < 1:
            raise QuickstudyError(f"The horizon of '{name}' must be at least 1; got {self.horizon}.")
        succeeds = self.has_expert or success is not None or _says_success(Flat(env, self.horizon, self._without))
        self.metric = metric or ("success" if succeeds else "return")
        self._film_rate = env.metadata.get("render_fps") or _FILM_RATE
        env.close()
        self.hidden_size = space.width
        judged = "the environment's own success" if success is None else f"a return of at least {success:g}"
        counted = f"success is {judged}" if self.metric == "success" else "the return counts"
        self.protocol = protocol or f"{', '.join(space.names)} hidden, the start is drawn anew, {counted}"

    def sample(self, split: str, rng: np.random.Generator) -> Mapping[str, Any]:
        return self._space.sample(split, rng)

    def hidden(self, task: Task) -> np.ndarray:
        """The arguments within about -1..1; texts as one-hot."""
        return self._space.encode(task.parameters)

    def vector_env(
        self, tasks: Sequence[Task], episodes_per_task: int, *, demonstrating: bool = False, visual: bool = False
    ) -> GymVectorEnv:
        """Environments of these tasks, all open at once; for pictures the constructor must take `render_mode`."""
        check_run(tasks, episodes_per_task)
        render_mode = "rgb_array" if visual else None
        whole = demonstrating and self.metric == "return"  # then there is nothing that a demonstration could fail at
        return GymVectorEnv(
            tasks,
            episodes_per_task,
            lambda task: self.make(task, render_mode),
            self.horizon,
            (lambda info, total: True) if whole else self.success,
            self._expert,
            self._threads,
        )

    def make(self, task: Task, render_mode: str | None = None) -> Flat:
        """The environment of a task with flat float32 observations, actions within -1..1, and the family's horizon.

        Raises:
            QuickstudyError: a task of another family, or a `render_mode` that the constructor does not take.
        """
        return Flat(self._open(self.check(task).parameters, render_mode), self.horizon, self._without)

    def caption(self, task: Task) -> str:
        words = (f"{v:.2g}" if isinstance(v, float) else str(v) for v in task.parameters.values())
        return ", ".join(f"{name} {word}" for name, word in zip(task.parameters, words, strict=True))

    def film(
        self, task: Task, policy: Policy, seed: int, width: int | None = None, height: int | None = None
    ) -> np.ndarray:
        """Pictures of the episode that `run` would run first, 20 for each second of the environment's own time."""
        frames, rate = super().film(task, policy, seed, width, height), self._film_rate
        kept = (np.arange(0, len(frames) / rate, 1 / _FILM_RATE) * rate).round().astype(int)
        return frames[np.minimum(kept, len(frames) - 1)]

    def success(self, info: Mapping[str, Any], total: float) -> bool:
        """Whether an episode with this last info and return succeeded.

        Raises:
            QuickstudyError: nothing says so, and it is what counts.
        """
        if self._success is not None:
            return total >= self._success
        for key in _SUCCESS:
            if key in info:
                return bool(info[key])
        if self.metric == "return":
            return False
        raise QuickstudyError(
            f"What counts as success in '{self.name}'? Its last step's info has neither 'success' nor 'is_success'; "
            "give a return to reach, success=..., or metric='return' otherwise."
        )

    def _open(self, parameters: Mapping[str, Any], render_mode: str | None = None) -> gymnasium.Env:
        options = {} if render_mode is None else {"render_mode": render_mode}
        try:
            env = self._make(**parameters, **options)
        except TypeError as error:
            if not options:
                raise
            raise QuickstudyError(f"Environments of '{self.name}' take no render_mode ({error}).") from error
        if not isinstance(env, gymnasium.Env):
            raise QuickstudyError(f"make_env of '{self.name}' must return a gymnasium.Env; got {type(env).__name__}.")
        return env


_SUCCESS = ("success", "is_success")
"""Keys of an info that say whether an episode succeeded."""


def _says_success(env: Flat) -> bool:
    """Whether the info of a step does."""
    env.reset(seed=0)
    *_, info = env.step(np.zeros(len(env.scale.half)))
    return any(key in info for key in _SUCCESS)
