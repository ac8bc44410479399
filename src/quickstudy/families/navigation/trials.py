"""A wheeled robot finds a hidden goal in a building that it has never seen, by trial and reward.

Robot, lidar, physics, noise, environments and goals are those of `quickstudy.families.navigation.family`; here nobody shows the
way. A trial is several episodes in one environment with one goal. As in the imitation family, start, heading and all
noise are drawn anew for every episode, within the task's region of starts.

The reward of a step of 0.2 s is
    metres of progress towards the goal, along the shortest way that there is (not as the crow flies),
    + 2 in the step that comes within 0.3 m of the goal, where the episode terminates,
    - 0.05 if the robot touches a wall at the end of the step.
So what a robot is told is whether the last move was a good one, as by a sound or a radio signal from the goal that
comes through the doors, and by its bumper; the rewards of progress add up to how much nearer it came, and neither a
detour nor driving to and fro gains anything. It is not told where the goal is: in its first episode a robot that
understands rewards can follow them to the goal, and in the next ones one that remembers can go there at once.

The way to the goal is computed once for each environment, for all cells; a step only looks it up.
"""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from scipy.linalg import block_diag
from scipy.ndimage import distance_transform_edt, map_coordinates

from quickstudy.demonstration import Demonstration
from quickstudy.errors import QuickstudyError
from quickstudy.families.navigation import bodies as navigation_bodies
from quickstudy.families.navigation.episode import ACTION, HORIZON, WAVES, Episodes
from quickstudy.families.navigation.family import Navigation, NavigationDynamics, build, shortest_way, spl
from quickstudy.families.navigation.layouts import CELL, cell
from quickstudy.families.navigation.planner import Expert, plan
from quickstudy.families.navigation.scene import RAYS
from quickstudy.families.navigation.tasks import draw_start
from quickstudy.simulation.old_vector_env import StepResult, Symmetry, TrialsOf, VectorEnv
from quickstudy.task import Task

ARRIVAL = 2.0
"""The reward of reaching the goal, beside that of progress, which is 1 a metre."""
TOUCH = 0.05
"""The cost of a step that ends in touch with a wall."""


class NavigationVectorEnv(VectorEnv):
    """Robots in the environments of some tasks, stepped by one thread pool; episodes_per_task of a task share its model.

    Args:
        threads: that step the worlds; by default one for each core. Results do not depend on it.
    """

    action_size, horizon = len(ACTION), HORIZON

    def __init__(self, family: Navigation, tasks: Sequence[Task], episodes_per_task: int, threads: int | None) -> None:
        self.tasks, self.episodes_per_task = list(tasks), episodes_per_task
        self._of = [task for task in tasks for _ in range(episodes_per_task)]
        models = [model for task in tasks for model in [build(family.check(task))] * episodes_per_task]
        goals = np.array([task.parameters["goal"] for task in self._of])
        self._state = Episodes(models, goals, [family.body(task) for task in self._of], threads)
        plans = [plan(task.parameters["walls"], task.parameters["goal"]) for task in tasks]
        self._ways = np.stack([everywhere(way.distance) for way in plans])
        self._shape = (len(tasks), episodes_per_task)
        self._expert = Expert(plans, [t.parameters["goal"] for t in tasks], [family.body(t) for t in tasks])

    def reset(self, rng: np.random.Generator) -> np.ndarray:
        generators = rng.spawn(len(self._of))
        starts = np.stack([draw_start(t.parameters, own) for t, own in zip(self._of, generators, strict=True)])
        self._shortest = np.array([shortest_way(t, start) for t, start in zip(self._of, starts, strict=True)])
        observations = self._state.reset(starts, generators)
        self._away = self._to_goal()
        self._seen = observations.reshape(*self._shape, -1)
        return self._seen

    def step(self, actions: np.ndarray, alive: np.ndarray) -> StepResult:
        state = self._state
        state.active &= alive.ravel()
        observations = state.step(actions.reshape(len(self._of), -1)).reshape(*self._shape, -1)
        self._seen = observations
        before, self._away = self._away, self._to_goal()
        reached, touching = state.success.reshape(self._shape), state.touching.reshape(self._shape)
        rewards = reward(before - self._away, reached, touching)
        return StepResult(observations, rewards, reached, reached, np.zeros_like(reached))

    def expert_action(self) -> np.ndarray:
        """The planner's way, by one who knows map, goal and body."""
        return self._expert(self._seen)

    def measures(self) -> dict[str, np.ndarray]:
        """'spl', success weighted by path length; 'collisions', how often the robot began to touch a wall."""
        state = self._state
        found = {"spl": spl(state.success, state.path, self._shortest), "collisions": state.collisions}
        return {name: values.reshape(self._shape).astype(np.float64) for name, values in found.items()}

    def close(self) -> None:
        self._state.worlds.close()

    def _to_goal(self) -> np.ndarray:
        return look_up(self._ways, self._state.pose()[:, :2].reshape(*self._shape, 2))


