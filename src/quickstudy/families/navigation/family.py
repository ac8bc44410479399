"""Navigation: a wheeled robot finds its way in a building that it has never seen, from one demonstration.

A task is an environment, a goal in it, and a region to start from. The robot has a lidar and knows its pose by
odometry, which drifts; it knows neither the map, nor the goal, nor which of the ways that it sees leads there: that is
what the demonstration shows. Start, heading and all noise are drawn anew for every episode, so that a demonstration
cannot be replayed.

`NavigationDynamics` hides the robot's body too: a weak motor, wheels that slip, a load that pulls.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np

from quickstudy.demonstration import Demonstration
from quickstudy.errors import QuickstudyError, unknown
from quickstudy.families.navigation import bodies as navigation_bodies
from quickstudy.families.navigation import layouts as navigation_layouts
from quickstudy.families.navigation import maps as navigation_maps
from quickstudy.families.navigation import scene as navigation_scene
from quickstudy.families.navigation import tasks as navigation_tasks
from quickstudy.families.navigation.episode import ACTION, HORIZON, OBSERVATION, OBSERVATION_LIMIT, REACHED, Episodes
from quickstudy.families.navigation.layouts import HALF
from quickstudy.families.navigation.maps import OccupancyMap
from quickstudy.families.navigation.planner import Expert, plan
from quickstudy.families.navigation.scene import Body
from quickstudy.task import Policy, Task, TaskFamily, check_run, in_parts

STYLES: Mapping[str, tuple[str, ...]] = {
    "train": ("rooms", "rooms", "maze", "hall"),
    "validation": ("rooms", "rooms", "maze", "hall"),
    "procedural": ("rooms", "maze"),
}
"""Of the environments of each split; a style that is listed twice is drawn twice as often."""
MAPS: Mapping[str, str] = {"plans": "QUICKSTUDY_PLANS", "cities": "QUICKSTUDY_CITIES"}
"""Environment variables with the map files or folders of a test split; several as in PATH."""
RESOLUTION: Mapping[str, float] = {"plans": 0.05, "cities": 0.2}
"""Metres a cell of maps that do not say. City blocks shrink so that streets suit the robot: 8 cells become 1.6 m."""
WAYPOINTS = 12
"""Of the route, that the oracle is told."""
ATTEMPTS = 8
"""Tries that the expert has for one demonstration before the task is called broken."""
PUSHES, LAST_PUSH = 4, 80
"""How often a demonstration is pushed at most, and the step before which each push begins."""
_EPISODE, _DEMONSTRATION = 0, 1
"""Purposes of a task's random generators; a film draws from `_EPISODE`, so it shows what `run` would run."""


