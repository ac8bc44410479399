"""The command line as a user meets it: the whole path once, and a sentence for every mistake."""

import errno
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from commands import DEMONSTRATIONS, TRIALS, interrupted, mistake, names_in, quickstudy
from quickstudy import families
from quickstudy.demonstration import Demonstration
from quickstudy.errors import QuickstudyError
from quickstudy.families.classic import PointNavigation
from quickstudy.io import checkpoint
from quickstudy.results.evidence import Cell

QUICK = DEMONSTRATIONS[3:]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "maml"
    quickstudy("train", *DEMONSTRATIONS, "--output-dir", folder)
    return folder


@pytest.fixture(scope="module")
def by_trial(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "rl2"
    quickstudy("train", *TRIALS, "--output-dir", folder)
    return folder


@pytest.fixture(params=["demonstrations", "trials"])
def either(request, run, by_trial) -> tuple[Path, list[str]]:
    """A run, and the words that made it; each test goes through both ways of learning."""
    return (run, DEMONSTRATIONS) if request.param == "demonstrations" else (by_trial, TRIALS)


def test_train_evaluate_adapt(run, capsys, tmp_path):
    assert checkpoint.exists(run / "checkpoints/best")
    assert any((run / "tensorboard").iterdir())
    quickstudy("evaluate", run, "--tasks", "6", "--episodes", "2", "--shots", "0", "1", "2")
    assert "Next: quickstudy report" in " ".join(capsys.readouterr().out.split())
    cell = Cell.read(run / "results/point-navigation-test.json")
    assert [(row.method, row.shots, row.tasks, row.episodes) for row in cell.rows] == [
        ("maml", shots, 6, 2) for shots in (0, 1, 2)
    ]
    example = next((run / "examples").iterdir())
    quickstudy("adapt", run, "--demo", example, "--output", str(tmp_path / "skill.safetensors"))
    assert "Adapted in" in capsys.readouterr().out
    skill = load_file(tmp_path / "skill.safetensors")
    assert sum(array.size for array in skill.values()) > 4000
    assert all(np.isfinite(array).all() for array in skill.values())


def test_a_run_is_not_overwritten_and_a_finished_one_resumes_to_the_same(run, capsys):
    before = {path: path.read_bytes() for path in (run / "checkpoints/best").iterdir()}
    train = ["train", *DEMONSTRATIONS, "--output-dir", run]
    assert "holds a run already" in mistake(capsys, *train)
    quickstudy(*train, "--resume")
    assert {path: path.read_bytes() for path in (run / "checkpoints/best").iterdir()} == before


def test_names_that_do_not_exist_get_the_nearest(capsys):
    assert mistake(capsys, "train", "graspin").startswith("Error: Unknown family 'graspin'. Did you mean 'grasping'?")
    said = mistake(capsys, "train", "point-navigation", "--method", "mmal")
    assert "Unknown method 'mmal'. Did you mean 'maml'? Known: anil, domain-randomisation, fomaml, hypernet" in said
    assert "Unknown family 'x'. Known: cheetah-direction" in mistake(capsys, "families", "x")


def test_an_unknown_method_is_told_before_anything_is_trained(capsys, tmp_path):
    said = mistake(capsys, "compare", "point-navigation", "--methods", "maml", "foml", "--output-dir", tmp_path / "x")
    assert "Unknown method 'foml'. Did you mean 'fomaml'?" in said
    assert "which holds 10000" in mistake(
        capsys, "compare", "point-navigation", "--tasks", "20000", "--output-dir", tmp_path / "x"
    )
    said = mistake(capsys, "compare", "point-navigation", "--methods", "warp", "--output-dir", tmp_path / "x")
    assert "Method 'warp' needs a family that says where hand, object and goal are observed" in said
    assert not (tmp_path / "x").exists()


def test_a_folder_that_is_no_run(capsys, tmp_path):
    assert "is not a run folder: it has no checkpoints/best" in mistake(capsys, "evaluate", tmp_path)
    assert "is not a run folder" in mistake(capsys, "adapt", tmp_path, "--demo", "x.npz")
    assert "no results" in mistake(capsys, "report", tmp_path)


def test_a_checkpoint_of_another_method(run, capsys):
    said = mistake(capsys, "train", "point-navigation", "--method", "anil", "--output-dir", run, "--resume", *QUICK)
    assert "holds a checkpoint of 'maml' on 'point-navigation', not of 'anil'" in said


def test_a_damaged_checkpoint(run, capsys, tmp_path):
    copy = tmp_path / "copy"
    (copy / "checkpoints/best").mkdir(parents=True)
    for path in (run / "checkpoints/best").iterdir():
        (copy / "checkpoints/best" / path.name).write_bytes(path.read_bytes()[:-200])
    assert str(copy) in mistake(capsys, "evaluate", copy)


def test_demonstrations_that_do_not_fit(run, capsys, tmp_path):
    Demonstration(np.zeros((5, 3)), np.zeros((5, 2))).save(tmp_path / "wide.npz")
    Demonstration(np.zeros((5, 2)), np.zeros((5, 4))).save(tmp_path / "acts.npz")
    np.savez(tmp_path / "nan.npz", observations=np.array([[0.0, np.nan]]), actions=np.zeros((1, 2)))
    np.savez(tmp_path / "none.npz", observations=np.zeros((0, 2)), actions=np.zeros((0, 2)))
    cases = {
        "wide": "observations are 3 wide; this learner takes 2",
        "acts": "actions are 4 wide; this learner gives 2",
        "nan": "step 0, column 1 is nan",
        "none": "at least one step; got none",
        "missing": "There is no file",
    }
    for name, sentence in cases.items():
        assert sentence in mistake(capsys, "adapt", run, "--demo", tmp_path / f"{name}.npz")
    assert not (run / "skill.safetensors").exists()


def test_zero_demonstrations(run):
    from quickstudy.evaluation import adapt
    from quickstudy.results.runs import load

    with pytest.raises(QuickstudyError, match="at least one demonstration; got none"):
        adapt(load(run)[1], [])


def test_more_tasks_than_exist(run, capsys):
    said = mistake(capsys, "evaluate", run, "--tasks", 20_000)
    assert "Asked for tasks 0 to 20000 of split 'test' of 'point-navigation', which holds 10000" in said
    assert "Unknown split of 'point-navigation' 'tset'. Did you mean 'test'?" in mistake(
        capsys, "evaluate", run, "--split", "tset"
    )


def test_an_empty_split(run, capsys, monkeypatch):
    monkeypatch.setattr(PointNavigation, "sizes", {**PointNavigation.sizes, "test": 0})
    assert "Split 'test' of 'point-navigation' is empty" in mistake(capsys, "evaluate", run)


def test_more_demonstrations_than_are_recorded(capsys, tmp_path):
    said = mistake(capsys, "train", "point-navigation", "--training.shots", "9", "--output-dir", tmp_path / "x", *QUICK)
    assert "9 support and 2 query demonstrations a task; the one with the fewest has 6" in said
    assert not (tmp_path / "x").exists()


def test_a_full_disk_loses_nothing(capsys, tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    said = mistake(capsys, "train", "point-navigation", "--output-dir", tmp_path / "x", *QUICK)
    assert "disk is full" in said
    assert not checkpoint.exists(tmp_path / "x/checkpoints/last")


# ---- alike from demonstrations and by trial


def test_a_run_folder_holds_the_same_however_it_was_learned(either):
    run, words = either
    assert names_in(run) >= {
        "run.json", "cost.json", "training-seconds.json", "tensorboard", "checkpoints/best/config.json",
        "checkpoints/best/model.safetensors", "checkpoints/last/config.json", "checkpoints/last/model.safetensors",
        "checkpoints/last/training.json", "checkpoints/last/training.safetensors",
    }  # fmt: skip
    note = json.loads((run / "run.json").read_text())
    config = checkpoint.load(run / "checkpoints/last").config
    assert note.keys() >= {"kind", "command", "started", "commit", "versions", "machine", "settings", "process", "host"}
    assert (note["kind"], note["settings"]) == ("training", config["settings"])
    assert (note["settings"]["family"], note["settings"]["method"]) == (words[0], words[2])
    assert config["step"] == config["settings"]["training"]["steps"] == config["history"][-1]["step"]
    for figures in (config["history"][-1], config["history"][-2]):
        assert any(name.startswith("train/") for name in figures)
        assert all(name.startswith(("train/", "validation/")) for name in figures.keys() - {"step"})
    assert any(name.startswith("validation/") for name in config["history"][-1])
    assert json.loads((run / "cost.json").read_text())["train_tasks"] > 0
    assert json.loads((run / "training-seconds.json").read_text()) > 0


def test_evaluate_writes_a_table_however_it_was_learned(either, capsys):
    run, words = either
    quickstudy("evaluate", run, "--tasks", 3, "--episodes", 2, "--shots", 0, 1)
    assert f"Next: quickstudy report {run}" in capsys.readouterr().out
    cell = Cell.read(run / f"results/{words[0]}-test.json")
    assert [(row.method, row.shots, row.tasks, row.episodes) for row in cell.rows] == [
        (words[2], shots, 3, 2) for shots in (0, 1)
    ]
    assert (run / "evaluations/test-3x2-shots-0-1.json").exists()
    kinds = {"maml": "demonstrations", "rl2": "trials"}
    assert {row.learns_from for row in cell.rows} == {kinds[words[2]]}
    assert "Asked for tasks 0 to 2000000000" in mistake(capsys, "evaluate", run, "--tasks", 2 * 10**9)
    assert "shots and a seed of 0 or more" in mistake(capsys, "evaluate", run, "--shots", -1)


def test_after_ctrl_c_the_printed_command_goes_on_exactly(either, capsys, tmp_path):
    whole, words = either
    run = tmp_path / "my run"
    interrupted("train", *words, "--output-dir", run)
    printed = capsys.readouterr().out
    wanted = f"quickstudy resume '{run}'"
    assert f"; {wanted} goes on from there." in printed
    config = json.loads((run / "checkpoints/last/config.json").read_text())
    assert 0 < config["step"] < config["training"]["steps"]
    quickstudy("runs", tmp_path)
    printed = capsys.readouterr().out
    assert "stopped" in printed
    assert f"Next: {wanted}" in printed
    quickstudy(*shlex.split(wanted)[1:])
    for which in ("best", "last"):
        once, again = (checkpoint.load(folder / "checkpoints" / which) for folder in (whole, run))
        assert once.tensors.keys() == again.tensors.keys()
        assert all(torch.equal(once.tensors[name], again.tensors[name]) for name in once.tensors)
        assert once.config["history"] == again.config["history"]
    assert once.training["rng"].equal(again.training["rng"])
    assert names_in(run) == {name for name in names_in(whole) if not name.startswith(("results/", "evaluations/"))}


def test_a_profile_tells_shares_steps_per_second_and_the_protocol(either, capsys):
    _, words = either
    quickstudy("profile", *words, "--outer-steps", 1)
    said = " ".join(capsys.readouterr().out.split())
    assert f"{words[2]} on {words[0]}: " in said
    assert "steps per second" in said
    parts = {"maml": ("drawing", "outer step"), "rl2": ("simulation", "policy", "update")}
    assert all(part in said for part in parts[words[2]])
    assert "at least one outer step; got 0" in mistake(capsys, "profile", *words, "--outer-steps", 0)


def test_a_learner_by_trial_takes_no_demonstrations(by_trial, capsys):
    said = mistake(capsys, "adapt", by_trial, "--demo", "x.npz")
    assert f"quickstudy evaluate {by_trial} lets it try" in said
    assert "device" not in said
    assert "learns by trial, on the processor; got 'meta'" in mistake(
        capsys, "train", *TRIALS, "--device", "meta", "--output-dir", by_trial.with_name("x")
    )


def test_methods_that_are_not_trained(capsys, tmp_path):
    assert "no step to profile" in mistake(capsys, "profile", "navigation2d", "--method", "scratch-ppo")
    assert "no step to profile" in mistake(capsys, "profile", "point-navigation", "--method", "replay")
    quickstudy("train", "point-navigation", "--method", "replay", "--output-dir", tmp_path / "replay")
    assert checkpoint.exists(tmp_path / "replay/checkpoints/best")
    quickstudy("resume", tmp_path / "replay")


def test_what_a_comparison_is_good_for(capsys, tmp_path):
    """`evaluate` and `push` want one of its runs, `train` another folder; `resume` and `report` take it as it is."""
    quickstudy("compare", "point-navigation", "--methods", "replay", "--seeds", 1, "--tasks", 2, "--shots", 1,
               "--output-dir", tmp_path / "my comparison")  # fmt: skip
    folder = tmp_path / "my comparison"
    assert f"Next: quickstudy report '{folder}'" in capsys.readouterr().out
    wanted = f"'{folder}' is a comparison; name one of the runs in it, such as '{folder}/replay-seed0'"
    for words in (["evaluate", folder], ["push", folder, tmp_path / "x"], ["adapt", folder, "--demo", "x.npz"]):
        assert wanted in mistake(capsys, *words)
    assert "holds a comparison" in mistake(capsys, "train", *DEMONSTRATIONS, "--output-dir", folder)
    quickstudy("resume", folder)
    assert f"Next: quickstudy report '{folder}'" in capsys.readouterr().out


def test_commands_of_version_0_1_say_what_they_are_called_now(capsys, tmp_path):
    old = ["--training.meta-batch", "2", "--training.lanes", "2", "--rl2.width", "8", "--policy.hidden", "8"]
    quickstudy("rl-train", "navigation2d", "--method", "rl2", *old, "--rl2.minibatches", "2", "--training.steps", "1",
               "--training.validation-tasks", "2", "--output-dir", tmp_path)  # fmt: skip
    assert "This command is now called: quickstudy train navigation2d --method rl2 " in capsys.readouterr().out
    settings = json.loads((tmp_path / "run.json").read_text())["settings"]
    assert (settings["training"]["episodes_per_task"], settings["algorithm"]["width"]) == (2, 8)
    quickstudy("rl-evaluate", tmp_path, "--tasks", "2", "--lanes", "3", "--rounds", "2")
    said = capsys.readouterr().out
    assert f"now called: quickstudy evaluate {tmp_path} --tasks 2 --episodes 3 --shots 0 1 2" in said
    rows = Cell.read(tmp_path / "results/navigation2d-test.json").rows
    assert [(row.shots, row.tasks, row.episodes) for row in rows] == [(k, 2, 3) for k in range(3)]
    quickstudy("rl-profile", "navigation2d", "--maml.inner-steps", "1", "--outer-steps", "1", *old[:4])
    said = capsys.readouterr().out
    assert "now called: quickstudy profile navigation2d --inner-steps 1 --outer-steps 1" in said
    assert "maml-trpo on navigation2d" in said


# ---- mistakes in words


@pytest.mark.parametrize(
    ("word", "hint"),
    [("trian", "Did you mean 'train'?"), ("rl-compare", "Did you mean 'compare'?"), ("q", "Known: adapt, check")],
)
def test_an_unknown_command_gets_the_nearest(capsys, word, hint):
    said = mistake(capsys, word)
    assert said.startswith(f"Error: Unknown command '{word}'. ")
    assert hint in said


def test_neither_help_nor_a_mistake_nor_the_package_waits_for_torch():
    """What takes seconds to import is imported when it is needed."""
    script = (
        "import sys, quickstudy\nfrom quickstudy.cli import main\nfor words in (['--help'], ['trian']):\n"
        "    try: main(words)\n    except SystemExit: pass\n"
        "print(sorted(sys.modules.keys() & {'torch', 'mujoco', 'matplotlib', 'jinja2'}))"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert said.stdout.splitlines()[-1] == "[]"
    assert "Unknown command 'trian'" in said.stderr


# ---- comparisons


def test_compare_ranks_methods_and_goes_on(capsys, tmp_path):
    quick = ["--seeds", "2", "--tasks", "8", "--episodes", "2", "--steps", "30", "--output-dir", str(tmp_path)]
    quick += ["--shots", "0", "1"]
    quickstudy("compare", "point-navigation", "--methods", "maml", "nearest", *quick)
    cell = Cell.read(tmp_path / "results/point-navigation-test.json")
    assert sorted((row.method, row.shots, row.seeds) for row in cell.rows) == [
        ("maml", 0, 2), ("maml", 1, 2), ("nearest", 1, 2),
    ]  # fmt: skip
    last = {row.method: row.value for row in cell.rows}
    assert last[cell.rows[0].method] == max(last.values())
    trained = (tmp_path / "maml-seed0/checkpoints/best/model.safetensors").stat().st_mtime_ns
    quickstudy("compare", "point-navigation", "--methods", "maml", "nearest", "replay", *quick)
    assert len(Cell.read(tmp_path / "results/point-navigation-test.json").rows) == 4
    assert (tmp_path / "maml-seed0/checkpoints/best/model.safetensors").stat().st_mtime_ns == trained
    quick[quick.index("30")] = "40"
    assert "results of maml with other settings" in mistake(
        capsys, "compare", "point-navigation", "--methods", "maml", *quick
    )


def test_families_are_listed_and_drawn(capsys, tmp_path):
    quickstudy("families")
    printed = capsys.readouterr().out
    assert all(name in printed for name in families.records())
    quickstudy("families", "point-navigation", "--tasks", "5", "--output", str(tmp_path / "new/sheet.png"))
    assert (tmp_path / "new/sheet.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "command",
    ["demo", "families", "check", "record", "data", "train", "evaluate", "adapt", "match", "compare", "resume", "runs"]
    + ["report", "rl-train", "rl-evaluate", "rl-profile", "push", "pull", "profile"],
)
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        quickstudy(command, "--help")
    assert stopped.value.code == 0
    assert "usage: quickstudy" in capsys.readouterr().out


def test_no_command_shows_the_commands(capsys):
    with pytest.raises(SystemExit) as stopped:
        quickstudy()
    assert stopped.value.code == 0
    assert "compare" in capsys.readouterr().out


def test_ctrl_c_keeps_a_checkpoint_that_resumes(tmp_path):
    command = [
        sys.executable, "-c", "from quickstudy.cli import main; main()", "train", "point-navigation", "--output-dir",
        str(tmp_path / "run"), "--training.steps", "5000", "--training.validate-every", "50", "--data.tasks", "20",
        "--data.validation-tasks", "2", "--training.batching", "vmap",
    ]  # fmt: skip
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300  # a busy machine imports slowly
    while not checkpoint.exists(tmp_path / "run/checkpoints/last") and time.monotonic() < deadline:
        time.sleep(0.2)
    running.send_signal(signal.SIGINT)
    printed, complaints = running.communicate(timeout=60)
    assert running.returncode == 130, complaints
    assert "goes on from there" in " ".join(printed.split())
    assert "Traceback" not in complaints
    config = json.loads((tmp_path / "run/checkpoints/last/config.json").read_text())
    assert 50 <= config["step"] < 5000


def test_a_run_is_reproduced(tmp_path, capsys, monkeypatch):
    run = tmp_path / "a run"
    monkeypatch.setattr(
        "sys.argv", ["quickstudy", "evaluate", str(run), "--tasks", "4", "--episodes", "2", "--seed", "3"]
    )
    quickstudy("train", *DEMONSTRATIONS, "--output-dir", run)
    quickstudy("evaluate", run, "--tasks", 4, "--episodes", 2, "--seed", 3)
    capsys.readouterr()
    quickstudy("reproduce", run)
    said = " ".join(capsys.readouterr().out.split())
    assert "The learner is the same, bit for bit." in said
    assert "differs" not in said
    tables = [next((folder / "results").glob("*.json")) for folder in (run, tmp_path / "a run-again")]
    one, other = (json.loads(path.read_text()) for path in tables)
    assert [row["value"] for row in one["rows"]] == [row["value"] for row in other["rows"]]
    for row in one["rows"]:
        row |= {"value": 0.5, "ci95": [0.4, 0.6]}
    tables[0].write_text(json.dumps(one))
    with pytest.raises(SystemExit) as stopped:
        quickstudy("reproduce", run, "--output-dir", tmp_path / "third")
    assert stopped.value.code == 1
    assert "differs" in capsys.readouterr().out
