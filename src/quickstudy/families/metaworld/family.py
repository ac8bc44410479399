"""Manipulation with Meta-World's Sawyer: ML1 of any of its 50 tasks, ML10, ML45, and tools of other sizes.

**The goal is hidden**, as Meta-World's ML benchmarks have it (its MT benchmarks show it): the last three numbers of an
observation are zero, and only a demonstration tells where to go. `goal="visible"` shows it.

Here a task is what the episodes of one demonstration share. With a hidden goal that is Meta-World's task (push, say)
and one goal; the object starts elsewhere in every episode. With a visible goal it is Meta-World's task alone; object
and goal are elsewhere in every episode, so that a demonstration is of another goal. Rewards are v2, success is counted
both ways: at any step (as most papers do) and at the last one.
"""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import gymnasium
import mujoco
import numpy as np

from quickstudy.demonstration import Demonstration
from quickstudy.errors import QuickstudyError, unknown
from quickstudy.families.metaworld import official as stock
from quickstudy.families.metaworld.catalogue import (
    ML10_TEST,
    ML10_TRAIN,
    ML10_VALIDATION,
    ML45_TEST,
    ML45_TRAIN,
    TASKS,
)
from quickstudy.families.metaworld.port import Tool
from quickstudy.families.metaworld.worlds import ACTION, OBSERVATION, PORTS, MetaWorlds
from quickstudy.task import ObservationLayout, Policy, Task, TaskFamily, check_run, in_parts

TOOLS = ("hammer-v3", "stick-push-v3", "peg-insert-side-v3", "assembly-v3")
"""Tool tasks to train on; the fifth, stick-pull, is kept for the split 'tasks'."""
HELD_OUT_TOOLS = ("stick-pull-v3",)
LENGTHS: Mapping[str, tuple[tuple[float, float], ...]] = {
    "train": ((0.80, 0.90), (0.97, 1.05), (1.15, 1.25)),
    "validation": ((0.90, 0.93), (1.05, 1.08)),
    "tools": ((0.93, 0.97), (1.08, 1.15), (1.25, 1.35)),
    "tasks": ((0.80, 1.25),),
}
"""Tools' lengths relative to Meta-World's own, half-open [low, high): none of the split 'tools' occurs in training."""
WIDTHS = (0.85, 1.1)
ATTEMPTS = 16
"""Tries that the expert has for one demonstration before the task is called broken."""
QUICK = 150
"""Steps to a success that counts as a good demonstration: one that took longer, because a grasp slipped and the expert
stood there, say, is tried again, up to `QUICK_ATTEMPTS` times in all, and the quickest is kept."""
QUICK_ATTEMPTS = 4
_GOAL = slice(36, 39)
_EPISODE, _DEMONSTRATION = 0, 1
"""Purposes of a task's random generators; a film draws from `_EPISODE`, so it shows what `run` would run."""


