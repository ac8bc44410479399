"""Sharing a learner through a folder, and the Hub's part of it with a stand-in for the Hub."""

import json
import shutil
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import yaml

from commands import TRIALS, quickstudy
from quickstudy import datasets
from quickstudy.cli import main
from quickstudy.datasets import About
from quickstudy.errors import QuickstudyError
from quickstudy.io import checkpoint
from quickstudy.results import hub as sharing
from quickstudy.results import runs
from recorded import walks

QUICK = ["--training.steps", "10", "--training.validate-every", "10", "--training.batching", "vmap"]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "maml"
    quick = [*QUICK, "--data.tasks", "20", "--data.validation-tasks", "5"]
    main(["train", "point-navigation", "--output-dir", str(folder), *quick])
    main(["evaluate", str(folder), "--tasks", "4", "--episodes", "1"])
    return folder


@pytest.fixture
def pushed(run, tmp_path) -> Path:
    sharing.push(run, f"{tmp_path}/hub/walker", "apache-2.0")
    return tmp_path / "hub/walker"


def test_what_is_pushed(pushed):
    names = {str(path.relative_to(pushed)) for path in pushed.rglob("*") if path.is_file()}
    assert names == {
        "README.md", "config.json", "model.safetensors", "examples/test-0.npz", "results/point-navigation-test.json",
    }  # fmt: skip
    card = (pushed / "README.md").read_text()
    front, text = card.split("---\n")[1], card.split("---\n", 2)[2]
    said = yaml.safe_load(front)
    assert (said["license"], said["library_name"], said["pipeline_tag"]) == ("apache-2.0", "quickstudy", "robotics")
    assert "maml" in said["tags"]
    rows = json.loads((pushed / "results/point-navigation-test.json").read_text())["rows"]
    metrics = [m for one in said["model-index"][0]["results"] for m in one["metrics"]]
    assert [m["value"] for m in metrics] == [row["value"] for row in rows]
    for part in ("## Results", "## Limits", "## How to use it", "quickstudy adapt runs/walker --demo", "[step, 2]"):
        assert part in text
    assert "| maml |" in text


def test_there_and_back(run, pushed, tmp_path, capsys):
    main(["pull", str(pushed), "--output-dir", str(tmp_path / "pulled")])
    assert "quickstudy adapt" in capsys.readouterr().out
    ours, theirs = (runs.load(folder)[1].state_dict() for folder in (run, tmp_path / "pulled"))
    assert ours.keys() == theirs.keys()
    assert all((ours[name] == theirs[name]).all() for name in ours)
    main(["evaluate", str(tmp_path / "pulled"), "--tasks", "4", "--episodes", "1"])
    values = [
        [row["value"] for row in json.loads((folder / "results/point-navigation-test.json").read_text())["rows"]]
        for folder in (run, tmp_path / "pulled")
    ]
    assert values[0] == values[1]
    trained = checkpoint.load(run / "checkpoints/best").config["versions"]
    assert checkpoint.load(tmp_path / "pulled/checkpoints/best").config["versions"] == trained


def test_a_learner_by_trial_there_and_back(tmp_path, capsys):
    run, shared, pulled = tmp_path / "rl2", tmp_path / "shared", tmp_path / "pulled"
    quickstudy("train", *TRIALS, "--output-dir", run)
    quickstudy("evaluate", run, "--tasks", 2, "--episodes", 2, "--shots", 0, 1)
    quickstudy("push", run, shared)
    card = (shared / "README.md").read_text()
    assert "reinforcement-learning" in yaml.safe_load(card.split("---\n")[1])["tags"]
    assert "from its own trials and their rewards" in card
    assert "--demo" not in card
    capsys.readouterr()
    quickstudy("pull", shared, "--output-dir", pulled)
    assert f"Next: quickstudy evaluate {pulled}" in capsys.readouterr().out
    quickstudy("evaluate", pulled, "--tasks", 2, "--episodes", 2, "--shots", 0, 1)
    values = [
        [row["value"] for row in json.loads((folder / "results/navigation2d-test.json").read_text())["rows"]]
        for folder in (run, pulled)
    ]
    assert values[0] == values[1]


