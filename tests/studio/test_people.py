"""Demonstrations as people give them succeed, and are not the expert's: longer, by other ways, held elsewhere."""

import numpy as np
import pytest

from quickstudy.demonstration import Demonstration
from quickstudy.errors import QuickstudyError
from quickstudy.families.base import SimulatedFamily
from quickstudy.families.grasping.family import Grasping
from quickstudy.families.grasping.vector_env import OBSERVATION, OBSERVATION_SCALE
from quickstudy.families.metaworld.family import ml1
from quickstudy.families.navigation.family import Navigation
from quickstudy.families.navigation.planner import plan
from quickstudy.studio.people import GraspingByPeople, Hand, ManipulationByPeople, NavigationByPeople, Person, led

PICK_PLACE = "ml1-pick-place", dict.fromkeys(("train", "test"), ("pick-place-v3",))


def shown(family: SimulatedFamily, tasks: int = 6, count: int = 2) -> list[Demonstration]:
    return [d for of_one in family.demonstrate(family.tasks("validation", tasks), count, 0) for d in of_one]


def length(demonstration: Demonstration) -> float:
    """Of the hand's way, in the units of its observations."""
    return float(np.linalg.norm(np.diff(demonstration.observations[:, :3], axis=0), axis=1).sum())


def grasped(demonstration: Demonstration) -> np.ndarray:
    """Where the hand was, seen from the object's tag, when it began to close: metres."""
    closing = int(np.argmax(demonstration.actions[:, -1] > 0))
    return demonstration.observations[closing, :3] * OBSERVATION_SCALE[:3]


@pytest.fixture(scope="module")
def grasps() -> tuple[list[Demonstration], list[Demonstration]]:
    return shown(Grasping(threads=1)), shown(GraspingByPeople(threads=1))


def test_a_person_takes_a_longer_way_to_an_object(grasps):
    expert, people = grasps
    assert np.mean([length(d) for d in people]) > 1.2 * np.mean([length(d) for d in expert])
    assert np.mean([len(d) for d in people]) > 1.2 * np.mean([len(d) for d in expert])
    assert all(d.actions.shape[1] == len(OBSERVATION) - 4 and np.abs(d.actions).max() <= 1 for d in people)


def test_a_person_grasps_beside_the_best_point(grasps):
    _, people = grasps
    tasks = GraspingByPeople(threads=1).tasks("validation", 6)
    best = np.repeat([[t.parameters["grasp_x"], t.parameters["grasp_y"]] for t in tasks], 2, axis=0)
    beside = np.linalg.norm([grasped(d)[:2] for d in people] - best, axis=1)
    assert 0.003 < beside.mean() < 0.03


def test_no_step_of_a_persons_demonstration_is_a_long_rest(grasps):
    _, people = grasps
    for one in people:
        rests = np.abs(one.actions[:, :4]).max(1) < 0.03
        longest = max(map(len, "".join("r" if rest else " " for rest in rests).split()), default=0)
        assert longest <= 12


def test_people_are_drawn_by_the_seed():
    family = GraspingByPeople(threads=1)
    (first,), (same,), (other,) = (family.demonstrate(family.tasks("train", 1), 1, seed)[0] for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.actions, same.actions)
    assert first.actions.shape != other.actions.shape or not np.allclose(first.actions, other.actions)


def test_a_task_that_nobody_manages_is_named(monkeypatch):
    family = GraspingByPeople(threads=1)
    monkeypatch.setattr(GraspingByPeople, "attempts", 1)
    monkeypatch.setattr(Person, "move", lambda self: None)
    with pytest.raises(QuickstudyError, match="Nobody managed to demonstrate task grasping/train/0"):
        family.demonstrate(family.tasks("train", 1), 1, 0)


def test_a_person_leads_a_robot_to_its_goal_by_a_way_of_their_own():
    expert, people = shown(Navigation(threads=1), 4), shown(NavigationByPeople(threads=1), 4)
    assert np.mean([len(d) for d in people]) > np.mean([len(d) for d in expert])
    driven = [d.actions for d in people]
    assert not any(len(a) == len(b) and np.allclose(a, b.actions) for a, b in zip(driven, expert, strict=True))


def test_where_a_person_leads_is_free_and_ends_at_the_goal():
    family, rng = Navigation(threads=1), np.random.default_rng(0)
    for task in family.tasks("train", 8):
        p = task.parameters
        way = plan(p["walls"], p["goal"])
        for _ in range(5):
            places = led(task, np.array(p["home"]), rng)
            assert places[-1] == pytest.approx(p["goal"])
            assert all(np.isfinite(way.route[way.at(place)]) for place in places[:-1])


def test_a_person_without_care_leads_further_off():
    (task,) = Navigation(threads=1).tasks("train", 1)
    way = plan(task.parameters["walls"], task.parameters["goal"])

    def off(care: float) -> float:
        away = []
        for seed in range(20):
            places = led(task, np.array(task.parameters["home"]), np.random.default_rng(seed), care)
            planned = way.waypoints(task.parameters["home"], 200)
            away += [np.linalg.norm(planned - place, axis=1).min() for place in places[:-1]]
        return float(np.mean(away))

    assert off(1.0) > 2 * off(0.1)


def test_people_move_meta_worlds_hand_slower_than_its_expert():
    expert, people = shown(ml1("pick-place", threads=1)), shown(ManipulationByPeople(*PICK_PLACE, threads=1))
    assert np.mean([len(d) for d in people]) > 1.2 * np.mean([len(d) for d in expert])
    assert all(np.abs(d.actions).max() <= 1 and np.isfinite(d.actions).all() for d in people)


def test_episodes_of_meta_world_are_the_familys_own():
    """People demonstrate; nobody disturbs what is tried afterwards."""
    people, family = ManipulationByPeople(*PICK_PLACE, threads=1), ml1("pick-place", threads=1)
    tasks = family.tasks("validation", 2)
    assert people.tasks("validation", 2) == tasks
    np.testing.assert_array_equal(people.run_expert(tasks, 1, 0)["steps"], family.run_expert(tasks, 1, 0)["steps"])


def test_a_hand_that_moves_one_direction_at_a_time_moves_one():
    hand = Hand(np.random.default_rng(0))
    hand.apart, hand.detour = True, -99
    moved = hand.action(np.array([1.0, 0.9, 0.8, -1.0]))
    assert moved[0] > 0.3
    assert np.abs(moved[1:3]).max() < 0.4
    assert moved[3] == -1.0