class Navigation(TaskFamily):
    """The family; see the module's text."""

    name: str = "navigation"
    protocol: str = (
        "goal and way are hidden, environments are unseen, start, heading, odometry's drift and the noise of lidar and "
        "action are drawn anew for every episode, success is to come within 0.3 m of the goal in 32 s"
    )
    metric: ClassVar[str] = "success"
    secondary_metrics = ("spl",)
    rate = 5.0
    observation_size = len(OBSERVATION)
    action_size = len(ACTION)
    hidden_size = 2 * WAYPOINTS
    horizon = HORIZON
    longest: ClassVar[float] = navigation_tasks.LONGEST
    """Metres of the shortest way to the goal, from the middle of the start region."""

    def __init__(
        self,
        plans: Path | None = None,
        cities: Path | None = None,
        worlds: int = 256,
        threads: int | None = None,
        disturbance: float = 0.15,
    ) -> None:
        """
        Args:
            plans: file or folder of floor plans for the test split 'plans', see `navigation_maps`; by default what the
                environment variable QUICKSTUDY_PLANS says. Without either there is no such split.
            cities: the same of city blocks for the test split 'cities', and QUICKSTUDY_CITIES.
            worlds: how many worlds the expert demonstrates in at once; bounds the memory.
            threads: that step the worlds; by default one for each core. Results do not depend on it.
            disturbance: standard deviation of the noise that the expert is disturbed by while it demonstrates, of the
                action's range of -1..1; pushes grow with it.

        Raises:
            QuickstudyError: a map that is missing or cannot be read, or a number out of range.
        """
        if worlds < 1:
            raise QuickstudyError(f"Navigation needs at least one world; got worlds={worlds}.")
        if not 0.0 <= disturbance <= 1.0:
            raise QuickstudyError(f"The disturbance of demonstrations must be within 0..1; got {disturbance}.")
        self.worlds, self.threads, self.disturbance = worlds, threads, disturbance
        self.maps = {split: _maps(split, given) for split, given in (("plans", plans), ("cities", cities))}
        self.sizes = {"train": 4000, "validation": 1000, "procedural": 1000}
        self.sizes |= {split: 1000 for split, found in self.maps.items() if found}

    def tasks(self, split: str, count: int, first: int = 0) -> list[Task]:
        if split in MAPS and split not in self.sizes:
            raise QuickstudyError(
                f"Split '{split}' of '{self.name}' needs maps: set {MAPS[split]} to a file or folder of maps "
                f"({', '.join(navigation_maps.SUFFIXES)}), or give {split}=PATH in Python."
            )
        return super().tasks(split, count, first)

    def sample(self, split: str, rng: np.random.Generator) -> Mapping[str, Any]:
        if split in self.maps:
            maps = self.maps[split]
            return navigation_tasks.draw_on(maps[rng.integers(len(maps))], rng, self.longest)
        while True:
            style = str(rng.choice(STYLES[split]))
            found = navigation_tasks.draw(navigation_layouts.draw(style, rng), rng, self.longest)
            if found is not None:
                return {"style": style, **found}

    def on_map(self, path: Path, start: Sequence[float], goal: Sequence[float], resolution: float = 0.05) -> Task:
        """A task of your own: from about `start` to `goal` on a map.

        Args:
            path: of a file with one map, see `navigation_maps`.
            start, goal: [2], metres in the map's own frame.
            resolution: metres a cell where the file does not say.

        Raises:
            QuickstudyError: no such map, or no way between such places on it.
        """
        maps = navigation_maps.read(path, resolution)
        if len(maps) != 1:
            raise QuickstudyError(f"'{path}' must hold one map; it holds {len(maps)}.")
        return Task(self.name, "own", 0, navigation_tasks.at(maps[0], start, goal))

    def hidden(self, task: Task) -> np.ndarray:
        """The route from the middle of the start region, as places at equal distances; the last is the goal."""
        p = self.check(task).parameters
        points = plan(p["walls"], p["goal"]).waypoints(p["home"], WAYPOINTS)
        return (points / HALF).ravel().astype(np.float32)

    def body(self, task: Task) -> Body:
        """The robot's body; healthy in all tasks of this family."""
        return Body(**task.parameters.get("body", {}))

    def demonstrate(self, tasks: Sequence[Task], count: int, seed: int) -> list[list[Demonstration]]:
        """`count` demonstrations of each task: the expert is disturbed, its clean actions are recorded.

        A demonstration goes on until the robot believes to be at the goal, so that it shows where that is.

        Raises:
            QuickstudyError: the expert failed a task in every attempt; failures are never returned.
        """
        return in_parts(self._demonstrate, tasks, count, seed, self.worlds)

    def run(self, tasks: Sequence[Task], episodes: int, policy: Policy, seed: int) -> dict[str, np.ndarray]:
        """Runs `episodes` whole episodes of every task; all worlds live at once (about 0.2 megabytes each).

        Returns:
            each [task, episode]: 'success'; 'spl', success weighted by path length (Anderson et al. 2018, eq. 1);
            'collisions', how often the robot began to touch a wall; 'detour', metres driven over those of the
            shortest way to the goal, whether it was reached or not; 'steps'.
        """
        check_run(tasks, episodes)
        shape = (len(tasks), episodes)
        of = [task for task in tasks for _ in range(episodes)]
        state = self._episodes(of)
        generators = [task.generator(_EPISODE, seed, episode) for task in tasks for episode in range(episodes)]
        starts = _starts(of, generators)
        observations = state.reset(starts, generators)
        while state.active.any():
            observations = state.step(self.actions(policy, observations, tasks, episodes))
        state.worlds.close()
        shortest = np.array([shortest_way(task, start) for task, start in zip(of, starts, strict=True)])
        outcome = {
            "success": state.success,
            "spl": spl(state.success, state.path, shortest),
            "collisions": state.collisions,
            "detour": state.path / shortest,
            "steps": state.steps,
        }
        return {name: array.reshape(shape).astype(np.float64) for name, array in outcome.items()}

    def make(self, task: Task, render_mode: str | None = None) -> gymnasium.Env:
        return NavigationEnv(self.check(task), self.body(task), render_mode)

    def expert_policy(self, tasks: Sequence[Task]) -> Policy:
        """The expert that knows map, goal and body, as a policy for `run` on the same tasks."""
        plans = [plan(task.parameters["walls"], task.parameters["goal"]) for task in tasks]
        return Expert(plans, [task.parameters["goal"] for task in tasks], [self.body(task) for task in tasks])

    def film(self, task: Task, policy: Policy, seed: int, width: int = 400, height: int = 400) -> np.ndarray:
        """Pictures [frame, height, width, 3] from above of the episode that `run` would run first.

        There are 20 pictures a second of film, but 5 of the robot's: the film runs four times as fast.
        """
        from quickstudy.simulation.rendering import frame

        state = self._episodes([self.check(task)], visual=True)
        generators = [task.generator(_EPISODE, seed, 0)]
        observations = state.reset(_starts([task], generators), generators)
        model, data = state.worlds.models[0], state.worlds.data[0]
        frames = [frame(model, data, camera="top", width=width, height=height)]
        while state.active.any():
            observations = state.step(np.asarray(policy(observations[None]))[0])
            frames.append(frame(model, data, camera="top", width=width, height=height))
        return np.stack(frames)

    def caption(self, task: Task) -> str:
        p = task.parameters
        way = plan(p["walls"], p["goal"])
        return f"{p.get('map', p.get('style', 'map'))}, {way.distance[way.at(p['home'])]:.1f} m"

    def snapshot(self, task: Task, size: int = 200) -> np.ndarray:
        """The map [size, size, 3] with the region of starts, the expert's route from its middle, and the goal."""
        return navigation_tasks.picture(self.check(task).parameters, size)

    def check(self, task: Task) -> Task:
        """The task itself, if it belongs to this family; raises QuickstudyError otherwise."""
        if task.family != self.name:
            raise QuickstudyError(f"Task {task.name} is not of the family '{self.name}'.")
        return task

    def _episodes(self, tasks: Sequence[Task], believing: bool = False, visual: bool = False) -> Episodes:
        """A world for each of the tasks; equal neighbours share their model."""
        models: list[Any] = []
        for i, task in enumerate(tasks):
            models.append(models[-1] if i and task is tasks[i - 1] else build(self.check(task), visual))
        goals = np.array([task.parameters["goal"] for task in tasks])
        return Episodes(models, goals, [self.body(task) for task in tasks], self.threads, believing)

    def _demonstrate(self, tasks: Sequence[Task], count: int, seed: int) -> list[list[Demonstration]]:
        of = [task for task in tasks for _ in range(count)]
        state = self._episodes(of, believing=True)
        expert = self.expert_policy(tasks)
        done: list[Demonstration | None] = [None] * len(of)
        for attempt in range(ATTEMPTS):
            todo = np.array([i for i, demonstration in enumerate(done) if demonstration is None])
            if not len(todo):
                break
            generators = [of[i].generator(_DEMONSTRATION, seed, i % count, attempt) for i in todo]
            observations = state.reset(_starts([of[i] for i in todo], generators), generators, todo)
            for i, rng in zip(todo, generators, strict=True):
                state.noise[i] += disturb(rng, self.disturbance)
            seen, wanted = [], []
            while state.active.any():
                seen.append(observations)
                wanted.append(expert(observations.reshape(len(tasks), count, -1)).reshape(len(of), -1))
                observations = state.step(wanted[-1])
            all_seen, all_wanted = np.stack(seen, axis=1), np.stack(wanted, axis=1)
            for i in todo[state.success[todo]]:
                done[i] = Demonstration(all_seen[i, : state.steps[i]], all_wanted[i, : state.steps[i]])
        state.worlds.close()
        broken = [of[i].name for i, demonstration in enumerate(done) if demonstration is None]
        if broken:
            raise QuickstudyError(f"The expert failed to demonstrate task {broken[0]} in {ATTEMPTS} attempts.")
        return [[d for d in done[i : i + count] if d is not None] for i in range(0, len(of), count)]


