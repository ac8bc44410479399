"""Ctrl-C while a command starts: whatever it is importing, it ends without a word."""

import os
import signal
import subprocess
import sys
import time

import pytest

COMMANDS = (
    ("families",),
    ("train", "point-navigation", "--training.steps", "100000", "--output-dir", "RUN"),
    ("record", "point-navigation", "--output", "RUN/x.npz"),
    ("runs",),
)
BEGUN = "import os, sys; os.environ.pop('PYTHONPATH'); sys.stdout.write('begun'); sys.stdout.flush()"
"""What Python does last before it looks for the command."""


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
@pytest.mark.parametrize("seconds", [0.1, 0.25, 0.6, 1.5, 3.0])
def test_ctrl_c_at_start_up_is_quiet(tmp_path, words, seconds):
    given = [word.replace("RUN", str(tmp_path / "run")) for word in words]
    (tmp_path / "sitecustomize.py").write_text(BEGUN)
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    running = subprocess.Popen(
        [sys.executable, "-m", "quickstudy", *given], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path},
    )  # fmt: skip
    assert running.stdout.read(5) == b"begun"
    time.sleep(seconds)
    running.send_signal(signal.SIGINT)
    said = b"".join(running.communicate(timeout=60))
    assert b"Traceback" not in said, said.decode()
    assert b"KeyboardInterrupt" not in said, said.decode()
    assert running.returncode in (0, 130, -signal.SIGINT), said.decode()
