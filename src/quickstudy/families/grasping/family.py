"""Grasping: an arm picks up an object that it has never seen, from one demonstration.

A task is one object. The arm sees the pose of a tag that is fixed to the object, but not the object's shape, size or
height, nor where it must be held: that is what the demonstration shows. The object's pose, the hand's start and a
little action noise are drawn anew for every episode, so that a demonstration cannot be replayed.
"""

import colorsys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np

from quickstudy.demonstration import Demonstration
from quickstudy.errors import QuickstudyError, unknown
from quickstudy.families.grasping import scene
from quickstudy.families.grasping.arm import Arm
from quickstudy.families.grasping.episode import (
    ACTION,
    HIDDEN,
    HIDDEN_SCALE,
    HORIZON,
    OBSERVATION,
    OBSERVATION_LIMIT,
    Episodes,
)
from quickstudy.families.grasping.expert import expert
from quickstudy.families.grasping.objects import Objects
from quickstudy.families.grasping.sawyer import SAWYER
from quickstudy.task import Policy, Task, TaskFamily, check_run, in_parts

TRAIN_SHAPES = ("box", "cylinder", "sphere", "capsule", "l_shape", "t_shape")
HELD_OUT_SHAPES = ("ellipsoid", "mesh")
WIDTHS: Mapping[str, tuple[tuple[float, float], ...]] = {
    "train": ((0.025, 0.030), (0.034, 0.045), (0.055, 0.062), (0.066, 0.075)),
    "validation": ((0.030, 0.034), (0.062, 0.066)),
    "sizes": ((0.020, 0.025), (0.045, 0.055), (0.075, 0.080)),
    "shapes": ((0.020, 0.080),),
}
"""Grip widths of each split in metres, half-open [low, high): no width of one test of sizes occurs in training."""
OBJECTS = "objects"
"""The split of a user's own objects."""
ATTEMPTS = 8
"""Tries that the expert has for one demonstration before the task is called broken."""
_EPISODE, _DEMONSTRATION, _COLOUR = 0, 1, 2
"""Purposes of a task's random generators; a film draws from `_EPISODE`, so it shows what `run` would run."""