def test_a_learner_of_own_data_adapts_where_the_data_is_not(tmp_path, capsys):
    data, run, pulled = tmp_path / "walks.csv", tmp_path / "run", tmp_path / "pulled"
    datasets.save(data, walks(6), About(10.0))
    main(["train", str(data), "--output-dir", str(run), *QUICK])
    main(["push", str(run), str(tmp_path / "shared")])
    data.unlink()
    config = (tmp_path / "shared/config.json").read_text()
    assert str(tmp_path) not in config  # no path of the machine that it was trained on
    main(["pull", str(tmp_path / "shared"), "--output-dir", str(pulled)])
    main(["adapt", str(pulled), "--demo", str(pulled / "examples/test-0.npz")])
    assert (pulled / "skill.safetensors").exists()
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["evaluate", str(pulled)])
    assert "The tasks of 'walks' are not on this machine" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda f: (f / "model.safetensors").write_bytes(b"x"), "is damaged"),
        (lambda f: (f / "model.safetensors").unlink(), "is incomplete"),
        (lambda f: (f / "config.json").unlink(), "is not a checkpoint"),
        (lambda f: shutil.rmtree(f), "There is no folder"),
    ],
)
def test_what_is_damaged_is_not_pulled(pushed, tmp_path, damage, sentence):
    damage(pushed)
    with pytest.raises(QuickstudyError, match=sentence):
        sharing.pull(str(pushed), tmp_path / "pulled")
    assert not (tmp_path / "pulled").exists()


def test_places_that_are_taken(run, pushed, tmp_path):
    with pytest.raises(QuickstudyError, match="is there already"):
        sharing.push(run, str(pushed))
    with pytest.raises(QuickstudyError, match="is there already; name another --output-dir"):
        sharing.pull(str(pushed), tmp_path)
    with pytest.raises(QuickstudyError, match="is not a run folder"):
        sharing.push(tmp_path, f"{tmp_path}/x")
    assert not (tmp_path / "x").exists()


def test_a_repository_and_a_folder_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine/walker").mkdir(parents=True)
    assert sharing.is_repository("someone/walker-1.0")
    for place in ("./out/walker", "walker", "/tmp/walker", "a/b/c", "mine/walker", "../walker"):
        assert not sharing.is_repository(place)


def test_the_hub_gets_the_folder(run, tmp_path, monkeypatch):
    kept = tmp_path / "repository"

    class Hub:
        def create_repo(self, repository: str, exist_ok: bool) -> str:
            return f"https://hub.example/{repository}"

        def upload_folder(self, repo_id: str, folder_path: Path, commit_message: str) -> None:
            shutil.copytree(folder_path, kept)

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda repository, allow_patterns: str(kept))
    assert sharing.push(run, "someone/walker") == "https://hub.example/someone/walker"
    assert "quickstudy pull someone/walker" in (kept / "README.md").read_text()
    pulled = sharing.pull("someone/walker", tmp_path / "pulled")
    assert np.isfinite(sum(float(t.sum()) for t in runs.load(pulled)[1].state_dict().values()))


def test_a_hub_out_of_reach(run, tmp_path, monkeypatch):
    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", unreachable)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(QuickstudyError, match=r"Could not push to 'someone/walker'.*no route to host.*'hf auth login'"):
        sharing.push(run, "someone/walker")
    with pytest.raises(QuickstudyError, match="Could not pull from 'someone/walker'"):
        sharing.pull("someone/walker", tmp_path / "pulled")
    assert not (tmp_path / "pulled").exists()


@pytest.mark.parametrize("what", ["examples/more.npz", "README.md", "model.safetensors"])
@pytest.mark.parametrize("place", ["/dev/zero", "/etc/hostname"])
def test_nothing_outside_of_the_folder_is_pulled(run, tmp_path, what, place):
    sharing.push(run, str(tmp_path / "learner"))
    path = tmp_path / "learner" / what
    path.unlink(missing_ok=True)
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(place)
    with pytest.raises(QuickstudyError, match="is no file of that folder, and is not copied"):
        sharing.pull(str(tmp_path / "learner"), tmp_path / "pulled")
    assert not (tmp_path / "pulled").exists()
