"""The plug-in with the real LeRobot, in an environment of its own: QUICKSTUDY_LEROBOT=/path/to/its/python.

That environment has LeRobot, `pip install ./runtime` and `pip install ./integrations/lerobot_policy_quickstudy`.
"""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

import bundles

HERE = Path(__file__).parents[1]
PYTHON = os.environ.get("QUICKSTUDY_LEROBOT", "")


def test_lerobot_evaluates_a_bundle(tmp_path):
    if not PYTHON:
        pytest.skip("QUICKSTUDY_LEROBOT names no Python of an environment with LeRobot and this package")
    path = bundles.write(tmp_path / "small.quickstudy")
    np.savez(tmp_path / "one.npz", observations=[[0.0, 0.0, 0.5]], actions=[[0.1, 0.2]])
    done = subprocess.run(
        [PYTHON, HERE / "tests/peer.py", path, tmp_path / "one.npz", tmp_path],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["type"], found["untaught"], found["path"]) == (100.0, 0.0, 100.0)