class NavigationDynamics(Navigation):
    """Navigation by a body that responds otherwise in every task: one motor is weak, wheels slip, a load pulls.

    Ways are shorter, because half a motor drives half as fast.
    """

    name: str = "navigation-dynamics"
    protocol: str = f"{Navigation.protocol}; how the body responds is hidden too: {navigation_bodies.PROTOCOL}"
    hidden_size = Navigation.hidden_size + len(fields(Body))
    longest = 6.0

    def sample(self, split: str, rng: np.random.Generator) -> Mapping[str, Any]:
        return {**super().sample(split, rng), "body": asdict(navigation_bodies.draw(rng))}

    def hidden(self, task: Task) -> np.ndarray:
        """The route as in `Navigation`, and how the body differs from a healthy one, in about unit range."""
        return np.concatenate([super().hidden(task), navigation_bodies.difference(self.body(task))])

    def caption(self, task: Task) -> str:
        return f"{super().caption(task)}, {navigation_bodies.caption(self.body(task))}"


class NavigationEnv(gymnasium.Env):
    """One task as a Gymnasium environment: the same physics, observation and success as `Navigation.run`.

    The reward is 1 at the step that reaches the goal and 0 elsewhere.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012 (as Gymnasium declares it)

    def __init__(self, task: Task, body: Body, render_mode: str | None = None):
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise unknown("render mode of navigation", render_mode, self.metadata["render_modes"])
        self.task, self.render_mode = task, render_mode
        self.observation_space = gymnasium.spaces.Box(
            -OBSERVATION_LIMIT, OBSERVATION_LIMIT, (len(OBSERVATION),), np.float32
        )
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (len(ACTION),), np.float32)
        goals = np.array([task.parameters["goal"]])
        self._state = Episodes([build(task, visual=render_mode is not None)], goals, [body], threads=1)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        return self._state.reset(_starts([self.task], [self.np_random]), [self.np_random])[0], {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        state = self._state
        observation = state.step(np.asarray(action)[None])[0]
        success = bool(state.success[0])
        truncated = not success and not state.active[0]
        info = {"success": success, "collisions": int(state.collisions[0]), "path": float(state.path[0])}
        return observation, float(success), success, bool(truncated), info

    def render(self) -> np.ndarray | None:
        if self.render_mode is None:
            return None
        from quickstudy.simulation.rendering import frame

        return frame(self._state.worlds.models[0], self._state.worlds.data[0], camera="top", width=400, height=400)


def build(task: Task, visual: bool = False) -> Any:
    """The MuJoCo model of a task; `visual` adds what a picture needs."""
    p = task.parameters
    return navigation_scene.build(p["walls"], Body(**p.get("body", {})), p["goal"] if visual else None)


def shortest_way(task: Task, start: np.ndarray) -> float:
    """Metres from a start [3] to where the goal counts as reached, for a robot that may graze walls."""
    way = plan(task.parameters["walls"], task.parameters["goal"])
    return max(float(way.distance[way.at(start[:2])]) - REACHED, 0.1)


def spl(success: np.ndarray, path: np.ndarray, shortest: np.ndarray) -> np.ndarray:
    """Success weighted by path length, of each episode (Anderson et al. 2018, eq. 1)."""
    return success * shortest / np.maximum(path, shortest)


def disturb(rng: np.random.Generator, strength: float) -> np.ndarray:
    """Noise [step, act] that pushes an expert off its way: small at every step, and some large pushes of a few steps.

    Pushes come along the whole way, so that a demonstration shows how to come back to a goal that was missed, too.
    """
    noise = strength * rng.normal(size=(HORIZON, len(ACTION)))
    for _ in range(PUSHES):
        start, length = rng.integers(0, LAST_PUSH), rng.integers(2, 6)
        push = rng.normal(size=2)
        noise[start : start + length] += 5.0 * strength * push / np.linalg.norm(push)
    return noise


def _starts(tasks: Sequence[Task], generators: Sequence[np.random.Generator]) -> np.ndarray:
    """A new start [task, 3] for each task."""
    return np.stack([navigation_tasks.draw_start(t.parameters, rng) for t, rng in zip(tasks, generators, strict=True)])


def _maps(split: str, given: Path | None) -> list[OccupancyMap]:
    """The maps that were given for a split, or those that its environment variable says."""
    paths = [given] if given is not None else [Path(p) for p in os.environ.get(MAPS[split], "").split(os.pathsep) if p]
    return [found for path in paths for found in navigation_maps.read(Path(path), RESOLUTION[split])]
