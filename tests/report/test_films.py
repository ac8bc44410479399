"""Films show the episode that they say, of learners from demonstrations and of learners by trial."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from quickstudy.data import Batch
from quickstudy.errors import QuickstudyError
from quickstudy.evaluation import Evaluation
from quickstudy.families.base import SimulatedFamily
from quickstudy.io import checkpoint
from quickstudy.learner import BaseLearner, MetaLearner
from quickstudy.methods.trials.learner import Figures, TrialLearner
from quickstudy.report import films
from quickstudy.results.evidence import Cell, Row
from quickstudy.simulation import replay
from quickstudy.simulation.vector_env import StepResult, VectorEnv, as_indices
from quickstudy.task import Task


class LineEnv(VectorEnv):
    """Walks on a line for `horizon` steps; a picture's grey is 10 for each reset and 1 for each step since."""

    horizon, action_size = 4, 1

    def __init__(self, tasks: Sequence[Task], episodes_per_task: int) -> None:
        self.tasks, self.episodes_per_task = tasks, episodes_per_task
        self._x, self._resets, self._steps = np.zeros((*self.shape, 1)), 0, 0

    def reset(
        self, generators: Sequence[np.random.Generator], chosen: np.ndarray | None = None, disturbance: float = 0.0
    ) -> np.ndarray:
        assert len(generators) == len(as_indices(chosen, self.size))
        self._x, self._resets, self._steps = np.zeros_like(self._x), self._resets + 1, 0
        return self._x

    def step(self, actions: np.ndarray, active: np.ndarray) -> StepResult:
        self._x, self._steps = self._x + actions, self._steps + 1
        no, over = np.zeros(self.shape, bool), np.full(self.shape, self._steps == self.horizon)
        return StepResult(self._x, self._x[..., 0], over, no, over & (self._x[..., 0] > 2), no)

    def expert_action(self) -> np.ndarray:
        return np.ones((*self.shape, 1))

    def render(self, index: int, width: int | None = None, height: int | None = None) -> np.ndarray:
        return np.full((32, 48, 3), 10 * self._resets + self._steps, np.uint8)


class Line(SimulatedFamily):
    name = "line"
    sizes: Mapping[str, int] = {"train": 10, "validation": 10, "test": 10}
    protocol = "nothing is hidden"
    metric = "success"
    observation_size, action_size, hidden_size, horizon = 1, 1, 1, 4
    film_every, episodes_per_task = 3, 2

    def sample(self, split: str, rng: np.random.Generator) -> Mapping[str, Any]:
        return {}

    def hidden(self, task: Task) -> np.ndarray:
        return np.zeros(1)

    def vector_env(
        self, tasks: Sequence[Task], episodes_per_task: int, *, demonstrating: bool = False, visual: bool = False
    ) -> VectorEnv:
        return LineEnv(tasks, episodes_per_task)


class Imitates(MetaLearner):
    """Its skill is the mean action of the demonstrations."""

    def __init__(self) -> None:
        super().__init__(BaseLearner(nn.Linear(1, 1), 1))

    def begin(self) -> Tensor:
        return torch.zeros(1)

    def adapt(self, support: Batch) -> Tensor:
        return support.y.mean((0, 1))

    def predict(self, skill: Tensor, x: Tensor) -> Tensor:
        return torch.zeros_like(x) + skill


class Tries(TrialLearner):
    """Walks on, whatever happened."""

    def outer_step(self, env: VectorEnv, rng: torch.Generator) -> Figures:
        raise NotImplementedError

    def trial(self, env: VectorEnv, rounds: int, rng: torch.Generator) -> list[Any]:
        for _ in range(rounds + 1):
            env.reset_all(np.random.default_rng(0))
            for _ in range(env.horizon):
                env.step(np.ones((*env.shape, 1)), np.ones(env.shape, bool))
        return []


def evaluation(shots: list[int], success: list[float]) -> Evaluation:
    values = np.array(success).reshape(-1, 1, 1).repeat(len(shots), 0).reshape(len(shots), -1, 1)
    return Evaluation("test", ["a"] * len(success), shots, {"success": values}, [1.0] * len(shots))


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    def record(film: Callable[[], object], fps: int) -> bytes:
        film()
        return b"scene"

    monkeypatch.setattr(replay, "record", record)


def test_a_learner_by_trial_is_filmed_in_the_round_that_is_named() -> None:
    family = Line()
    for rounds, first in (0, 10), (2, 30):
        film = films.film_trials(Tries(), family, family.tasks("test", 1)[0], rounds, 0)
        assert film[:, 0, 0, 0].tolist() == [first, first + 3, first + 4], "the start, every third step, and the end"


def test_a_learner_from_demonstrations_is_filmed_after_so_many() -> None:
    family = Line()
    film = films.film_after(Imitates(), family, family.tasks("test", 1)[0], 1, 0)
    assert film.shape == (3, 32, 48, 3)


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize(
    ("learner", "evaluated", "captions", "failed"),
    [
        (Imitates(), evaluation([0, 1], [1.0, 0.0]), ["before any demonstration", "after one demonstration"], 1),
        (
            Tries(),
            replace(evaluation([0, 2, 6], [1.0, 0.0]), learns_from="trials", steps=[0, 1, 3]),
            ["its first episode", "after 6 own episodes"],
            0,
        ),
    ],
    ids=["demonstrations", "trials"],
)
def test_films_are_taken_once(
    tmp_path: Path, learner: MetaLearner | TrialLearner, evaluated: Evaluation, captions: list[str], failed: int
) -> None:
    def take() -> list[dict[str, Any]]:
        films.take(tmp_path, "ours", Line(), learner, {"test": {"ours": [evaluated]}})
        return json.loads((tmp_path / films.INDEX).read_text())

    first, *failures = take()
    assert first["title"] == "test: task 0"
    assert [video["caption"] for video in first["videos"]] == [f"ours, {caption}" for caption in captions]
    for one in first["videos"] + first["replays"]:
        assert (tmp_path / one["file"]).stat().st_size > 0
    assert [group["title"] for group in failures] == ["Failed: did not get there in time"] * failed
    (tmp_path / "videos/test-before.mp4").unlink()
    take()
    assert not (tmp_path / "videos/test-before.mp4").exists(), "what lies there is kept"


def test_a_family_without_films_has_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> np.ndarray:
        raise QuickstudyError("Family 'line' makes no films.")

    monkeypatch.setattr(LineEnv, "render", none)
    films.take(tmp_path, "ours", Line(), Tries(), {})
    assert "No films: Family 'line' makes no films." in capsys.readouterr().out
    assert not (tmp_path / films.INDEX).exists()


def test_the_best_that_is_no_baseline_is_filmed(tmp_path: Path) -> None:
    rows = [
        Row("oracle", 1, 0.9, role="oracle"),
        Row("maml", 1, 0.8, role="meta-learner"),
        Row("pearl", 1, 0.7, role="meta-learner"),
    ]
    cell = Cell("a", "success", "fraction", "p", "c", 1, "", {}, "m", rows)
    assert films.run_to_film(tmp_path, [cell]) is None
    for method in ("oracle", "maml"):
        checkpoint.save(tmp_path / f"{method}-seed0/checkpoints/best", {}, {})
    assert films.run_to_film(tmp_path, [cell]) == tmp_path / "maml-seed0"
    checkpoint.save(tmp_path / "checkpoints/best", {}, {})
    assert films.run_to_film(tmp_path, [cell]) == tmp_path