class Grasping(TaskFamily):
    """The family; see the module's text."""

    name: str = "grasping"
    sizes: Mapping[str, int] = {"train": 4000, "validation": 1000, "sizes": 1000, "shapes": 1000}
    protocol: str = (
        "shape, size, height and grasp point are hidden, the object's pose, the hand's start and the action noise are "
        "drawn anew for every episode, success is lifted by 10 cm and still held, unslipped and upright, a second later"
    )
    metric: ClassVar[str] = "success"
    rate = 20.0
    arm: Arm = SAWYER
    observation_size = len(OBSERVATION)
    action_size = len(ACTION)
    hidden_size = len(HIDDEN)
    horizon = HORIZON

    def __init__(
        self,
        worlds: int = 256,
        threads: int | None = None,
        disturbance: float = 0.15,
        objects: Path | str | None = None,
        unit: str = "m",
    ):
        """
        Args:
            worlds: how many worlds the expert demonstrates in at once; bounds the memory.
            threads: that step the worlds; by default one for each core. Results do not depend on it.
            disturbance: standard deviation of the noise that the expert is disturbed by while it demonstrates, of
                the action's range of -1..1; pushes grow with it.
            objects: a folder of mesh files, whose objects become the test split 'objects', one task each.
            unit: of length in these files.

        Raises:
            QuickstudyError: numbers out of range, the robot's model is not installed, or see `Objects`.
        """
        if worlds < 1:
            raise QuickstudyError(f"Grasping needs at least one world; got worlds={worlds}.")
        if not 0.0 <= disturbance <= 1.0:
            raise QuickstudyError(f"The disturbance of demonstrations must be within 0..1; got {disturbance}.")
        self.arm.check()
        self.worlds, self.threads, self.disturbance = worlds, threads, disturbance
        self.left_out: Mapping[str, str] = {}
        self._objects: Sequence[Mapping[str, Any]] = ()
        if objects is not None:
            found = Objects(Path(objects), unit, self.arm, threads)
            self._objects, self.left_out = found.tasks, found.left_out
            self.sizes = {**self.sizes, OBJECTS: len(found.tasks)}

    def task(self, split: str, index: int) -> Task:
        """A task; in the split 'objects' the object of that place in the order of the files' names."""
        if split == OBJECTS and index < len(self._objects):
            return Task(self.name, split, index, self._objects[index])
        return super().task(split, index)

    def sample(self, split: str, rng: np.random.Generator) -> Mapping[str, Any]:
        if split == OBJECTS:
            return self._objects[int(rng.integers(len(self._objects)))]
        shape = str(rng.choice(HELD_OUT_SHAPES if split == "shapes" else TRAIN_SHAPES))
        width = _in_bands(rng, WIDTHS[split])
        size = _dimensions(shape, width, self.arm.widest, rng)
        radius, direction = rng.uniform(0.025, 0.045), rng.uniform(-np.pi, np.pi)
        return {
            "shape": shape,
            "grip_width": width,
            **size,
            "mass": rng.uniform(0.1, 0.4),
            "friction": rng.uniform(0.6, 1.0),
            "grasp_x": float(radius * np.cos(direction)),
            "grasp_y": float(radius * np.sin(direction)),
            "grasp_yaw": rng.uniform(-0.8, 0.8),
            "mesh_seed": int(rng.integers(1 << 31)),
        }

    def hidden(self, task: Task) -> np.ndarray:
        return (np.array([task.parameters[name] for name in HIDDEN]) / HIDDEN_SCALE).astype(np.float32)

    def demonstrate(self, tasks: Sequence[Task], count: int, seed: int) -> list[list[Demonstration]]:
        """`count` demonstrations of each task: the expert is disturbed, its clean actions are recorded.

        Raises:
            QuickstudyError: the expert failed a task in every attempt; failures are never returned.
        """
        return in_parts(self._demonstrate, tasks, count, seed, self.worlds)

    def run(self, tasks: Sequence[Task], episodes: int, policy: Policy, seed: int) -> dict[str, np.ndarray]:
        """Runs `episodes` whole episodes of every task; all worlds live at once (about half a megabyte each).

        Returns:
            'success', 'lifted' (ever 10 cm up), 'slipped' (lost after a lift) and 'steps', each [task, episode].
        """
        check_run(tasks, episodes)
        shape = (len(tasks), episodes)
        state = self._episodes([task for task in tasks for _ in range(episodes)])
        generators = [task.generator(_EPISODE, seed, episode) for task in tasks for episode in range(episodes)]
        observations = state.reset(generators)
        while state.active.any():
            observations = state.step(self.actions(policy, observations, tasks, episodes))
        state.worlds.close()
        outcome = {"success": state.success, "lifted": state.lifted, "slipped": state.slipped, "steps": state.steps}
        return {name: array.reshape(shape).astype(np.float64) for name, array in outcome.items()}

    def make(self, task: Task, render_mode: str | None = None) -> gymnasium.Env:
        return GraspingEnv(self.check(task), render_mode, self.arm)

    def expert_policy(self, tasks: Sequence[Task]) -> Policy:
        """The expert that sees what is hidden, as a policy for `run` on the same tasks."""
        hidden = np.stack([self.hidden(task) for task in tasks])[:, None]
        return lambda observations: expert(observations, hidden)

    def film(self, task: Task, policy: Policy, seed: int, width: int = 480, height: int = 360) -> np.ndarray:
        """Pictures [frame, height, width, 3] (20 a second) of the episode that `run` would run first."""
        from quickstudy.simulation.rendering import frame

        state = Episodes([build(self.check(task), True, self.arm)], 1, self.arm)
        observations = state.reset([task.generator(_EPISODE, seed, 0)])
        model, data = state.worlds.models[0], state.worlds.data[0]
        frames = [frame(model, data, camera="film", width=width, height=height)]
        while state.active.any():
            observations = state.step(np.asarray(policy(observations[None]))[0])
            frames.append(frame(model, data, camera="film", width=width, height=height))
        return np.stack(frames)

    def caption(self, task: Task) -> str:
        shape, width = task.parameters.get("object", task.parameters["shape"]), task.parameters["grip_width"]
        return f"{shape.replace('_', ' ')}, {100 * width:.1f} cm wide"

    def snapshot(self, task: Task, width: int = 240, height: int = 180) -> np.ndarray:
        """One picture [height, width, 3] of the task's object and the hand, for a contact sheet."""
        from quickstudy.simulation.rendering import frame

        state = Episodes([build(self.check(task), True, self.arm)], 1, self.arm)
        state.reset([task.generator(_EPISODE, 0, 0)])
        return frame(state.worlds.models[0], state.worlds.data[0], camera="close", width=width, height=height)

    def check(self, task: Task) -> Task:
        """The task itself, if it belongs to this family; raises QuickstudyError otherwise."""
        if task.family != self.name:
            raise QuickstudyError(f"Task {task.name} is not of the family '{self.name}'.")
        return task

    def _episodes(self, tasks: Sequence[Task]) -> Episodes:
        """A world for each of the tasks; equal neighbours share their model."""
        models: list[Any] = []
        for i, task in enumerate(tasks):
            models.append(models[-1] if i and task is tasks[i - 1] else build(self.check(task), arm=self.arm))
        return Episodes(models, self.threads, self.arm)

    def _demonstrate(self, tasks: Sequence[Task], count: int, seed: int) -> list[list[Demonstration]]:
        of = [task for task in tasks for _ in range(count)]
        state = self._episodes(of)
        hidden = np.stack([self.hidden(task) for task in of])
        done: list[Demonstration | None] = [None] * len(of)
        for attempt in range(ATTEMPTS):
            todo = np.array([i for i, demonstration in enumerate(done) if demonstration is None])
            if not len(todo):
                break
            generators = [of[i].generator(_DEMONSTRATION, seed, i % count, attempt) for i in todo]
            for i, demonstration in zip(todo, self._attempt(state, hidden, generators, todo), strict=True):
                done[i] = demonstration
        state.worlds.close()
        broken = [of[i].name for i, demonstration in enumerate(done) if demonstration is None]
        if broken:
            raise QuickstudyError(f"The expert failed to demonstrate task {broken[0]} in {ATTEMPTS} attempts.")
        return [[d for d in done[i : i + count] if d is not None] for i in range(0, len(of), count)]

    def _attempt(
        self, state: Episodes, hidden: np.ndarray, generators: Sequence[np.random.Generator], todo: np.ndarray
    ) -> list[Demonstration | None]:
        observations = state.reset(generators, todo)
        for i, rng in zip(todo, generators, strict=True):
            state.noise[i] += disturb(rng, self.disturbance)
        seen, wanted = [], []
        while state.active.any():
            seen.append(observations)
            wanted.append(expert(observations, hidden))
            observations = state.step(wanted[-1])
        all_seen, all_wanted = np.stack(seen, axis=1), np.stack(wanted, axis=1)
        return [
            Demonstration(all_seen[i, : state.steps[i]], all_wanted[i, : state.steps[i]]) if state.success[i] else None
            for i in todo
        ]


