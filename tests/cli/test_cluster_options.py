"""Without --cluster, Ray is not imported; with it and without Ray, a sentence says what to install."""

import subprocess
import sys

import pytest

from quickstudy.cli.learning import machines
from quickstudy.errors import QuickstudyError

TRAIN = """
import sys
from quickstudy.cli import main
sys.argv = ["quickstudy", "train", "sinusoid", "--method", "maml", "--training.steps", "2", "--output-dir", sys.argv[1]]
main()
assert not [name for name in sys.modules if name.partition(".")[0] == "ray"], "Ray was imported"
assert not [name for name in sys.modules if name.startswith("quickstudy.cluster")], "the cluster was imported"
"""


def test_a_training_in_one_process_imports_no_ray(tmp_path):
    done = subprocess.run([sys.executable, "-c", TRAIN, str(tmp_path / "run")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_without_ray_a_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    for name in [name for name in sys.modules if name.startswith("quickstudy.cluster")]:
        monkeypatch.delitem(sys.modules, name)
    with (
        pytest.raises(QuickstudyError, match=r"^--cluster needs Ray: pip install 'quickstudy\[cluster\]'"),
        machines("auto", None, 300.0, "cpu"),
    ):
        pass


@pytest.mark.parametrize(("workers", "patience"), [(0, 300.0), (None, 0.0), (None, -1.0)])
def test_a_number_that_makes_no_sense_is_told_before_anything_starts(workers, patience):
    pytest.importorskip("ray")
    with pytest.raises(QuickstudyError, match="must be"), machines("auto", workers, patience, "cpu"):
        pass
