"""The learners that come with the package load, are small, and do what their cards say."""

import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

import quickstudy
from quickstudy.evaluation import evaluate
from quickstudy.families.base import SimulatedFamily
from quickstudy.families.grasping.family import Grasping
from quickstudy.families.navigation.family import Navigation
from quickstudy.io import checkpoint
from quickstudy.methods.demonstrations.matching import MatchingNetworks
from quickstudy.results import runs
from quickstudy.results.evidence import Cell, Row
from quickstudy.studio.learners import card, packaged
from quickstudy.studio.people import GraspingByPeople, ManipulationByPeople, NavigationByPeople

ROOT = Path(__file__).parents[2]
NAMES = [run.name for run in packaged()]
BEST = ("grasping-matching", "navigation-matching", "ml1-pick-place-hypernet")
"""Those that must learn from one demonstration of a person's."""
TASKS = 8


def run_of(name: str) -> Path:
    return next(run for run in packaged() if run.name == name)


def people(family: str) -> SimulatedFamily:
    if family == "grasping":
        return GraspingByPeople(threads=1)
    if family == "navigation":
        return NavigationByPeople(threads=1)
    return ManipulationByPeople(family, dict.fromkeys(("train", "test"), ("pick-place-v3",)), threads=1)


def figure(name: str) -> Row:
    """The last row of a card: the last test split, after a person's demonstration or the last try."""
    return Row(**card(run_of(name))["rows"][-1])


def test_there_are_learners_of_each_kind():
    families = {card(run)["family"] for run in packaged()}
    assert {"grasping", "navigation", "ml1-pick-place"} <= families
    assert {card(run)["method"] for run in packaged("grasping")} >= {"matching", "maml", "transfer"}
    assert any(Row(**card(run)["rows"][0]).learns_from == "trials" for run in packaged())


@pytest.mark.parametrize("name", NAMES)
def test_it_is_small_and_says_what_it_is(name):
    run = run_of(name)
    told, experiment = card(run), runs.load(run)[0]
    files = [path for path in run.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 1_000_000
    assert told["bytes"] == (run / "checkpoints/best" / checkpoint.MODEL).stat().st_size
    assert (told["family"], told["method"]) == (experiment.settings.family, experiment.settings.method)
    widths = {t.dtype for n, t in checkpoint.load(run / "checkpoints/best").tensors.items() if "mean" not in n}
    assert (torch.float16 in widths) == (told["weights"] == "float16")
    assert told["weights"] == "float32" or told["validation"]["float16"] >= told["validation"]["float32"]
    assert {path.suffix for path in files} == {".json", ".safetensors"}


@pytest.mark.parametrize("name", NAMES)
def test_its_command_is_one_of_the_tools(name):
    words = shlex.split(card(run_of(name))["command"])
    assert (ROOT / words[1]).exists()
    assert words[2:] == ["--only", name]
    assert f'"{name.split("-")[0]}' in (ROOT / words[1]).read_text()


@pytest.mark.parametrize("name", NAMES)
def test_the_table_of_its_family_has_its_figures(name):
    told = card(run_of(name))
    rows = {row.key: row for row in Cell.read(ROOT / f"benchmarks/results/packaged-{told['family']}.json").rows}
    for row in (Row(**plain) for plain in told["rows"]):
        assert rows[row.key].value == row.value
        assert rows[row.key].scores == row.scores


@pytest.mark.parametrize("name", BEST)
def test_it_claims_to_learn_unseen_tasks_from_one_demonstration_of_a_persons(name):
    claimed = [row for row in card(run_of(name))["rows"] if "a person" in row["workload"]]
    assert claimed
    assert all(row["value"] >= 0.8 for row in claimed)


@pytest.mark.parametrize("name", [n for n in NAMES if "tries" not in n])
def test_what_it_claims_is_so_in_small(name):
    """Over few tasks, chance allows three standard errors below what the card says."""
    experiment, learner = runs.load(run_of(name))
    claimed = figure(name)
    found = evaluate(
        learner, people(experiment.family.name), experiment.family.test_splits[-1], shots=(1,), tasks=TASKS, episodes=1
    )
    value = claimed.value
    assert value is not None
    share = min(max(value, 0.05), 0.95)
    assert found.metrics["success"].mean() >= value - 3 * np.sqrt(share * (1 - share) / TASKS)


def test_a_learner_by_tries_does_better_with_each():
    name = next(n for n in NAMES if "tries" in n)
    experiment, learner = runs.load(run_of(name))
    found = experiment.evaluate(learner, shots=(0, 4), tasks=12, episodes=1)
    first, last = found.metrics[experiment.family.metric].mean((1, 2))
    assert last >= first + 0.2


@pytest.mark.parametrize(("name", "expected"), [("grasping-matching", Grasping), ("navigation-matching", Navigation)])
def test_it_is_loaded_as_any_run_is(name, expected):
    robot = quickstudy.load(run_of(name))
    assert isinstance(robot.learner, MatchingNetworks)
    family = expected(threads=1)
    skill = robot.adapt(people(family.name).demonstrate(family.tasks("validation", 1), 1, 0)[0])
    action = skill.act(np.zeros(family.observation_size, np.float32))
    assert action.shape == (family.action_size,)
    assert np.isfinite(action).all()


def test_a_wheel_holds_them(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", str(tmp_path), "-t", "wheel"],
        cwd=ROOT, check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    inside = set(zipfile.ZipFile(wheel).namelist())
    for run in packaged():
        for path in run.rglob("*"):
            assert path.is_dir() or str(path.relative_to(ROOT / "src")) in inside
