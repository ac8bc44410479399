"""The command itself is killed: workers end with it, and one command goes on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from quickstudy.io import checkpoint

ray = pytest.importorskip("ray", reason="the extra 'cluster' is not installed")

STEPS = 300


def quickstudy(*words: str) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen([sys.executable, "-m", "quickstudy", *words], stdout=subprocess.PIPE, env=environment)


def until(holds, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def workers() -> list[Path]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found += [path] if path.read_text().startswith("ray::Worker") else []
        except OSError:
            continue
    return found


def test_a_killed_command_leaves_no_worker_and_is_resumed(nodes, tmp_path):
    run = tmp_path / "run"
    cluster = ("--cluster", nodes.address, "--workers", "2")
    settings = ("--training.steps", str(STEPS), "--training.validate-every", "30", "--data.validation-tasks", "4")
    training = quickstudy("train", "sinusoid", "--method", "maml", *settings, *cluster, "--output-dir", str(run))
    until(lambda: (run / "checkpoints/last").exists() or training.poll() is not None)
    training.send_signal(signal.SIGKILL)
    training.communicate()
    step = checkpoint.load(run / "checkpoints/last").config["step"]
    until(lambda: not workers())
    resumed = quickstudy("resume", str(run), *cluster)
    said = resumed.communicate()[0].decode()
    assert resumed.returncode == 0, said
    last = checkpoint.load(run / "checkpoints/last").config
    steps = [look["step"] for look in last["history"]]
    assert last["step"] == STEPS > step
    assert steps == sorted(set(steps))
    until(lambda: not workers())
