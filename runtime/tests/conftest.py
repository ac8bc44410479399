"""A grasping arm that has learned a little, for tests that need quickstudy itself beside the runtime."""

from types import SimpleNamespace

import numpy as np
import pytest


@pytest.fixture(scope="session")
def grasping(tmp_path_factory):
    """The family, a task, a demonstration of it in a file, and a bundle that was trained for some seconds."""
    family = pytest.importorskip("quickstudy.families.grasping.family", reason="quickstudy is not installed")
    export = pytest.importorskip("quickstudy.export.bundle", reason="quickstudy is not installed")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed: pip install 'quickstudy[export]'")
    from quickstudy.cli import main as quickstudy

    folder = tmp_path_factory.mktemp("grasping")
    words = "--training.steps 200 --training.validate-every 200 --data.tasks 60 --data.demonstrations 3"
    words += f" --data.validation-tasks 2 --method maml --output-dir {folder / 'run'}"
    quickstudy(["train", "grasping", *words.split()])
    made = family.Grasping(threads=1)
    task = made.task("sizes", 3)
    shown = made.demonstrate([task], 1, seed=0)[0][0]
    np.savez(folder / "demonstration.npz", observations=shown.observations, actions=shown.actions)
    bundle = export.export(folder / "run", folder / "grasping.quickstudy").path
    return SimpleNamespace(family=made, task=task, bundle=bundle, demonstration=folder / "demonstration.npz")