class Manipulation(TaskFamily):
    """Tasks of Meta-World; see the module's text and `ml1`, `ml10`, `ml45` and `tools`."""

    metric: ClassVar[str] = "success"
    secondary_metrics = ("success_last",)
    rate = 80.0
    observation_size = OBSERVATION
    action_size = ACTION

    def __init__(
        self,
        name: str,
        classes: Mapping[str, Sequence[str]],
        *,
        goal: Literal["hidden", "visible"] = "hidden",
        scramble: bool = False,
        lengths: Mapping[str, Sequence[tuple[float, float]]] | None = None,
        horizon: int = 200,
        tail: int = 10,
        noise: float = 0.05,
        disturbance: float = 0.1,
        worlds: int = 200,
        threads: int | None = None,
    ):
        """
        Args:
            classes: Meta-World's tasks in each split, 'train' among them. Without a 'validation', it holds other goals
                of those training tasks that have one; where none has, other episodes of the training tasks.
            goal: hidden, as in Meta-World's ML benchmarks, or visible.
            scramble: the numbers of an observation are in an order of the task's own.
            lengths: of tools, relative, in each split; Meta-World's own tools where there are none.
            horizon: steps of an episode (Meta-World's own is 500); all of them are run.
            tail: steps that a demonstration goes on for after its success.
            noise: standard deviation of the noise on actions in every episode, of their range of -1..1.
            disturbance: likewise of what else disturbs the expert while it demonstrates; pushes grow with it.
            worlds: how many worlds the expert demonstrates in at once.
            threads: that step the worlds; by default one for each core. Results do not depend on it.

        Raises:
            QuickstudyError: an unknown task or option, or a number out of its range.
        """
        for task in (task for tasks in classes.values() for task in tasks):
            if task not in TASKS:
                raise unknown("Meta-World task", task, TASKS)
        if goal not in ("hidden", "visible"):
            raise unknown("way to treat the goal", goal, ("hidden", "visible"))
        if horizon < 1 or tail < 0 or worlds < 1:
            raise QuickstudyError(
                f"Manipulation needs horizon >= 1, tail >= 0 and worlds >= 1; got {horizon}, {tail} and {worlds}."
            )
        if not (0.0 <= noise <= 1.0 and 0.0 <= disturbance <= 1.0):
            raise QuickstudyError(f"noise and disturbance must be within 0..1; got {noise} and {disturbance}.")
        self.name, self.goal, self.scramble, self.horizon, self.tail = name, goal, scramble, horizon, tail
        self.noise, self.disturbance, self.worlds, self.threads = noise, disturbance, worlds, threads
        self.observation_layout = None if scramble else ObservationLayout(slice(0, 3), slice(4, 7), _GOAL, slice(3, 4))
        others = [task for task in classes["train"] if lengths or (goal == "hidden" and TASKS[task].has_goal)]
        self._classes = {"train": classes["train"], "validation": others or classes["train"], **classes}
        self._all = list(dict.fromkeys(task for tasks in self._classes.values() for task in tasks))
        self._lengths = lengths
        self.sizes = {split: 100_000 if split == "train" else 10_000 for split in self._classes}
        self.hidden_size = 3 + (len(self._all) if len(self._all) > 1 else 0)
        self.hidden_size += 2 * (lengths is not None) + OBSERVATION * scramble
        self.protocol = self._protocol()

    def task(self, split: str, index: int) -> Task:
        """Meta-World's tasks take turns, so that every one has an equal share of any number of tasks."""
        rng = np.random.default_rng([zlib.crc32(f"{self.name}/{split}".encode()), index])
        classes = self._classes[split]
        return Task(self.name, split, index, self._parameters(split, classes[index % len(classes)], rng))

    def sample(self, split: str, rng: np.random.Generator) -> Mapping[str, Any]:
        return self._parameters(split, str(rng.choice(self._classes[split])), rng)

    def hidden(self, task: Task) -> np.ndarray:
        """Which of Meta-World's tasks it is (one-hot, if there are several), goal, tool, order of the observation."""
        parameters = task.parameters
        goal = np.zeros(3)
        if parameters["goal"] is not None:
            goal = TASKS[parameters["task"]].relative(np.array(parameters["goal"]))
        parts = [goal]
        if len(self._all) > 1:
            parts.append(np.array([parameters["task"] == name for name in self._all], np.float64))
        if self._lengths is not None:
            parts.append(np.array([(parameters["length"] - 1.0) / 0.2, (parameters["width"] - 1.0) / 0.1]))
        if self.scramble:
            parts.append(np.array(parameters["order"]) / OBSERVATION)
        return np.concatenate(parts).astype(np.float32)

    def demonstrate(self, tasks: Sequence[Task], count: int, seed: int) -> list[list[Demonstration]]:
        """`count` demonstrations of each task: the expert is disturbed, its clean actions are recorded.

        A demonstration ends `tail` steps after its success; of a hidden goal it is from another start of the object, of
        a visible one also to another goal.

        Raises:
            QuickstudyError: the expert failed a task in every attempt; failures are never returned.
        """
        return in_parts(self._demonstrate, tasks, count, seed, self.worlds)

    def run(self, tasks: Sequence[Task], episodes: int, policy: Policy, seed: int) -> dict[str, np.ndarray]:
        """Runs `episodes` whole episodes of `horizon` steps of every task.

        Returns:
            'success' (at any step), 'success_last' (at the last step), 'return' (sum of v2 rewards, 0 to 10 each) and
            'steps' (to the first success, or the horizon), each [task, episode].
        """
        check_run(tasks, episodes)
        shape = (len(tasks), episodes)
        of = [self.check(task) for task in tasks for _ in range(episodes)]
        generators = [task.generator(_EPISODE, seed, episode) for task in tasks for episode in range(episodes)]
        state = Episodes(self, of)
        observations = state.reset(generators)
        total, steps, success = np.zeros(len(of)), np.full(len(of), self.horizon), np.zeros(len(of), dtype=bool)
        for step in range(self.horizon):
            observations = state.step(self.actions(policy, observations, tasks, episodes))
            total += state.worlds.reward
            steps = np.where(~success & state.worlds.success, step + 1, steps)
            success |= state.worlds.success
        state.worlds.close()
        outcome = {"success": success, "success_last": state.worlds.success, "return": total, "steps": steps}
        return {name: array.reshape(shape).astype(np.float64) for name, array in outcome.items()}

    def make(self, task: Task, render_mode: str | None = None) -> gymnasium.Env:
        return ManipulationEnv(self, self.check(task), render_mode)

    def film(self, task: Task, policy: Policy, seed: int, width: int = 480, height: int = 360) -> np.ndarray:
        """Pictures [frame, height, width, 3] (20 a second: every fourth step) of the episode that `run` runs first."""
        from quickstudy.simulation.rendering import frame

        state = Episodes(self, [self.check(task)])
        observations = state.reset([task.generator(_EPISODE, seed, 0)])
        frames = [frame(*state.worlds.picture(0), camera=_camera(), width=width, height=height)]
        left = self.horizon
        while left > 0 and not (state.worlds.success[0] and left < self.horizon):
            for _ in range(min(4, left)):
                observations = state.step(np.asarray(policy(observations[None]))[0])
                left -= 1
            frames.append(frame(*state.worlds.picture(0), camera=_camera(), width=width, height=height))
        return np.stack(frames)

    def snapshot(self, task: Task, width: int = 240, height: int = 180) -> np.ndarray:
        """One picture [height, width, 3] of the start of an episode, for a contact sheet."""
        from quickstudy.simulation.rendering import frame

        state = Episodes(self, [self.check(task)])
        state.reset([task.generator(_EPISODE, 0, 0)])
        return frame(*state.worlds.picture(0), camera=_camera(), width=width, height=height)

    def caption(self, task: Task) -> str:
        parameters = task.parameters
        words = [parameters["task"].removesuffix("-v3").replace("-", " ")]
        if parameters["goal"] is not None:
            words.append("to " + " ".join(f"{number:.2f}" for number in parameters["goal"]))
        if "length" in parameters:
            words.append(f"tool {parameters['length']:.2f} x as long")
        return ", ".join(words)

    def check(self, task: Task) -> Task:
        """The task itself, if it belongs to this family; raises QuickstudyError otherwise."""
        if task.family != self.name:
            raise QuickstudyError(f"Task {task.name} is not of the family '{self.name}'.")
        return task

    def expert_policy(self, tasks: Sequence[Task], seed: int = 0) -> Policy:
        """The package's experts, told what is hidden, as a policy for `run` on the same tasks with the same seed."""
        experts = Experts(self, tasks)
        goals: list[np.ndarray] = []

        def act(observations: np.ndarray) -> np.ndarray:
            if not goals:
                goals.append(self._goals(tasks, observations.shape[1], seed))
            return experts.act(observations, goals[0])

        return act

    def _goals(self, tasks: Sequence[Task], episodes: int, seed: int) -> np.ndarray:
        """The goals of the episodes that `run` runs, [task x episode, 3]."""
        state = Episodes(self, [task for task in tasks for _ in range(episodes)])
        state.reset([task.generator(_EPISODE, seed, episode) for task in tasks for episode in range(episodes)])
        state.worlds.close()
        return state.worlds.observations[:, _GOAL].copy()

    def _parameters(self, split: str, name: str, rng: np.random.Generator) -> dict[str, Any]:
        parameters: dict[str, Any] = {"task": name, "goal": None}
        if self.goal == "hidden" and TASKS[name].has_goal:
            parameters["goal"] = TASKS[name].vector(rng)[3:].tolist()
        if self._lengths is not None:
            bands = self._lengths[split]
            sizes = np.array([high - low for low, high in bands])
            low, high = bands[int(rng.choice(len(bands), p=sizes / sizes.sum()))]
            parameters |= {"length": float(rng.uniform(low, high)), "width": float(rng.uniform(*WIDTHS))}
        if self.scramble:
            parameters["order"] = rng.permutation(OBSERVATION).tolist()
        return parameters

    def _protocol(self) -> str:
        if self.goal == "hidden":
            what = "goal hidden, the object's start drawn anew for every episode"
        else:
            what = "goal visible, object and goal drawn anew for every episode"
        if self._lengths is not None:
            what += ", tools of other lengths and widths"
        if self.scramble:
            what += ", observations in an order of the task's own"
        return (
            f"Meta-World v3 with v2 rewards, {what}, action noise {self.noise:g}, success is the package's, at any of "
            f"{self.horizon} steps"
        )

    def _demonstrate(self, tasks: Sequence[Task], count: int, seed: int) -> list[list[Demonstration]]:
        of = [self.check(task) for task in tasks for _ in range(count)]
        state, experts = Episodes(self, of), Experts(self, of)
        done: list[Demonstration | None] = [None] * len(of)
        for attempt in range(ATTEMPTS):
            enough = QUICK + self.tail if attempt < QUICK_ATTEMPTS else self.horizon
            todo = np.array([i for i, found in enumerate(done) if found is None or len(found) > enough])
            if not len(todo):
                break
            generators = [of[i].generator(_DEMONSTRATION, seed, i % count, attempt) for i in todo]
            for i, new in zip(todo, self._attempt(state, experts, generators, todo), strict=True):
                old = done[i]
                done[i] = new if old is None or (new is not None and len(new) < len(old)) else old
        state.worlds.close()
        broken = [of[i].name for i, demonstration in enumerate(done) if demonstration is None]
        if broken:
            raise QuickstudyError(f"The expert failed to demonstrate task {broken[0]} in {ATTEMPTS} attempts.")
        return [[d for d in done[i : i + count] if d is not None] for i in range(0, len(of), count)]

    def _attempt(
        self, state: "Episodes", experts: "Experts", generators: Sequence[np.random.Generator], todo: np.ndarray
    ) -> list[Demonstration | None]:
        observations = state.reset(generators, todo)
        for i, rng in zip(todo, generators, strict=True):
            state.noise[i] += disturb(rng, self.disturbance, self.horizon)
        n = len(state.worlds)
        seen, wanted = (np.zeros((self.horizon, n, size), np.float32) for size in (OBSERVATION, ACTION))
        end, success = np.full(n, self.horizon), np.zeros(n, dtype=bool)
        for step in range(self.horizon):
            now = todo[end[todo] > step]
            if not len(now):
                break
            seen[step] = observations
            wanted[step, now] = experts.act_on(state.worlds.observations[now], now)
            observations = state.step(wanted[step], now)
            first = now[state.worlds.success[now] & ~success[now]]
            success[first] = True
            end[first] = min(step + 1 + self.tail, self.horizon)
        return [Demonstration(seen[: end[i], i], wanted[: end[i], i]) if success[i] else None for i in todo]


