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
from quickstudy.families.gymnasium.parameters import Draw, Space
from quickstudy.families.gymnasium.spaces import Parts, Scale, given_goal, shown_by_wrapper
from quickstudy.families.gymnasium.vector_env import TIMEOUT, Expert, Flat, GymVectorEnv, close, deadline
from quickstudy.io.progress import console
from quickstudy.task import Policy, Task, check_run

_FILM_RATE = 20
"""Pictures a second."""


class GymFamily(SimulatedFamily):
    """A family of a user's own environment: a task is a choice of its constructor's arguments, which nobody sees.

    It is `quickstudy.families.from_gymnasium`. Its tasks are learned by trial and, where there is an expert, from
    demonstrations. Actions of a bounded space are scaled to -1..1 for learners. An episode's success is that of its
    last step.
    """

    demonstrated_at_once = 32

    def __init__(
        self,
        make_env: Callable[..., gymnasium.Env],
        parameters: Draw,
        splits: Mapping[str, Draw] | None = None,
        *,
        expert: Expert | None = None,
        success: float | None = None,
        metric: Literal["success", "return"] | None = None,
        horizon: int | None = None,
        disturbance: float = 0.1,
        threads: int = 1,
        timeout: float = TIMEOUT,
        sizes: Mapping[str, int] | None = None,
        name: str = "own-environment",
        protocol: str = "",
    ):
        """
        Args:
            make_env: makes the environment of a task, `make_env(**arguments)`. Its start must be drawn in `reset`. For
                films it takes `render_mode` too.
            parameters: what varies: for each argument a range (low, high), a tuple of such ranges, or a list of values,
                such as points [[x, y], ...]; or a function of a random generator that returns all arguments of a task.
            splits: for 'train', 'validation' and one or more test splits what differs there from `parameters`; no two
                may share a task. By default all three draw from the same ranges: tasks are new, but not unlike.
            expert: solves the task: the environment and its observation to an action of it.
            success: the return from which on an episode counts as success; by default what the info of its last step
                says under 'success' or 'is_success'.
            metric: what a comparison ranks by; by default success where there is an expert, a return to reach or an
                environment that says it in the info of every step, and the return otherwise.
            horizon: the most steps of an episode; by default the environment's own limit. A termination or truncation
                of the environment ends an episode before.
            disturbance: standard deviation of the noise that the expert is disturbed by while it demonstrates, of half
                the range of an action, so that learners see how to come back.
            threads: environments stepped at the same time; worth it where a step frees the interpreter.
            timeout: seconds that one call of an environment or the expert may take; what takes longer failed, and is
                made anew as what raises.
            sizes: tasks of each split; by default 100,000 for training and 10,000 for each other.
            name: of the family.
            protocol: what is hidden and what counts as success, for tables.

        Raises:
            QuickstudyError: splits that share tasks, or an environment, ranges or numbers that are not such.
        """
        if not 0.0 <= disturbance <= 1.0:
            raise QuickstudyError(f"The disturbance of demonstrations must be within 0..1; got {disturbance}.")
        if threads < 1:
            raise QuickstudyError(f"Stepping environments needs at least 1 thread; got {threads}.")
        if not timeout > 0:
            raise QuickstudyError(f"The time-out of environments must be positive; got {timeout}.")
        self._timeout = timeout
        self._space = space = Space(parameters, splits)
        usual = {split: 100_000 if split == "train" else 10_000 for split in space.splits}
        self.name, self.sizes, self._make = name, usual | dict(sizes or {}), make_env
        self._expert, self._success, self.disturbance, self._threads = expert, success, disturbance, threads
        self.has_expert = expert is not None
        self.default_method = "maml" if self.has_expert else "maml-trpo"
        env = self._open(space.sample("train", np.random.default_rng(0)))
        hidden = "hidden"
        if shown_by_wrapper(env):
            hidden = "not hidden, because FlattenObservation shows 'desired_goal'"
            console.print(
                f"'{name}': FlattenObservation puts 'desired_goal', which is the task's own, into what is observed; "
                "without the wrapper a Dict is read by key, and that goal stays hidden.",
                markup=False, soft_wrap=True,
            )  # fmt: skip
        does, self._without = Scale.of(env.action_space), given_goal(env)
        parts = Parts(env.observation_space, self._without)
        self.observation_channels, self.observation_size, self.action_size = parts.names, len(parts), len(does.half)
        self.scales_actions = not np.isfinite(does.reach).all()  # those of a bounded space are within -1..1
        limit = env.spec.max_episode_steps if env.spec is not None else None
        if horizon is None and limit is None:
            raise QuickstudyError(f"'{name}' needs a horizon: its environments do not say how long an episode may be.")
        self.horizon = int(horizon or limit or 0)
        if self.horizon < 1:
            raise QuickstudyError(f"The horizon of '{name}' must be at least 1; got {self.horizon}.")
        succeeds = (
            self.has_expert or success is not None or _says_success(Flat(env, self.horizon, self._without), timeout)
        )
        self.metric = metric or ("success" if succeeds else "return")
        self._film_rate = env.metadata.get("render_fps") or _FILM_RATE
        close(env, timeout)
        self.hidden_size = space.width
        judged = "the environment's own success" if success is None else f"a return of at least {success:g}"
        counted = f"success is {judged}" if self.metric == "success" else "the return counts"
        self.protocol = protocol or f"{', '.join(space.names)} {hidden}, the start is drawn anew, {counted}"

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
            timeout=self._timeout,
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
            with deadline(self._timeout):
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


def _says_success(env: Flat, timeout: float) -> bool:
    """Whether the info of a step does; an environment that fails now is told once it is used."""
    try:
        with deadline(timeout):
            env.reset(seed=0)
            *_, info = env.step(np.zeros(len(env.scale.half)))
    except Exception:  # a user's environment may fail in any way
        return False
    return any(key in info for key in _SUCCESS)
