"""What an oracle of learning by trial measures."""

import numpy as np

from quickstudy.families.navigation2d import Navigation2D
from quickstudy.methods.trials.baselines import Revealed
from quickstudy.task import Task


def test_an_oracle_measures_what_its_worlds_measure() -> None:
    class Measured(Navigation2D):
        def vector_env(self, tasks, episodes_per_task):
            worlds = super().vector_env(tasks, episodes_per_task)
            worlds.measures = lambda: {"odd": np.ones((len(tasks), episodes_per_task))}
            return worlds

    of = Measured()
    worlds = Revealed(of.vector_env([Task(of.name, "train", 0, {"goal": [0.1, 0.0]})], 3), of.hidden)
    assert worlds.measures()["odd"].shape == (1, 3)
    assert of.run(of.tasks("test", 2), 3, lambda seen: np.zeros((2, 3, 2)), 0)["odd"].sum() == 6.0