class Episodes:
    """The worlds of many episodes at once: draws their starts, adds noise, hides and scrambles."""

    def __init__(self, family: Manipulation, tasks: Sequence[Task]):
        parameters = [task.parameters for task in tasks]
        tools = [Tool(p["length"], p["width"]) for p in parameters] if "length" in parameters[0] else None
        self.worlds = MetaWorlds([p["task"] for p in parameters], family.threads, tools)
        self.noise = np.zeros((len(tasks), family.horizon, ACTION))
        self.steps = np.zeros(len(tasks), dtype=np.int64)
        self._family, self._parameters = family, parameters
        self._order = np.array([p["order"] for p in parameters]) if family.scramble else None

    def reset(self, generators: Sequence[np.random.Generator], chosen: np.ndarray | None = None) -> np.ndarray:
        """Starts episodes in the chosen worlds (all by default); returns the observations [world, 39] of all."""
        chosen = np.arange(len(self.worlds)) if chosen is None else chosen
        vectors = []
        for i, rng in zip(chosen, generators, strict=True):
            parameters = self._parameters[i]
            goal = None if parameters["goal"] is None else np.array(parameters["goal"])
            vectors.append(TASKS[parameters["task"]].vector(rng, goal))
            self.noise[i] = self._family.noise * rng.normal(size=self.noise[i].shape)
        self.steps[chosen] = 0
        self.worlds.reset(vectors, chosen)
        return self.observe()

    def step(self, actions: np.ndarray, chosen: np.ndarray | None = None) -> np.ndarray:
        """One step of the chosen worlds (all by default); returns the observations [world, 39] of all."""
        now = np.arange(len(self.worlds)) if chosen is None else chosen
        noisy = np.clip(actions, -1.0, 1.0)
        last = self.noise.shape[1] - 1  # who goes on beyond the horizon meets the last noise again
        noisy[now] = np.clip(noisy[now] + self.noise[now, np.minimum(self.steps[now], last)], -1.0, 1.0)
        self.steps[now] += 1
        self.worlds.step(noisy, chosen)
        return self.observe()

    def observe(self) -> np.ndarray:
        seen = self.worlds.observations.astype(np.float32)
        if self._family.goal == "hidden":
            seen[:, _GOAL] = 0.0
        return seen if self._order is None else np.take_along_axis(seen, self._order, axis=1)


