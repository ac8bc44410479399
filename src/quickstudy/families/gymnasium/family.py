"""A family of any Gymnasium environment: its tasks are the values of the constructor's arguments.

What the arguments are is hidden from the learner; a demonstration by the user's expert reveals it. Everything goes
through the environment's own `reset` and `step`, one environment for each episode, without threads: as fast as the
environment is.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces

from quickstudy.demonstration import Demonstration
from quickstudy.errors import QuickstudyError
from quickstudy.families.gymnasium.parameters import Space
from quickstudy.task import Policy, Task, TaskFamily, check_count, check_run

Expert = Callable[[gymnasium.Env, np.ndarray], np.ndarray]
"""The user's own environment and its observation to the action that solves it."""

ATTEMPTS = 8
"""Tries that the expert has for one demonstration before the task is called broken."""
_EPISODE, _DEMONSTRATION = 0, 1
_FILM_RATE = 20


@dataclass(frozen=True)
class Scale:
    """Actions as learners see them: a side with bounds is scaled to -1..1, one without stays as it is.

    Attributes:
        middle, half, reach: [act]; `reach` is what a scaled action is clipped to.
        shape: of the environment's own action.
    """

    middle: np.ndarray
    half: np.ndarray
    reach: np.ndarray
    shape: tuple[int, ...]

    @classmethod
    def of(cls, box: spaces.Box) -> "Scale":
        low, high = box.low.ravel().astype("f8"), box.high.ravel().astype("f8")
        both = np.isfinite(low) & np.isfinite(high)
        low, high = np.where(both, low, -1.0), np.where(both, high, 1.0)
        return cls((low + high) / 2, (high - low) / 2, np.where(both, 1.0, np.inf).astype("f4"), box.shape)

    def __call__(self, action: np.ndarray) -> np.ndarray:
        return (np.asarray(action, "f8").ravel() - self.middle) / self.half

    def undo(self, action: np.ndarray) -> np.ndarray:
        """A learner's action as the environment wants it."""
        clipped = np.clip(np.asarray(action, "f8"), -self.reach, self.reach)
        return (self.middle + self.half * clipped).astype("f4").reshape(self.shape)


