"""Demonstrations as people give them with a handle: detours, pauses, jitter, one direction at a time, a grasp beside
the best one. They are drawn at random, for learners that shall learn from people.

A person who grasps or drives here moves the same handle that the studio's page has, through the same recorder.
`GraspingByPeople`, `NavigationByPeople` and `ManipulationByPeople` are the families with such demonstrations in place
of their expert's.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from quickstudy.demonstration import Demonstration
from quickstudy.errors import QuickstudyError
from quickstudy.families.base import DEMONSTRATION
from quickstudy.families.grasping.arm import TABLE_CENTRE
from quickstudy.families.grasping.family import Grasping
from quickstudy.families.grasping.scene import rotate
from quickstudy.families.grasping.vector_env import SAFE_HEIGHT, GraspingVectorEnv
from quickstudy.families.metaworld.env import MetaWorldEnv
from quickstudy.families.metaworld.family import Manipulation
from quickstudy.families.navigation.family import Navigation
from quickstudy.families.navigation.layouts import fill
from quickstudy.families.navigation.planner import MARGIN, clearance, plan
from quickstudy.families.navigation.scene import ROBOT
from quickstudy.families.navigation.vector_env import NavigationVectorEnv
from quickstudy.simulation.vector_env import VectorEnv
from quickstudy.studio.demonstrating import LONGEST, Recorder, drive_action, hand_action
from quickstudy.task import Task, check_count

_PATIENCE = 400
"""Steps, pauses included, after which a person gives up."""
_DETOUR = 0.4
"""How likely a person takes a way round before the object is approached; half of them take two."""
_AIM, _AIM_HEIGHT, _AIM_YAW = 0.007, 0.004, 0.12
"""Standard deviations of where a person grasps, about the right grasp: metres, metres, radians."""
_WANDER = 0.2
"""Metres, standard deviation, by which a person leads a mobile robot off the planned way."""
_LOST, _ASTRAY = 0.3, 0.7
"""How likely a person leads the robot astray once, and how far: metres, standard deviation."""
_HURRY = (0.1, 0.6)
"""Metres from the robot to its handle at which people drag it on: some wait until the robot has come to rest."""


@dataclass
class Person:
    """One who leads the handle of a hand from place to place.

    Attributes:
        rng: draws all that this person does.
        place, yaw, grip: of the handle now.
        plan: what is left: place [3], yaw, grip, and whether one direction is moved at a time.
        pause: steps of rest before going on.
    """

    rng: np.random.Generator
    place: np.ndarray
    yaw: float
    plan: list[tuple[np.ndarray, float, float, bool]]
    grip: float = -1.0
    pause: int = 0
    speed: float = field(init=False)

    def __post_init__(self) -> None:
        self.speed = float(self.rng.uniform(0.006, 0.022))

    def move(self) -> None:
        """One step of 1/20 s: the handle goes on towards the next place of the plan."""
        if self.pause > 0:
            self.pause -= 1
            return
        if not self.plan:
            return
        place, yaw, grip, one_at_a_time = self.plan[0]
        away = place - self.place
        if one_at_a_time:
            axis = int(np.abs(away).argmax())
            away = np.where(np.arange(3) == axis, away, 0.0)
        length = float(np.linalg.norm(away))
        self.place = self.place + away * min(1.0, self.speed / max(length, 1e-9))
        self.yaw += float(np.clip(yaw - self.yaw, -0.1, 0.1))
        if length < 0.002 and abs(yaw - self.yaw) < 0.02:
            self.pause = int(self.rng.integers(0, 15)) if self.rng.uniform() < 0.5 else 0
            changes = grip != self.grip or (len(self.plan) > 1 and self.plan[1][2] != grip)
            if changes:  # people look where the hand is before they close it, and whether it holds before they lift
                self.pause = max(self.pause, 10)
            self.grip = grip
            self.plan.pop(0)
            self.speed = float(self.rng.uniform(0.006, 0.022))

    def jitter(self) -> np.ndarray:
        """Of the hand that holds the mouse, [3] metres."""
        return self.rng.normal(size=3) * 0.0015 * (self.pause == 0 and bool(self.plan))


def grasping_person(env: GraspingVectorEnv, index: int, rng: np.random.Generator, attempt: int = 0) -> Person:
    """Somebody who sees the object of an environment and how it must be held, and aims better in each attempt."""
    p = env.tasks[index // env.episodes_per_task].parameters
    tag, tag_yaw = env.read("tag")[index], float(env.tag_yaw()[index])
    where = tag[:2] + rotate(np.array([p["grasp_x"], p["grasp_y"]]), np.array(tag_yaw))
    care = 0.6**attempt
    aim = np.array([*where, p["grasp_height"]]) + care * rng.normal(size=3) * [_AIM, _AIM, _AIM_HEIGHT]
    aim[2] = max(aim[2], 0.010)
    yaw, start = float(tag_yaw + p["grasp_yaw"] + care * _AIM_YAW * rng.normal()), env.target_yaw[index]
    apart = bool(rng.uniform() < 0.5)
    steps: list[tuple[np.ndarray, float, float, bool]] = []
    if rng.uniform() < _DETOUR:
        for _ in range(int(rng.integers(1, 3))):
            by_the_way = TABLE_CENTRE + rng.uniform([-0.12, -0.12, SAFE_HEIGHT + 0.01], [0.12, 0.12, 0.25])
            steps.append((by_the_way, float(start + rng.uniform(-0.3, 0.3)), -1.0, apart))
    above = np.array([*(aim[:2] + 0.01 * rng.normal(size=2)), SAFE_HEIGHT + rng.uniform(0.005, 0.06)])
    # One direction at a time must not lead through the object.
    steps.append((np.array([*env.target[index, :2], above[2]]), float(start), -1.0, apart))
    steps.append((above, float(yaw + 0.1 * rng.normal()), -1.0, apart))
    steps.append((np.array([*(aim[:2] + 0.004 * rng.normal(size=2)), SAFE_HEIGHT]), yaw, -1.0, apart))
    if rng.uniform() < 0.5:
        steps.append((np.array([*aim[:2], aim[2] + rng.uniform(0.02, 0.07)]), yaw, -1.0, apart))
    steps += [(aim, yaw, -1.0, False), (aim, yaw, 1.0, False)]
    up = aim + [*(0.02 * rng.normal(size=2)), rng.uniform(0.13, 0.18)]
    steps.append((up, yaw, 1.0, apart))
    return Person(rng, env.target[index].copy(), float(start), steps)


class GraspingByPeople(Grasping):
    """Grasping, demonstrated by people."""

    def demonstrate(self, tasks: Sequence[Task], count: int, seed: int) -> list[list[Demonstration]]:
        check_count(count)
        chunk = max(1, 64 // count)
        parts = [tasks[first : first + chunk] for first in range(0, len(tasks), chunk)]
        return [shown for part in parts for shown in self._by_people(part, count, seed)]

    def _by_people(self, tasks: Sequence[Task], count: int, seed: int) -> list[list[Demonstration]]:
        of = [task for task in tasks for _ in range(count)]
        kept: list[Demonstration | None] = [None] * len(of)
        with GraspingVectorEnv([self.check(task) for task in tasks], count, self.arm, self.threads) as env:
            for attempt in range(self.attempts):
                todo = [i for i, one in enumerate(kept) if one is None]
                if not todo:
                    break
                drawn = [of[i].generator(DEMONSTRATION, seed, i % count, attempt, 1) for i in todo]
                self._attempt_by_people(env, todo, drawn, kept, attempt)
        return _whole(kept, of, count)

    def _attempt_by_people(
        self,
        env: GraspingVectorEnv,
        todo: Sequence[int],
        drawn: Sequence[np.random.Generator],
        kept: list[Demonstration | None],
        attempt: int,
    ) -> None:
        env.reset(drawn, np.array(todo))
        env.noise[:] = 0.0
        people = {i: grasping_person(env, i, rng, attempt) for i, rng in zip(todo, drawn, strict=True)}
        recorders = {i: Recorder(grips=True) for i in todo}
        active = np.zeros(env.size, bool)
        active[list(todo)] = True
        for _ in range(_PATIENCE):
            actions = np.zeros((env.size, env.action_size), np.float32)
            seen = env.observations.reshape(env.size, -1)
            for i in np.flatnonzero(active).tolist():
                person = people[i]
                person.move()
                actions[i] = hand_action(env, i, person.place + person.jitter(), person.yaw, person.grip)
                recorders[i].add(seen[i], actions[i])
            result = env.step(actions.reshape(*env.shape, -1), active.reshape(env.shape))
            active &= ~result.terminated.ravel()
            if not active.any():
                break
        for i in todo:
            if env.success[i] and 0 < len(recorders[i]) < LONGEST:
                kept[i] = recorders[i].demonstration()


@dataclass
class Hand:
    """How a person leads the hand of Meta-World's arm where its expert would take it.

    Attributes:
        rng: draws all that this person does.
        step: so many were made.
        apart: one direction is moved at a time.
        detour: the step at which a way round begins; long ago where none does.
        away: where that leads, [3] of an action.
        speed: part of the expert's.
    """

    rng: np.random.Generator
    step: int = 0
    apart: bool = field(init=False)
    detour: int = field(init=False)
    away: np.ndarray = field(init=False)
    speed: float = field(init=False)

    def __post_init__(self) -> None:
        self.apart = bool(self.rng.uniform() < 0.3)
        self.detour = int(self.rng.integers(0, 15)) if self.rng.uniform() < _DETOUR else -99
        self.away = self.rng.uniform([-1.0, -1.0, 0.0], 1.0)
        self.speed = float(self.rng.uniform(0.5, 1.0))

    def action(self, expert: np.ndarray) -> np.ndarray:
        """What this person does, [4], where the expert would do `expert` [4]."""
        self.step += 1
        if self.step % 20 == 0:
            self.speed = float(self.rng.uniform(0.5, 1.0))
        moved = np.clip(expert[:3], -1.0, 1.0)
        if self.detour <= self.step < self.detour + 10:
            moved = self.away
        elif self.apart and np.abs(moved).max() > 0.5:
            moved = np.where(np.arange(3) == np.abs(moved).argmax(), moved, 0.0)
        jitter = 0.08 * self.rng.normal(size=3)
        return np.clip(np.array([*(self.speed * moved + jitter), expert[3]]), -1.0, 1.0)


class ManipulationByPeople(Manipulation):
    """Meta-World, demonstrated by people: they do what the expert would do, but slower and by other ways."""

    def vector_env(
        self, tasks: Sequence[Task], episodes_per_task: int, *, demonstrating: bool = False, visual: bool = False
    ) -> VectorEnv:
        if not demonstrating:
            return super().vector_env(tasks, episodes_per_task, visual=visual)
        of = [self.check(task) for task in tasks]
        return _LedMetaWorld(of, episodes_per_task, self.horizon, tail=self.tail, threads=self.threads)

    def worth_another(self, demonstration: Demonstration, attempt: int) -> bool:
        return False


class _LedMetaWorld(MetaWorldEnv):
    """Environments whose expert is a person, whom nobody disturbs."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._hands: dict[int, Hand] = {}

    def _begin(self, chosen: np.ndarray, generators: Sequence[np.random.Generator], disturbance: float) -> None:
        super()._begin(chosen, generators, 0.0)
        self._hands.update((i, Hand(rng)) for i, rng in zip(chosen.tolist(), generators, strict=True))

    def expert_action(self) -> np.ndarray:
        wanted = super().expert_action().reshape(self.size, -1)
        for i in np.flatnonzero(np.isfinite(wanted).all(1)).tolist():
            wanted[i] = self._hands[i].action(wanted[i])
        return wanted.reshape(*self.shape, -1)


