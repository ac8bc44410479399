"""A run on a user's own data: what is adapted to is told, nothing that is not finite is written, names decide."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from commands import mistake, quickstudy
from linear import QUICK, demonstration, training_csv, write_csv
from quickstudy import adapt
from quickstudy.demonstration import Demonstration
from quickstudy.errors import QuickstudyError
from quickstudy.evaluation import SkillPolicy
from quickstudy.io import checkpoint
from quickstudy.learner import MetaLearner
from quickstudy.methods.demonstrations.maml import MAML
from quickstudy.results import runs
from quickstudy.results.adaptation import adapt_run, imitation_error, save_skill
from quickstudy.results.evidence import Cell
from quickstudy.settings import ReadingConfig


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A run on a table of own data at 10 Hz, its folder named with blanks; the data stays."""
    home = tmp_path_factory.mktemp("own")
    training_csv(home / "train.csv", rate=10.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        quickstudy("train", "train.csv", "--method", "maml", *QUICK, "--output-dir", "runs/mit Leerzeichen ü")
        quickstudy("evaluate", "runs/mit Leerzeichen ü")
    return home


@pytest.fixture
def run(home, tmp_path) -> Path:
    """A copy of the run alone, far from its data."""
    shutil.copytree(home / "runs/mit Leerzeichen ü", tmp_path / "run")
    return tmp_path / "run"


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().out.split())


def far(kind: str) -> Demonstration:
    one = demonstration(20, 5, z=0.6 if kind == "z" else 0.5)
    factor = {"degrees": 180 / np.pi, "actions": 50.0}.get(kind, 1.0)
    return Demonstration(one.observations * (factor if kind == "degrees" else 1.0), one.actions * factor)


@pytest.mark.parametrize(("kind", "channel"), [("z", "z"), ("degrees", "[xyz]"), ("actions", "u")])
def test_what_lies_far_outside_of_training_makes_no_skill(run, tmp_path, capsys, kind, channel):
    path = write_csv(tmp_path / "one.csv", [("t20", far(kind))])
    sentence = mistake(capsys, "adapt", run, "--demo", path)
    assert re.search(rf"too far outside of training to adapt to: channel {channel} is [\d.e+]+ deviations", sentence)
    assert not (run / "skill.safetensors").exists()


def test_an_ordinary_demonstration_is_adapted_to_and_judged(run, tmp_path, capsys):
    path = write_csv(tmp_path / "one.csv", [("t20", demonstration(20, 5))])
    quickstudy("adapt", run, "--demo", path)
    printed = said(capsys)
    assert "Within training; the farthest channel" in printed
    assert re.search(r"error is [\d.]+ adapted and [\d.]+ without: adapting (surely|probably) helps", printed)
    assert (run / "skill.safetensors").is_file()
    found = adapt_run(run, [path], tmp_path / "other.safetensors")
    assert found.unseen.shape == (4, 2)
    assert found.after < found.before
    _, learner = runs.load(run, adapting=True)
    policy = SkillPolicy(learner, {n: p[None] for n, p in adapt(learner, [demonstration(20, 5)]).items()})
    acted = policy(demonstration(20, 5).observations[None])[0]
    assert np.square(acted - demonstration(20, 5).actions).mean() == pytest.approx(found.after, rel=1e-4)


def test_a_skill_that_does_not_help_is_told(run, tmp_path):
    one = demonstration(20, 5)
    noise = np.random.default_rng(3).normal(size=one.actions.shape)
    path = write_csv(tmp_path / "noise.csv", [("t20", Demonstration(one.observations, noise))])
    assert "adapting is no better than not to, so do not rely on this skill" in adapt_run(run, [path], None).verdict
    short = write_csv(tmp_path / "short.csv", [("t20", demonstration(20, 5, steps=5))])
    assert "too short to tell" in adapt_run(run, [short], None).verdict


def test_a_skill_or_an_error_that_is_not_finite_is_no_result(run, tmp_path, capsys, monkeypatch):
    path = write_csv(tmp_path / "one.csv", [("t20", demonstration(20, 5))])
    bad = {"w": torch.tensor([1.0, float("nan")])}
    with pytest.raises(QuickstudyError, match=r"the skill's '.*w.*' holds a number that is not finite"):
        save_skill(bad, tmp_path / "bad.safetensors", {})
    assert not (tmp_path / "bad.safetensors").exists()
    whole = MAML.adapt
    monkeypatch.setattr(MAML, "adapt", lambda *a, **k: {n: p * torch.inf for n, p in whole(*a, **k).items()})
    sentence = mistake(capsys, "adapt", run, "--demo", path)
    assert re.search(r"No skill came of the demonstration: \d+ of its \d+ numbers are not finite", sentence)
    assert not (run / "skill.safetensors").exists()


def test_channels_are_taken_by_name(run, tmp_path, capsys):
    one = demonstration(20, 5)
    plain = adapt_run(run, [write_csv(tmp_path / "one.csv", [("t", one)])], tmp_path / "a.safetensors")
    turned = adapt_run(
        run, [write_csv(tmp_path / "other.csv", [("t", one)], order=(2, 3, 0, 1))], tmp_path / "b.safetensors"
    )
    assert turned.after == plain.after
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    names = ("observation.x", "observation.height", "observation.z", "action.u")
    assert "lacks the observation channel 'y'; it has x, height, z" in mistake(
        capsys, "adapt", run, "--demo", write_csv(tmp_path / "lacks.csv", [("t", one)], names)
    )