class GymFamily(TaskFamily):
    """The family; see the module's text and `quickstudy.families.own.from_gymnasium`.

    Actions of a bounded space are scaled to -1..1 for learners. An episode's result is that of its last step.
    """

    metric: ClassVar[str] = "success"

    def __init__(
        self,
        make_env: Callable[..., gymnasium.Env],
        space: Space,
        expert: Expert,
        *,
        name: str,
        protocol: str,
        sizes: Mapping[str, int],
        success: float | None,
        horizon: int | None,
        disturbance: float,
    ):
        """
        Args:
            space: what the tasks are drawn from.
            success: the return of an episode from which on it counts as a success; by default what the last step's
                info says under 'success' or 'is_success'.
            disturbance: standard deviation of the noise that the expert is disturbed by, of half the action's range.

        Raises:
            QuickstudyError: an environment or numbers that are not such.
        """
        if not 0.0 <= disturbance <= 1.0:
            raise QuickstudyError(f"The disturbance of demonstrations must be within 0..1; got {disturbance}.")
        self.name, self.sizes, self._space, self._make = name, dict(sizes), space, make_env
        self._expert, self._success, self._disturbance = expert, success, disturbance
        env = self._open(space.sample("train", np.random.default_rng(0)))
        seen, does = _box(env.observation_space, "observations"), _box(env.action_space, "actions")
        self.observation_size, self.action_size = int(np.prod(seen.shape)), int(np.prod(does.shape))
        self.scale = Scale.of(does)
        limit = env.spec.max_episode_steps if env.spec is not None else None
        env.close()
        if horizon is None and limit is None:
            raise QuickstudyError(f"'{name}' needs a horizon: its environments do not say how long an episode may be.")
        self.horizon = int(horizon or limit or 0)
        if self.horizon < 1:
            raise QuickstudyError(f"The horizon of '{name}' must be at least 1; got {self.horizon}.")
        self.hidden_size = space.width
        judged = "the environment's own success" if success is None else f"a return of at least {success:g}"
        self.protocol = protocol or f"{', '.join(space.names)} hidden, the start is drawn anew, success is {judged}"

    def sample(self, split: str, rng: np.random.Generator) -> Mapping[str, Any]:
        return self._space.sample(split, rng)

    def hidden(self, task: Task) -> np.ndarray:
        """The arguments within about -1..1; texts as one-hot."""
        return self._space.encode(task.parameters)

    def make(self, task: Task, render_mode: str | None = None) -> gymnasium.Env:
        """The environment of a task with flat float32 observations, actions within -1..1, and the family's horizon."""
        return Flat(self._open(task.parameters, render_mode), self.scale, self.horizon)

    def demonstrate(self, tasks: Sequence[Task], count: int, seed: int) -> list[list[Demonstration]]:
        """`count` demonstrations of each task: the expert is disturbed, its clean actions are recorded.

        Raises:
            QuickstudyError: the expert failed a task in every attempt; failures are never returned.
        """
        check_count(count)
        return [[self._demonstrate(task, seed, place) for place in range(count)] for task in tasks]

    def run(self, tasks: Sequence[Task], episodes: int, policy: Policy, seed: int) -> dict[str, np.ndarray]:
        """Runs `episodes` whole episodes of every task; all their environments are open at once.

        Returns:
            'success', 'return' and 'steps', each [task, episode].
        """
        check_run(tasks, episodes)
        shape = (len(tasks), episodes)
        pairs = list(itertools.product(range(len(tasks)), range(episodes)))
        runs = [_Episode(self, tasks[i], tasks[i].generator(_EPISODE, seed, j)) for i, j in pairs]
        while not all(one.over for one in runs):
            given = self.actions(policy, np.stack([one.seen for one in runs]), tasks, episodes)
            for one, action in zip(runs, given, strict=True):
                one.step(action)
        return self._outcome(runs, shape)

    def run_expert(self, tasks: Sequence[Task], episodes: int, seed: int) -> dict[str, np.ndarray]:
        """What `run` says of the expert, undisturbed."""
        runs = []
        for task, episode in itertools.product(tasks, range(episodes)):
            runs.append(_Episode(self, task, task.generator(_EPISODE, seed, episode)))
            while not runs[-1].over:
                runs[-1].step(runs[-1].expert())
        return self._outcome(runs, (len(tasks), episodes))

    def caption(self, task: Task) -> str:
        words = (f"{v:.2g}" if isinstance(v, float) else str(v) for v in task.parameters.values())
        return ", ".join(f"{name} {word}" for name, word in zip(task.parameters, words, strict=True))

    def snapshot(self, task: Task) -> np.ndarray:
        return self._pictures(task, None, 0)[0]

    def film(self, task: Task, policy: Policy, seed: int) -> np.ndarray:
        """Pictures of the episode that `run` would run first; the constructor must take `render_mode`."""
        return self._pictures(task, policy, seed)

    def success(self, info: Mapping[str, Any], total: float) -> bool:
        """Whether an episode with this last info and return succeeded.

        Raises:
            QuickstudyError: nothing says so.
        """
        if self._success is not None:
            return total >= self._success
        for key in ("success", "is_success"):
            if key in info:
                return bool(info[key])
        raise QuickstudyError(
            f"What counts as success in '{self.name}'? Its last step's info has neither 'success' nor 'is_success'; "
            "give a return to reach, success=..., otherwise."
        )

    def _open(self, parameters: Mapping[str, Any], render_mode: str | None = None) -> gymnasium.Env:
        options = {} if render_mode is None else {"render_mode": render_mode}
        env = self._make(**parameters, **options)
        if not isinstance(env, gymnasium.Env):
            raise QuickstudyError(f"make_env of '{self.name}' must return a gymnasium.Env; got {type(env).__name__}.")
        return env

    def _demonstrate(self, task: Task, seed: int, place: int) -> Demonstration:
        for attempt in range(ATTEMPTS):
            rng = task.generator(_DEMONSTRATION, seed, place, attempt)
            one = _Episode(self, task, rng)
            seen, wanted = [], []
            while not one.over:
                seen.append(one.seen)
                wanted.append(one.expert())
                one.step(wanted[-1] + self._disturbance * rng.normal(size=self.action_size))
            if one.success:
                return Demonstration(np.stack(seen), np.stack(wanted))
        raise QuickstudyError(f"The expert failed to demonstrate task {task.name} in {ATTEMPTS} attempts.")

    @staticmethod
    def _outcome(runs: Sequence["_Episode"], shape: tuple[int, int]) -> dict[str, np.ndarray]:
        rows = np.array([(one.success, one.total, one.steps) for one in runs], "f8")
        return {name: rows[:, i].reshape(shape) for i, name in enumerate(("success", "return", "steps"))}

    def _pictures(self, task: Task, policy: Policy | None, seed: int) -> np.ndarray:
        try:
            one = _Episode(self, task, task.generator(_EPISODE, seed, 0), "rgb_array")
        except TypeError as error:
            raise QuickstudyError(f"Environments of '{self.name}' take no render_mode ({error}).") from error
        frames = [one.picture()]
        while policy is not None and not one.over:
            one.step(np.asarray(policy(one.seen[None, None]))[0, 0])
            if not one.over:
                frames.append(one.picture())
        rate = one.env.metadata.get("render_fps") or _FILM_RATE
        one.env.close()
        kept = (np.arange(0, len(frames) / rate, 1 / _FILM_RATE) * rate).round().astype(int)
        return np.stack([frames[min(i, len(frames) - 1)] for i in kept])