class NavigationByPeople(Navigation):
    """Navigation, demonstrated by people: they lead the robot by a handle, not quite on the planned way."""

    def demonstrate(self, tasks: Sequence[Task], count: int, seed: int) -> list[list[Demonstration]]:
        check_count(count)
        of = [task for task in tasks for _ in range(count)]
        kept: list[Demonstration | None] = [None] * len(of)
        for attempt in range(self.attempts):
            todo = [i for i, one in enumerate(kept) if one is None]
            for i in todo:
                rng = of[i].generator(DEMONSTRATION, seed, i % count, attempt, 1)
                kept[i] = self._lead(of[i], rng, 0.6**attempt)
        return _whole(kept, of, count)

    def _lead(self, task: Task, rng: np.random.Generator, care: float) -> Demonstration | None:
        """One robot led to its goal, or None where it did not come there."""
        with NavigationVectorEnv([self.check(task)], 1, 1, demonstrating=True) as env:
            env.reset([rng])
            env.noise[:] = 0.0
            places = led(task, env.pose()[0, :2], rng, care)
            recorder, pause = Recorder(grips=False), 0
            hurry = float(rng.uniform(*_HURRY))
            for _ in range(_PATIENCE):
                if len(places) > 1 and np.linalg.norm(env.believed[0, :2] - places[0]) < hurry:
                    places = places[1:]
                    pause = int(rng.integers(1, 8)) if rng.uniform() < 0.3 else 0
                action = np.zeros(2, np.float32) if pause > 0 else drive_action(env, 0, places[0])
                pause -= 1
                action = np.clip(action + 0.05 * rng.normal(size=2) * bool(action.any()), -1, 1).astype(np.float32)
                recorder.add(env.observations[0, 0], action)
                result = env.step(action[None, None], np.ones((1, 1), bool))
                if result.terminated.any():
                    return recorder.demonstration() if env.success[0] and not recorder.full else None
        return None