def test_the_order_of_a_file_that_was_changed_after_training_changes_no_figure(home, run, monkeypatch):
    monkeypatch.chdir(home)
    before = (home / "train.csv").read_bytes()
    figures = [row.value for row in Cell.read(run / "results/train-test.json").rows]
    training_csv(home / "train.csv", rate=10.0, order=(2, 3, 1, 0))
    try:
        quickstudy("evaluate", run)
    finally:
        (home / "train.csv").write_bytes(before)
    assert [row.value for row in Cell.read(run / "results/train-test.json").rows] == figures


def test_a_run_works_from_any_folder_and_without_its_data(home, run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    settings = json.loads((run / "run.json").read_text())["settings"]
    assert settings["family"] == str(home / "train.csv"), "paths are kept from the root"
    quickstudy("evaluate", run, "--tasks", 2)
    path = write_csv(tmp_path / "one.csv", [("t20", demonstration(20, 5))])
    with pytest.MonkeyPatch.context() as gone:
        gone.setattr(Path, "exists", lambda self: self != home / "train.csv" and self.is_dir() | self.is_file())
        quickstudy("adapt", run, "--demo", path)
        capsys.readouterr()
        sentence = mistake(capsys, "evaluate", run)
        assert f"The data '{home / 'train.csv'}' is gone: its learner can adapt" in sentence
        quickstudy("push", run, "./shared")
    card = Path("shared/README.md").read_text()
    assert "### train-test" in card
    assert "runs/shared/examples/test-0.npz" in card
    assert str(home) not in card + Path("shared/config.json").read_text(), "no path of this machine"
    quickstudy("pull", "./shared", "--output-dir", "pulled")
    quickstudy("adapt", "pulled", "--demo", path)
    assert Path("pulled/skill.safetensors").is_file()


def test_how_data_is_read_is_kept_and_used_for_new_demonstrations(tmp_path, capsys):
    training_csv(tmp_path / "train.csv", rate=10.0)
    run = tmp_path / "run"
    quickstudy("train", tmp_path / "train.csv", "--method", "maml", *QUICK, "--rate", 20, "--output-dir", run)
    experiment, learner = runs.load(run)
    assert experiment.settings.reading == ReadingConfig(rate=20.0)
    assert (experiment.family.rate, experiment.family.horizon) == (20.0, 39)
    path = write_csv(tmp_path / "one.csv", [("t20", demonstration(20, 5))], rate=10.0)
    found = adapt_run(run, [path], None)
    assert np.isfinite([found.before, found.after]).all()
    quickstudy("evaluate", run)
    quickstudy("resume", run)
    assert "is finished: 20 of 20 steps" in said(capsys)
    assert "was trained with other settings: reading.rate (20.0)" in mistake(
        capsys, "train", tmp_path / "train.csv", "--method", "maml", *QUICK, "--resume", "--output-dir", run
    )
    assert "rate must be" in mistake(capsys, "train", tmp_path / "train.csv", "--rate", "fast")
    assert imitation_error(learner, learner.begin(), [demonstration(0, 0)], experiment.family) > 0


def test_the_next_command_can_be_pasted(home, capsys, monkeypatch):
    monkeypatch.chdir(home)
    quickstudy("resume", "runs/mit Leerzeichen ü")
    assert "Next: quickstudy evaluate 'runs/mit Leerzeichen ü'" in said(capsys)


def test_one_task_far_outside_is_named_and_the_others_have_their_figures(home, run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(home)
    before = (home / "train.csv").read_bytes()
    experiment, _ = runs.load(run)
    label = experiment.family.tasks("test", 1)[0].parameters["label"]
    spoilt = []
    for line in (home / "train.csv").read_text().splitlines():
        cells = line.split(",")
        if cells[1] == label:
            cells[5] = "0.6"
        spoilt.append(",".join(cells))
    (home / "train.csv").write_text("\n".join(spoilt) + "\n")
    try:
        quickstudy("evaluate", run)
    finally:
        (home / "train.csv").write_bytes(before)
    printed = said(capsys)
    left_out = re.search(r"1 of 2 tasks left out: train/test/0 \(channel z is [\d.]+ deviations", printed)
    assert left_out, printed
    cell = Cell.read(run / "results/train-test.json")
    assert all("1 of 2 tasks left out" in row.note and row.tasks == 1 for row in cell.rows)
    assert all(np.isfinite(row.value) for row in cell.rows)
    for path in [*(run / "evaluations").glob("*.json"), *(run / "results").glob("*.json")]:
        json.loads(path.read_text(), parse_constant=pytest.fail)


def test_memory_levels_off_over_many_inner_loops(run):
    def megabytes() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

    _, learner = runs.load(run, adapting=True)
    seen = []
    for i in range(301):
        adapt(learner, [demonstration(20, 5)])
        if i in (100, 300):
            seen.append(megabytes())
    assert seen[1] - seen[0] < 5


def test_a_run_folder_that_moves_and_one_of_half_precision(run, tmp_path):
    moved = shutil.copytree(run, tmp_path / "Übung 1")
    assert isinstance(runs.load(moved, adapting=True)[1], MetaLearner)
    found = checkpoint.load(moved / "checkpoints/best")
    half = {n: t.half() if t.dtype == torch.float32 else t for n, t in found.tensors.items()}
    checkpoint.save(moved / "checkpoints/best", half, found.config)
    _, learner = runs.load(moved, adapting=True)
    assert {p.dtype for p in learner.parameters()} == {torch.float32}
    model = moved / "checkpoints/best/model.safetensors"
    model.write_bytes(model.read_bytes()[:-100])
    with pytest.raises(QuickstudyError, match="is damaged"):
        runs.load(moved, adapting=True)