class Experts:
    """The package's experts for the worlds of some tasks."""

    def __init__(self, family: Manipulation, tasks: Sequence[Task]):
        self._tasks, self._family = [task.parameters for task in tasks], family
        self._experts = {name: stock.expert(name) for name in {p["task"] for p in self._tasks}}

    def act_on(self, observations: np.ndarray, worlds: np.ndarray) -> np.ndarray:
        """Actions [world, 4] for full observations [world, 39] of these worlds."""
        actions = np.zeros((len(worlds), ACTION), np.float32)
        for name, expert in self._experts.items():
            here = np.array([k for k, world in enumerate(worlds) if self._tasks[world]["task"] == name], dtype=np.int64)
            if len(here):
                actions[here] = expert(observations[here] + self._shift(name, worlds[here]))
        return actions

    def act(self, observations: np.ndarray, goals: np.ndarray) -> np.ndarray:
        """Actions [task, episode, 4] for what a policy sees [task, episode, 39] and the goals [task x episode, 3]."""
        tasks, episodes = observations.shape[:2]
        seen = observations.reshape(-1, OBSERVATION).astype(np.float64)
        worlds = np.repeat(np.arange(tasks), episodes)
        if self._family.scramble:
            order = np.array([self._tasks[world]["order"] for world in worlds])
            seen = np.take_along_axis(seen, np.argsort(order, axis=1), axis=1)
        seen[:, _GOAL] = goals
        return self.act_on(seen, worlds).reshape(tasks, episodes, ACTION)

    def _shift(self, name: str, worlds: np.ndarray) -> np.ndarray:
        """Where hand and tool must seem to be, so that an expert that knows Meta-World's tool uses a longer one."""
        shift = np.zeros((len(worlds), OBSERVATION))
        if self._family._lengths is not None:
            longer = PORTS[name].tool_length * (np.array([self._tasks[w]["length"] for w in worlds]) - 1.0)
            shift[:, 0] = shift[:, 4] = longer
        return shift