class _Episode:
    """One environment from its reset to its end, after which it keeps still and is closed."""

    def __init__(self, family: GymFamily, task: Task, rng: np.random.Generator, render_mode: str | None = None) -> None:
        self._family, self._task = family, task
        self.env = family._open(task.parameters, render_mode)
        self._keep = render_mode is not None
        self._raw, _ = self.env.reset(seed=int(rng.integers(1 << 31)))
        self.total, self.steps, self.over, self.success = 0.0, 0, False, False
        self._see()

    def step(self, action: np.ndarray) -> None:
        if self.over:
            return
        self._raw, reward, terminated, truncated, info = self.env.step(self._family.scale.undo(action))
        self.total, self.steps = self.total + float(reward), self.steps + 1
        self._see()
        self.over = bool(terminated or truncated or self.steps >= self._family.horizon)
        if self.over:
            self.success = self._family.success(info, self.total)
            if not self._keep:
                self.env.close()

    def expert(self) -> np.ndarray:
        """The expert's action as learners see it, [act]."""
        family = self._family
        action = np.asarray(family._expert(self.env, self._raw))
        if action.size != family.action_size or not np.isfinite(action).all():
            raise QuickstudyError(
                f"The expert of '{family.name}' must return {family.action_size} finite numbers; got {action} for task "
                f"{self._task.name}."
            )
        return family.scale(action)

    def picture(self) -> np.ndarray:
        frame = self.env.render()
        if not isinstance(frame, np.ndarray):
            raise QuickstudyError(f"Environments of '{self._family.name}' draw no rgb_array; got {type(frame)}.")
        return frame

    def _see(self) -> None:
        self.seen = np.asarray(self._raw, "f4").ravel()
        if not np.isfinite(self.seen).all():
            raise QuickstudyError(f"An observation of task {self._task.name} is not finite after {self.steps} steps.")


class Flat(gymnasium.Wrapper):
    """An environment as its family's learners see it: flat float32 observations, scaled actions, a horizon."""

    def __init__(self, env: gymnasium.Env, scale: Scale, horizon: int) -> None:
        super().__init__(env)
        self._scale, self._horizon, self._left = scale, horizon, horizon
        box = _box(env.observation_space, "observations")
        low, high = (end.ravel().astype("f4") for end in (box.low, box.high))
        self.observation_space = spaces.Box(low, high, dtype=np.float32)
        self.action_space = spaces.Box(-scale.reach, scale.reach, dtype=np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        self._left = self._horizon
        seen, info = self.env.reset(seed=seed, options=options)
        return np.asarray(seen, "f4").ravel(), info

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        seen, reward, terminated, truncated, info = self.env.step(self._scale.undo(action))
        self._left -= 1
        over = bool(truncated) or (self._left <= 0 and not terminated)
        return np.asarray(seen, "f4").ravel(), float(reward), bool(terminated), over, info


def _box(space: gymnasium.Space[Any], what: str) -> spaces.Box:
    if not isinstance(space, spaces.Box):
        raise QuickstudyError(
            f"A family needs environments whose {what} are a Box of numbers; got {space}. Gymnasium's wrappers "
            "(FlattenObservation, say) change that."
        )
    return space
