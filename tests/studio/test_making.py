"""Tasks of one's own: by sliders, drawn, and from maps."""

import numpy as np
import pytest

from quickstudy.errors import QuickstudyError
from quickstudy.families.grasping.family import Grasping
from quickstudy.families.grasping.vector_env import GraspingVectorEnv
from quickstudy.families.navigation.layouts import fill
from quickstudy.families.navigation.planner import plan
from quickstudy.studio.arena import GraspingArena, NavigationArena
from quickstudy.studio.making import BLOCKS, block_at, room_task
from quickstudy.task import Task


@pytest.mark.parametrize("kind", GraspingArena.kinds())
@pytest.mark.parametrize("end", [0, 1])
def test_objects_at_both_ends_of_all_sliders_can_be_built(kind: str, end: int) -> None:
    values = {key: ends[end] for key, ends in GraspingArena.sliders().items()}
    parameters = GraspingArena.made(kind, values, np.random.default_rng(0))
    task = Grasping().check(Task("grasping", "own", 0, parameters))
    with GraspingVectorEnv([task], 1) as env:
        env.reset([np.random.default_rng(0)])
        assert np.isfinite(env.observations).all()
    assert parameters["grip_width"] == values["width"]
    assert parameters["mass"] == values["mass"]


@pytest.mark.parametrize("kind", NavigationArena.kinds())
def test_buildings_by_number_are_the_same_again(kind: str) -> None:
    values = {"seed": 7.0}
    first, again = (NavigationArena.made(kind, values, np.random.default_rng(i)) for i in range(2))
    assert first == again


def test_a_drawn_room_becomes_a_task_with_its_blocks_as_walls() -> None:
    blocks = np.zeros((BLOCKS, BLOCKS), bool)
    blocks[4, 2:8] = True
    made = room_task(blocks, np.random.default_rng(0))
    grid = fill(made["walls"])
    assert grid[45, 25]
    assert not grid[25, 25]
    assert grid[0].all()
    assert np.isfinite(plan(made["walls"], made["goal"]).distance).any()


def test_a_room_without_room_is_refused() -> None:
    with pytest.raises(QuickstudyError, match="no two places are 4 m apart"):
        room_task(np.ones((BLOCKS, BLOCKS), bool), np.random.default_rng(0))


@pytest.mark.parametrize(
    ("place", "block"), [((-4.9, 4.9), (0, 0)), ((4.9, -4.9), (9, 9)), ((0.1, -0.1), (5, 5)), ((6.0, 0.0), None)]
)
def test_a_click_on_the_floor_names_a_block(place: tuple[float, float], block: tuple[int, int] | None) -> None:
    assert block_at(np.array(place)) == block