class ManipulationEnv(gymnasium.Env):
    """One task as a Gymnasium environment: the same physics, observation and success as `Manipulation.run`.

    The reward is Meta-World's v2. An episode is never terminated, and truncated at the family's horizon; `info` has
    'success' of the step.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 80}  # noqa: RUF012 (as Gymnasium declares it)

    def __init__(self, family: Manipulation, task: Task, render_mode: str | None = None):
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise unknown("render mode of manipulation", render_mode, self.metadata["render_modes"])
        self.task, self.render_mode, self._horizon = task, render_mode, family.horizon
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (OBSERVATION,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (ACTION,), np.float32)
        self._state = Episodes(family, [task])

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        return self._state.reset([self.np_random])[0], {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        observation = self._state.step(np.asarray(action, np.float32)[None])[0]
        worlds = self._state.worlds
        truncated = bool(self._state.steps[0] >= self._horizon)
        return observation, float(worlds.reward[0]), False, truncated, {"success": bool(worlds.success[0])}

    def render(self) -> np.ndarray | None:
        if self.render_mode is None:
            return None
        from quickstudy.simulation.rendering import frame

        return frame(*self._state.worlds.picture(0), camera=_camera(), width=480, height=360)


def ml1(task: str, **options: Any) -> Manipulation:
    """ML1: one of Meta-World's 50 tasks ('push'), other goals in each split.

    Raises:
        QuickstudyError: there is no such task.
    """
    name = f"{task.removesuffix('-v3')}-v3"
    if name not in TASKS:
        raise unknown("Meta-World task", task, [other.removesuffix("-v3") for other in TASKS])
    scrambled = "-scrambled" if options.get("scramble") else ""
    return Manipulation(f"ml1-{task.removesuffix('-v3')}{scrambled}", {"train": [name], "test": [name]}, **options)


def ml10(goal: Literal["hidden", "visible"] = "hidden", **options: Any) -> Manipulation:
    """ML10: ten tasks to train on, five others to test on; 'validation' has five more, of ML45's training tasks."""
    name = "ml10" if goal == "hidden" else "ml10-imitation"
    classes = {"train": ML10_TRAIN, "validation": ML10_VALIDATION, "test": ML10_TEST}
    return Manipulation(name, classes, goal=goal, **{"horizon": 300, **options})