def reward(progress: np.ndarray, reached: np.ndarray, touching: np.ndarray) -> np.ndarray:
    """The rewards of steps that came `progress` metres nearer to the goal, all [...]."""
    return progress + ARRIVAL * reached - TOUCH * touching


def everywhere(distance: np.ndarray) -> np.ndarray:
    """A plan's metres to the goal [row, column], also of cells without a way: out to the nearest with one, and on."""
    off, nearest = distance_transform_edt(~np.isfinite(distance), return_indices=True)
    return np.asarray(distance[nearest[0], nearest[1]] + CELL * off)


def look_up(ways: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Metres to the goal [task, lane] from places [task, lane, 2]; bilinear between the middles of cells.

    Args:
        ways: from the middle of every cell, [task, row, column].
    """
    rows, columns = np.moveaxis(cell(places) - 0.5, -1, 0)
    task = np.broadcast_to(np.arange(len(ways))[:, None], rows.shape)
    return np.asarray(map_coordinates(ways, [task, rows, columns], order=1, mode="nearest"))


def turned(turn: np.ndarray) -> Symmetry:
    """Trials in a building that was turned or mirrored by a matrix [2, 2] of places."""
    side = round(np.linalg.det(turn))
    lidar = np.eye(RAYS)[side * np.arange(RAYS)]  # a mirror turns counter-clockwise into clockwise
    waves = np.eye(len(WAVES))
    observation = block_diag(turn, turn, lidar, np.kron(turn, waves), np.kron(np.abs(turn), waves))
    return Symmetry(observation, np.diag([1.0, side]))


_QUARTER = np.array([[0.0, -1.0], [1.0, 0.0]])


class NavigationTrials(TrialsOf):
    """The tasks of `quickstudy.families.navigation.family.Navigation`, learned by reward; see the module's text.

    Beside success of an episode and return: success weighted by path length ('spl'), and collisions.
    """

    name = Navigation.name
    protocol = (
        "environments are unseen and the goal is hidden; start, heading, odometry's drift and the noise of lidar and "
        "action are drawn anew for every episode; the reward is progress along the shortest way in metres, 2 at the "
        "goal, less 0.05 for a step that ends in touch with a wall; success is to come within 0.3 m of the goal in 32 s"
    )
    metric, secondary_metrics = "success", ("return", "spl", "collisions")
    rate = Navigation.rate
    has_expert = True
    symmetries = (turned(_QUARTER), turned(_QUARTER @ _QUARTER), turned(np.diag([1.0, -1.0])))
    observation_size, action_size = Navigation.observation_size, Navigation.action_size
    hidden_size, horizon = Navigation.hidden_size, Navigation.horizon
    imitated: ClassVar[type[Navigation]] = Navigation
    """The family of demonstrations whose tasks these are."""

    def __init__(self, threads: int | None = None) -> None:
        """
        Args:
            threads: that step the worlds; by default one for each core. Results do not depend on it.
        """
        self._of = self.imitated(threads=threads)
        super().__init__(self._of)
        self.threads, self.sizes = threads, self._of.sizes

    def tasks(self, split: str, count: int, first: int = 0) -> list[Task]:
        return self._of.tasks(split, count, first)

    def vector_env(self, tasks: Sequence[Task], episodes_per_task: int) -> VectorEnv:
        """`episodes_per_task` robots in the environment of each task.

        Raises:
            QuickstudyError: no task or no lane, or a task of another family.
        """
        if not tasks or episodes_per_task < 1:
            raise QuickstudyError(
                f"Trials need tasks and episodes_per_task; got {len(tasks)} tasks, {episodes_per_task} episodes_per_task."
            )
        return NavigationVectorEnv(self._of, tasks, episodes_per_task, self.threads)

    def demonstrate(self, tasks: Sequence[Task], count: int, seed: int) -> list[list[Demonstration]]:
        return self._of.demonstrate(tasks, count, seed)


class NavigationDynamicsTrials(NavigationTrials):
    """The same with a body that responds otherwise in every task, as in `NavigationDynamics`."""

    name = NavigationDynamics.name
    protocol = f"{NavigationTrials.protocol}; how the body responds is hidden too: {navigation_bodies.PROTOCOL}"
    hidden_size = NavigationDynamics.hidden_size
    imitated = NavigationDynamics
