"""Where the time of meta-training goes, for both ways of learning."""

import io
import time
from typing import Any

import pytest
import torch
from rich.console import Console

from quickstudy.data import DemonstrationSet
from quickstudy.errors import QuickstudyError
from quickstudy.experiment import Experiment
from quickstudy.profile import Profile, profile, table

QUICK: dict[str, Any] = {
    "training": {"meta_batch": 3, "batching": "vmap"},
    "data": {"tasks": 5, "demonstrations": 4},
}


def test_drawing_and_the_outer_step_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    sample = DemonstrationSet.sample

    def slow(self: DemonstrationSet, rng: torch.Generator, tasks: int, shots: int, queries: int) -> Any:
        time.sleep(0.05)
        found = sample(self, rng, tasks, shots, queries)
        drawn.append(int(found.support.mask.sum() + found.query.mask.sum()))
        return found

    monkeypatch.setattr(DemonstrationSet, "sample", slow)
    found = profile(Experiment.of("point-navigation", "maml", changes=QUICK), 2)
    assert [one.steps for one in found] == drawn[1:], "the first step is not counted"
    for one in found:
        assert one.seconds.keys() == {"drawing", "outer step"}
        assert one.seconds["drawing"] >= 0.05
        assert one.seconds["outer step"] > 0


def test_a_profile_leaves_no_trace_and_needs_a_step() -> None:
    experiment = Experiment.of("point-navigation", "maml", changes=QUICK)
    with pytest.raises(QuickstudyError, match="at least one outer step; got 0"):
        profile(experiment, 0)
    for method, family in (("nearest", "point-navigation"), ("scratch-ppo", "navigation2d")):
        with pytest.raises(QuickstudyError, match=f"Method '{method}' learns nothing from the training tasks"):
            profile(Experiment.of(family, method), 1)


def test_the_table_has_shares_of_the_mean() -> None:
    experiment = Experiment.of("navigation2d", "rl2", changes={"training": {"meta_batch": 2, "episodes_per_task": 3}})
    parts = [{"simulation": 1.0, "policy": 2.0, "update": 1.0}, {"simulation": 2.0, "policy": 2.0, "update": 0.0}]
    console = Console(file=io.StringIO(), width=200, record=True)
    console.print(table(experiment, [Profile(seconds, 400) for seconds in parts]))
    said = console.export_text()
    assert "rl2 on navigation2d: 100 steps per second" in said
    assert "2 tasks x 3 episodes, mean of 2 outer steps" in said
    cells = [line.replace("│", " ").split() for line in said.splitlines() if line.startswith("│")]
    assert cells == [["simulation", "1.5", "38"], ["policy", "2", "50"], ["update", "0.5", "12"]]