def led(task: Task, start: np.ndarray, rng: np.random.Generator, care: float = 1.0) -> np.ndarray:
    """Where a person drags the handle on the way to the goal, [place, 2] metres; the goal comes last.

    Args:
        care: of 1 for a person who takes none, less for one who does: what they are off the planned way.
    """
    p = task.parameters
    room = clearance(fill(p["walls"]))
    way = plan(p["walls"], p["goal"])
    places = way.waypoints(start.tolist(), int(rng.integers(2, 8)))[:-1]

    def beside(places: np.ndarray, metres: float) -> np.ndarray:
        off = places + care * metres * rng.normal(size=places.shape)
        free = [room[way.at(one)] > ROBOT.radius + MARGIN and np.isfinite(way.route[way.at(one)]) for one in off]
        return np.where(np.array(free, bool)[:, None], off, places)

    places = beside(places, _WANDER)
    if rng.uniform() < care * _LOST:
        at = int(rng.integers(len(places)))
        places = np.insert(places, at, beside(places[at : at + 1], _ASTRAY), axis=0)
    return np.concatenate([places, [p["goal"]]])


def _whole(kept: Sequence[Demonstration | None], of: Sequence[Task], count: int) -> list[list[Demonstration]]:
    """Demonstrations by task.

    Raises:
        QuickstudyError: a task has too few.
    """
    failed = [task.name for task, one in zip(of, kept, strict=True) if one is None]
    if failed:
        raise QuickstudyError(f"Nobody managed to demonstrate task {failed[0]}.")
    return [[d for d in kept[i : i + count] if d is not None] for i in range(0, len(of), count)]