def ml45(goal: Literal["hidden", "visible"] = "hidden", **options: Any) -> Manipulation:
    """ML45: 45 tasks to train on, five others to test on; 'validation' holds other goals of the 45.

    With visible goals there is no task left that training has not: 'validation' then has other episodes of the 45.
    """
    name = "ml45" if goal == "hidden" else "ml45-imitation"
    return Manipulation(name, {"train": ML45_TRAIN, "test": ML45_TEST}, goal=goal, **{"horizon": 300, **options})


def tools(**options: Any) -> Manipulation:
    """Hammer, stick, peg and wrench of many lengths and widths, which the observation does not tell; the goal it does.

    The split 'tools' has tools of lengths that no training task has, 'tasks' a tool task that training has not.
    """
    classes = {"train": TOOLS, "tools": TOOLS, "tasks": HELD_OUT_TOOLS}
    return Manipulation("tools", classes, lengths=LENGTHS, **{"goal": "visible", "horizon": 300, **options})


def disturb(rng: np.random.Generator, strength: float, horizon: int) -> np.ndarray:
    """Noise [step, act] that pushes an expert off its way: small at every step, and one large push of a few steps.

    The gripper is spared: to let go of an object is no disturbance that an expert recovers from.
    """
    noise = np.zeros((horizon, ACTION))
    noise[:, :3] = strength * rng.normal(size=(horizon, 3))
    start, steps = int(rng.integers(2, 60)), int(rng.integers(2, 6))
    push = rng.normal(size=3)
    noise[start : start + steps, :3] += 6.0 * strength * push / np.linalg.norm(push)
    return noise


def _camera() -> mujoco.MjvCamera:
    camera = mujoco.MjvCamera()
    camera.lookat[:], camera.distance, camera.azimuth, camera.elevation = [0.0, 0.65, 0.12], 1.25, 55.0, -30.0
    return camera
