"""Navigation: a wheeled robot finds its way in a building that it has never seen, shown once or by trial.

A task is an environment, a goal in it, and a region to start from. The robot has a lidar and knows its pose by
odometry, which drifts; it knows neither the map, nor the goal, nor which of the ways that it sees leads there: that is
what the demonstration shows, or what the robot finds out by trial. Start, heading and all noise are drawn anew for
every episode, so that a demonstration cannot be replayed.

`NavigationDynamics` hides the robot's body too: a weak motor, wheels that slip, a load that pulls.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from quickstudy.errors import QuickstudyError
from quickstudy.families.base import SimulatedFamily
from quickstudy.families.navigation import bodies, layouts
from quickstudy.families.navigation.layouts import HALF
from quickstudy.families.navigation.maps import SUFFIXES, OccupancyMap, read
from quickstudy.families.navigation.planner import plan
from quickstudy.families.navigation.scene import ACTION, HORIZON, OBSERVATION, OBSERVATION_LIMIT, SYMMETRIES, Body
from quickstudy.families.navigation.settings import NAVIGATION
from quickstudy.families.navigation.tasks import LONGEST, draw, draw_on, picture, task_on_map
from quickstudy.families.navigation.vector_env import NavigationVectorEnv, body
from quickstudy.settings import Changes
from quickstudy.simulation.vector_env import VectorEnv
from quickstudy.task import Task, check_run

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
"""Of the route, which the oracle receives."""


class Navigation(SimulatedFamily):
    """The family; see the module's text."""

    name: str = "navigation"
    protocol: str = (
        "goal and way are hidden, environments are unseen, start, heading, odometry's drift and the noise of lidar and "
        "action are drawn anew for every episode, success is to come within 0.3 m of the goal in 32 s, the reward is "
        "progress along the shortest way in metres, 2 at the goal, less 0.05 for a step that ends in touch with a wall"
    )
    metric: str = "success"
    secondary_metrics: tuple[str, ...] = ("spl", "collisions", "return")
    rate = 5.0
    observation_size = len(OBSERVATION)
    observation_limit = OBSERVATION_LIMIT
    action_size = len(ACTION)
    observation_channels, action_channels = OBSERVATION, ACTION
    rest = (0.0, 0.0)
    hidden_size = 2 * WAYPOINTS
    horizon = HORIZON
    disturbance = 0.15
    symmetries = SYMMETRIES
    default_method = "matching"
    method_settings: Mapping[str, Changes] = NAVIGATION
    longest: ClassVar[float] = LONGEST
    """Metres of the shortest way to the goal, from the middle of the start region."""

    def __init__(
        self,
        plans: Path | None = None,
        cities: Path | None = None,
        threads: int | None = None,
    ) -> None:
        """
        Args:
            plans: file or folder of floor plans for the test split 'plans', see `maps.read`; by default what the
                environment variable QUICKSTUDY_PLANS says. Without either there is no such split.
            cities: the same of city blocks for the test split 'cities', and QUICKSTUDY_CITIES.
            threads: that step the worlds; by default one for each core. Results do not depend on it.

        Raises:
            QuickstudyError: a map that is missing or cannot be read.
        """
        self.threads = threads
        self.maps = {split: _read_maps(split, given) for split, given in (("plans", plans), ("cities", cities))}
        self.sizes = {"train": 4000, "validation": 1000, "procedural": 1000}
        self.sizes |= {split: 1000 for split, found in self.maps.items() if found}

    def tasks(self, split: str, count: int, first: int = 0) -> list[Task]:
        if split in MAPS and split not in self.sizes:
            raise QuickstudyError(
                f"Split '{split}' of '{self.name}' needs maps: set {MAPS[split]} to a file or folder of maps "
                f"({', '.join(SUFFIXES)}), or give {split}=PATH in Python."
            )
        return super().tasks(split, count, first)

    def sample(self, split: str, rng: np.random.Generator) -> Mapping[str, Any]:
        if split in self.maps:
            maps = self.maps[split]
            return draw_on(maps[rng.integers(len(maps))], rng, self.longest)
        while True:
            style = str(rng.choice(STYLES[split]))
            found = draw(layouts.STYLES[style](rng), rng, self.longest)
            if found is not None:
                return {"style": style, **found}

    def on_map(self, path: Path, start: Sequence[float], goal: Sequence[float], resolution: float = 0.05) -> Task:
        """A task of your own: from about `start` to `goal` on a map.

        Args:
            path: of a file with one map, see `maps.read`.
            start, goal: [2], metres in the map's own frame.
            resolution: metres a cell where the file does not say.

        Raises:
            QuickstudyError: no such map, or no way between such places on it.
        """
        maps = read(path, resolution)
        if len(maps) != 1:
            raise QuickstudyError(f"'{path}' must hold one map; it holds {len(maps)}.")
        return Task(self.name, "own", 0, task_on_map(maps[0], start, goal))

    def hidden(self, task: Task) -> np.ndarray:
        """The route from the middle of the start region, as places at equal distances; the last is the goal."""
        p = self.check(task).parameters
        points = plan(p["walls"], p["goal"]).waypoints(p["home"], WAYPOINTS)
        return (points / HALF).ravel().astype(np.float32)

    def vector_env(
        self, tasks: Sequence[Task], episodes_per_task: int, *, demonstrating: bool = False, visual: bool = False
    ) -> VectorEnv:
        """Robots in the environments of these tasks; a demonstration goes on until the robot believes to be there."""
        check_run(tasks, episodes_per_task)
        of = [self.check(task) for task in tasks]
        return NavigationVectorEnv(of, episodes_per_task, self.threads, demonstrating, visual)

    def caption(self, task: Task) -> str:
        p = task.parameters
        way = plan(p["walls"], p["goal"])
        return f"{p.get('map', p.get('style', 'map'))}, {way.distance[way.at(p['home'])]:.1f} m"

    def snapshot(self, task: Task, width: int = 200, height: int = 200) -> np.ndarray:
        """The square map with the region of starts, the expert's route from its middle, and the goal."""
        return picture(self.check(task).parameters, min(width, height))


class NavigationDynamics(Navigation):
    """Navigation by a body that responds otherwise in every task: one motor is weak, wheels slip, a load pulls.

    Ways are shorter, because half a motor drives half as fast.
    """

    name: str = "navigation-dynamics"
    protocol: str = f"{Navigation.protocol}; how the body responds is hidden too: {bodies.PROTOCOL}"
    hidden_size = Navigation.hidden_size + len(fields(Body))
    longest = 6.0

    def sample(self, split: str, rng: np.random.Generator) -> Mapping[str, Any]:
        return {**super().sample(split, rng), "body": asdict(bodies.draw(rng))}

    def hidden(self, task: Task) -> np.ndarray:
        """The route as in `Navigation`, and how the body differs from a healthy one, in about unit range."""
        return np.concatenate([super().hidden(task), bodies.difference(body(task))])

    def caption(self, task: Task) -> str:
        return f"{super().caption(task)}, {bodies.caption(body(task))}"


def _read_maps(split: str, given: Path | None) -> list[OccupancyMap]:
    """The maps that were given for a split, or those that its environment variable says."""
    paths = [given] if given is not None else [Path(p) for p in os.environ.get(MAPS[split], "").split(os.pathsep) if p]
    return [found for path in paths for found in read(Path(path), RESOLUTION[split])]