class GraspingEnv(gymnasium.Env):
    """One object as a Gymnasium environment: the same physics, observation and success as `Grasping.run`.

    The reward is 1 at the step that completes a grasp and 0 elsewhere.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012 (as Gymnasium declares it)

    def __init__(self, task: Task, render_mode: str | None = None, arm: Arm = SAWYER):
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise unknown("render mode of grasping", render_mode, self.metadata["render_modes"])
        self.task, self.render_mode = task, render_mode
        self.observation_space = gymnasium.spaces.Box(
            -OBSERVATION_LIMIT, OBSERVATION_LIMIT, (len(OBSERVATION),), np.float32
        )
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (len(ACTION),), np.float32)
        self._state = Episodes([build(task, render_mode is not None, arm)], 1, arm)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        return self._state.reset([self.np_random])[0], {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        state = self._state
        observation = state.step(np.asarray(action)[None])[0]
        success, slipped = bool(state.success[0]), bool(state.slipped[0])
        terminated = success or slipped
        truncated = not terminated and not state.active[0]
        info = {"success": success, "lifted": bool(state.lifted[0]), "slipped": slipped}
        return observation, float(success), terminated, bool(truncated), info

    def render(self) -> np.ndarray | None:
        if self.render_mode is None:
            return None
        from quickstudy.simulation.rendering import frame

        return frame(self._state.worlds.models[0], self._state.worlds.data[0], camera="film", width=480, height=360)


def build(task: Task, visual: bool = False, arm: Arm = SAWYER) -> Any:
    """The MuJoCo model of a task; its object's colour belongs to the task."""
    hue = task.generator(_COLOUR).uniform()
    return scene.build(task.parameters, visual, colorsys.hsv_to_rgb(hue, 0.65, 0.9), arm)


def disturb(rng: np.random.Generator, strength: float) -> np.ndarray:
    """Noise [step, act] that pushes an expert off its way: small at every step, and one large push of a few steps."""
    noise = strength * rng.normal(size=(HORIZON, len(ACTION)))
    start, length = rng.integers(2, 45), rng.integers(2, 6)
    push = rng.normal(size=4)
    noise[start : start + length, :4] += 6.0 * strength * push / np.linalg.norm(push)
    return noise


def _in_bands(rng: np.random.Generator, bands: Sequence[tuple[float, float]]) -> float:
    """A number from half-open bands, each as likely as it is wide."""
    lengths = np.array([high - low for low, high in bands])
    low, high = bands[int(rng.choice(len(bands), p=lengths / lengths.sum()))]
    return float(rng.uniform(low, high))


def _dimensions(shape: str, width: float, widest: float, rng: np.random.Generator) -> dict[str, float]:
    """Length along the fingers, height, length of the bar across, and height of the right grasp; metres."""
    low, high = (0.03, 0.06) if shape in ("ellipsoid", "mesh", "l_shape", "t_shape") else (0.03, 0.10)
    height = width if shape in ("sphere", "capsule") else rng.uniform(low, high)
    if shape in ("cylinder", "sphere"):
        length = width
    elif shape in ("l_shape", "t_shape"):
        length = rng.uniform(0.07, 0.10)
    else:
        # So long that the open fingers cannot straddle it when they are turned by more than about half a radian.
        shortest = (widest - width * np.cos(0.5)) / np.sin(0.5)
        length = rng.uniform(0.0, 0.02) + np.clip(shortest, 1.3 * width, 0.11 if shape == "mesh" else 0.16)
    if shape in ("sphere", "capsule", "ellipsoid", "mesh"):
        grasp_height = height / 2
    else:
        # Tall objects must be taken high, or the palm hits them before the fingers are there.
        grasp_height = rng.uniform(max(0.45 * height, height - 0.04), 0.75 * height)
    return {
        "length": float(length),
        "height": float(height),
        "across": float(rng.uniform(0.08, 0.12)),
        "grasp_height": max(float(grasp_height), 0.011),
    }
