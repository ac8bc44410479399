"""Point navigation by trial: its rewards and what ends an episode, the expert, what an oracle's environments say."""

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from quickstudy.families.navigation2d import Navigation2D, SparseNavigation2D
from quickstudy.methods.trials.baselines import Revealed
from quickstudy.task import Task


def goal(*positions: list[float]) -> list[Task]:
    return [Task("navigation2d", "train", i, {"goal": position}) for i, position in enumerate(positions)]


def right(seen: np.ndarray) -> np.ndarray:
    return np.broadcast_to([1.0, 0.0], (*seen.shape[:2], 2))


def test_rewards_and_ends_by_hand() -> None:
    """Along x at 0.1 a step: the goal at 0.3 is reached by the third step, the one at -0.3 never."""
    found = Navigation2D().run(goal([0.3, 0.0], [-0.3, 0.0]), 1, right, 0)
    assert found["success"].tolist() == [[1.0], [0.0]]
    assert found["steps"].tolist() == [[3.0], [100.0]]
    assert found["return"][0, 0] == pytest.approx(-0.2 - 0.1)
    assert found["return"][1, 0] == pytest.approx(-sum(0.3 + 0.1 * step for step in range(1, 101)))


def test_the_sparse_reward_begins_at_a_fifth_and_no_episode_ends_early() -> None:
    found = SparseNavigation2D().run(goal([0.3, 0.0]), 1, right, 0)
    assert found["return"][0, 0] == pytest.approx(0.5 + 1.0 + 0.5)
    assert (found["success"][0, 0], found["success_last"][0, 0]) == (1.0, 0.0)
    with SparseNavigation2D().vector_env(goal([0.3, 0.0]), 1) as env:
        env.reset_all(np.random.default_rng(0))
        results = [env.step(right(np.zeros((1, 1, 2))), np.ones((1, 1), bool)) for _ in range(100)]
    assert not any(result.terminated.any() for result in results)
    assert [result.truncated.any() for result in results] == [False] * 99 + [True]


@pytest.mark.filterwarnings("ignore:.*A Box observation space")
def test_its_demonstrations_are_clean_and_reach_the_goal() -> None:
    family = Navigation2D()
    tasks, pushed = family.tasks("train", 3), []
    for task, (one, other) in zip(tasks, family.demonstrate(tasks, 2, 0), strict=True):
        assert np.abs(one.actions).max() <= 1.0
        assert not one.observations[0].any()
        away = np.abs(one.observations[-1] - task.parameters["goal"]).max()
        assert away < 0.1 * (1.0 + family.disturbance * 5)
        pushed.append(not np.array_equal(one.observations, other.observations))
    assert any(pushed)
    assert family.run_expert(tasks, 2, 0)["success"].all()
    check_env(family.make(tasks[0]), skip_render_check=True)


def test_an_oracle_measures_what_its_environments_measure() -> None:
    class Measured(Navigation2D):
        def vector_env(self, tasks, episodes_per_task, *, demonstrating=False, visual=False):
            env = super().vector_env(tasks, episodes_per_task)
            env.measures = lambda: {"odd": np.ones((len(tasks), episodes_per_task))}
            return env

    of = Measured()
    env = Revealed(of.vector_env([Task(of.name, "train", 0, {"goal": [0.1, 0.0]})], 3), of.hidden)
    assert env.measures()["odd"].shape == (1, 3)
    assert of.run(of.tasks("test", 2), 3, lambda seen: np.zeros((2, 3, 2)), 0)["odd"].sum() == 6.0
