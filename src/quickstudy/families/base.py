"""Families that are simulated: one vector environment, from which all else is made.

demonstrations      its expert acts, disturbed, and its clean actions are recorded
episodes            a policy acts until each is over (`run`)
films, snapshots    its pictures
Gymnasium           `TaskEnv`, an environment of one task
trials              `quickstudy.methods.trials` acts in it and learns from its rewards
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import gymnasium
import numpy as np

from quickstudy.demonstration import Demonstration
from quickstudy.errors import QuickstudyError, unknown
from quickstudy.io.plugins import load_attribute
from quickstudy.simulation.vector_env import VectorEnv
from quickstudy.task import Policy, Task, TaskFamily, check_count, check_run

if TYPE_CHECKING:
    import torch

EPISODE, DEMONSTRATION = 0, 1
"""Purposes of a task's random generators; a film draws from `EPISODE`, so it shows what `run` would run."""


class SimulatedFamily(TaskFamily):
    """A family whose tasks are simulated; it says how by `vector_env`.

    Attributes:
        disturbance: strength of what disturbs the expert while it demonstrates, of an action's range of -1..1.
        attempts: tries that the expert has for one demonstration before the task is called broken.
        demonstrated_at_once: environments that the expert demonstrates in at once; bounds the memory.
        film_every: steps from one picture of a film to the next.
        film_ends_with_success: whether a film stops there, where an episode goes on to its horizon.
        observation_limit: what observations are clipped to, for Gymnasium's space; infinite by default.
    """

    disturbance: float = 0.1
    attempts: ClassVar[int] = 8
    demonstrated_at_once: int = 256
    film_every: int = 1
    film_ends_with_success: bool = False
    observation_limit: float = np.inf

    @property
    def learned_from(self) -> tuple[str, ...]:
        """By trial; and from demonstrations where there is an expert."""
        return ("demonstrations", "trials") if self.has_expert else ("trials",)

    @abstractmethod
    def vector_env(
        self, tasks: Sequence[Task], episodes_per_task: int, *, demonstrating: bool = False, visual: bool = False
    ) -> VectorEnv:
        """Environments of these tasks.

        Args:
            demonstrating: an episode ends where a demonstration does, which may be later than the task's success.
            visual: with all that a picture needs.

        Raises:
            QuickstudyError: no task or no episode, or a task of another family.
        """

    def demonstrate(self, tasks: Sequence[Task], count: int, seed: int) -> list[list[Demonstration]]:
        """`count` demonstrations of each task: the expert is disturbed, its clean actions are recorded.

        Raises:
            QuickstudyError: it is learned by trial alone, or the expert failed a task in every attempt; failures are
                never returned.
        """
        if "demonstrations" not in self.learned_from:
            raise QuickstudyError(f"Family '{self.name}' has no expert to demonstrate it: it is learned by trial.")
        check_count(count)
        chunk = max(1, self.demonstrated_at_once // count)
        parts = [tasks[first : first + chunk] for first in range(0, len(tasks), chunk)]
        return [shown for part in parts for shown in self._demonstrate(part, count, seed)]

    def worth_another(self, demonstration: Demonstration, attempt: int) -> bool:
        """Whether one that succeeded is so poor that the expert should try again; the shorter one is then kept."""
        return False

    def run(self, tasks: Sequence[Task], episodes: int, policy: Policy, seed: int) -> dict[str, np.ndarray]:
        """Runs exactly `episodes` whole episodes of every task, all at once.

        Returns:
            each [task, episode]: 'success' (at any step), 'success_last' (at the last one), 'return', 'steps' (to the
            first success, or to the end), and what the environments measure.
        """
        wanted = (len(tasks), episodes)

        def act(env: VectorEnv, observations: np.ndarray) -> np.ndarray:
            return self.actions(policy, observations.reshape(env.size, -1), tasks, episodes).reshape(*wanted, -1)

        return self._run(tasks, episodes, act, seed)

    def run_expert(self, tasks: Sequence[Task], episodes: int, seed: int) -> dict[str, np.ndarray]:
        """What `run` says of the expert, undisturbed."""
        return self._run(tasks, episodes, lambda env, _: np.nan_to_num(env.expert_action()), seed)

    def _run(
        self, tasks: Sequence[Task], episodes: int, act: Callable[[VectorEnv, np.ndarray], np.ndarray], seed: int
    ) -> dict[str, np.ndarray]:
        check_run(tasks, episodes)
        with self.vector_env(tasks, episodes) as env:
            observations = env.reset(generators(tasks, episodes, EPISODE, seed))
            active = np.ones(env.shape, bool)
            success, last, total, steps = (np.zeros(env.shape, kind) for kind in (bool, bool, float, int))
            while active.any():
                result = env.step(act(env, observations), active)
                happened = active & ~result.broken
                steps += happened & ~success
                total += np.where(happened, result.rewards, 0.0)
                last = np.where(happened, result.success, last)
                success |= last
                active, observations = active & ~result.over, result.observations
            outcome = {"success": success, "success_last": last, "return": total, "steps": steps, **env.measures()}
        return {name: np.asarray(values, np.float64) for name, values in outcome.items()}

    def make(self, task: Task, render_mode: str | None = None) -> gymnasium.Env:
        """A Gymnasium environment of one task."""
        return TaskEnv(self, task, render_mode)

    def film(
        self, task: Task, policy: Policy, seed: int, width: int | None = None, height: int | None = None
    ) -> np.ndarray:
        """Pictures [frame, height, width, 3] of the episode that `run` would run first, every `film_every` steps."""
        with self.vector_env([task], 1, visual=True) as env:
            observations = env.reset(generators([task], 1, EPISODE, seed))
            frames, active, step = [env.render(0, width, height)], np.ones(env.shape, bool), 0
            while active.any():
                result = env.step(np.asarray(policy(observations.astype("f4"))), active)
                active, observations, step = active & ~result.over, result.observations, step + 1
                ended = not active.any() or (self.film_ends_with_success and bool(result.success.any()))
                if step % self.film_every == 0 or ended:
                    frames.append(env.render(0, width, height))
                if ended:
                    break
            return np.stack(frames)

    def snapshot(self, task: Task, width: int = 240, height: int = 180) -> np.ndarray:
        """A picture of the start of an episode, uint8 [height, width, 3], for a contact sheet."""
        with self.vector_env([task], 1, visual=True) as env:
            env.reset(generators([task], 1, EPISODE, 0))
            return env.render(0, width, height)

    def draw(self, count: int, rng: "torch.Generator") -> list[Task]:
        """Training tasks for one step of an outer loop by trial: neighbours, as there are always more to come."""
        import torch  # here, so that families can be listed without it

        places = self.sizes["train"] - count + 1
        return self.tasks("train", count, int(torch.randint(max(1, places), (), generator=rng)))

    def check(self, task: Task) -> Task:
        """The task itself, if it belongs to this family.

        Raises:
            QuickstudyError: it does not.
        """
        if task.family != (self.seed_name or self.name):
            raise QuickstudyError(f"Task {task.name} is not of the family '{self.name}'.")
        return task

    def _demonstrate(self, tasks: Sequence[Task], count: int, seed: int) -> list[list[Demonstration]]:
        of = [task for task in tasks for _ in range(count)]
        kept: list[Demonstration | None] = [None] * len(of)
        with self.vector_env(tasks, count, demonstrating=True) as env:
            for attempt in range(self.attempts):
                todo = [i for i, one in enumerate(kept) if one is None or self.worth_another(one, attempt)]
                if not todo:
                    break
                drawn = [of[i].generator(DEMONSTRATION, seed, i % count, attempt) for i in todo]
                for i, new in zip(todo, self._attempt(env, drawn, np.array(todo)), strict=True):
                    old = kept[i]
                    kept[i] = new if old is None or (new is not None and len(new) < len(old)) else old
        broken = [of[i].name for i, one in enumerate(kept) if one is None]
        if broken:
            raise QuickstudyError(f"The expert failed to demonstrate task {broken[0]} in {self.attempts} attempts.")
        return [[d for d in kept[i : i + count] if d is not None] for i in range(0, len(of), count)]

    def _attempt(
        self, env: VectorEnv, drawn: Sequence[np.random.Generator], todo: np.ndarray
    ) -> list[Demonstration | None]:
        """A demonstration in each of the environments `todo`; None where it did not end in success."""
        observations = env.reset(drawn, todo, self.disturbance)
        active, success = np.zeros(env.size, bool), np.zeros(env.size, bool)
        active[todo] = True
        active, success = active.reshape(env.shape), success.reshape(env.shape)
        steps, seen, wanted = np.zeros(env.shape, int), [], []
        while active.any():
            seen.append(observations.reshape(env.size, -1).copy())
            wanted.append(env.expert_action())
            result = env.step(wanted[-1], active)
            steps += active
            success = np.where(active, result.success, success)
            active, observations = active & ~result.over, result.observations
        all_seen, all_wanted = np.stack(seen, 1), np.stack([a.reshape(env.size, -1) for a in wanted], 1)
        ends, fine = steps.ravel(), success.ravel()
        return [Demonstration(all_seen[i, : ends[i]], all_wanted[i, : ends[i]]) if fine[i] else None for i in todo]


def generators(tasks: Sequence[Task], episodes: int, purpose: int, seed: int) -> list[np.random.Generator]:
    """One for each episode of each task, which does not depend on what else is run."""
    return [task.generator(purpose, seed, episode) for task in tasks for episode in range(episodes)]


class TaskEnv(gymnasium.Env):
    """One task as a Gymnasium environment: physics, observation, reward and success of its family's vector environment.

    `info` has 'success' of the step, and what the environment measures, up to now.

    Raises:
        QuickstudyError: another render mode than 'rgb_array'.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012, as Gymnasium has it

    def __init__(self, family: SimulatedFamily, task: Task, render_mode: str | None = None) -> None:
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise unknown(f"render mode of {family.name}", render_mode, self.metadata["render_modes"])
        self.task, self.render_mode = task, render_mode
        self.metadata = self.metadata | {"render_fps": round(family.rate or 20)}
        limit, seen = np.float32(family.observation_limit), (family.observation_size,)
        self.observation_space = gymnasium.spaces.Box(-limit, limit, seen, np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (family.action_size,), np.float32)
        self._env = family.vector_env([task], 1, visual=render_mode is not None)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        return self._env.reset([self.np_random])[0, 0].astype(np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        result = self._env.step(np.asarray(action, np.float32)[None, None], np.ones((1, 1), bool))
        terminated = bool(result.terminated[0, 0])
        truncated = bool(result.truncated[0, 0]) and not terminated
        measured = {name: float(values[0, 0]) for name, values in self._env.measures().items()}
        info = {"success": bool(result.success[0, 0]), **measured}
        seen = result.observations[0, 0].astype(np.float32)
        return seen, float(result.rewards[0, 0]), terminated, truncated, info

    def render(self) -> np.ndarray | None:
        return None if self.render_mode is None else self._env.render(0)

    def close(self) -> None:
        self._env.close()


@dataclass(frozen=True)
class FamilyRecord:
    """A family beside its class: how the command line knows it.

    Attributes:
        name: on the command line.
        summary: what is learned, in a few words.
        build: makes it; some load a robot.
        environment: its name in Gymnasium, such as 'Grasp-v0'; empty where it is not registered.
        needs: what must be fetched or installed first, in a few words; empty where nothing.
        takes_objects: it can be made with `objects`, a folder of a user's own mesh files, and their `unit`.
    """

    name: str
    summary: str
    build: Callable[..., TaskFamily] = field(repr=False)
    environment: str = ""
    needs: str = ""
    takes_objects: bool = False


def imported(name: str, *args: Any, **options: Any) -> Callable[..., TaskFamily]:
    """What makes a family by the class or function `package.module:attribute`, loaded only then: some load a robot."""

    def build(**more: Any) -> TaskFamily:
        family: TaskFamily = load_attribute(name)(*args, **options, **more)
        return family

    return build
