"""Run folders: where a training's checkpoints, figures and report lie, and how to get its learner back."""

from dataclasses import replace
from datetime import datetime
from pathlib import Path

from quickstudy import checkpoint, families
from quickstudy.errors import QuickstudyError, unknown
from quickstudy.learner import MetaLearner
from quickstudy.methods import METHODS, Settings, build, from_plain
from quickstudy.task import TaskFamily


def new_folder(root: Path, family: str, method: str) -> Path:
    """`root/<family>-<method>/<time>`, not yet there."""
    return root / f"{family}-{method}" / datetime.now().strftime("%Y-%m-%d-%H%M%S")


def load(run: Path, which: str = "best") -> tuple[Settings, TaskFamily, MetaLearner]:
    """The settings, family and trained learner of a run folder.

    Args:
        which: 'best' on validation tasks, or 'last'.

    Raises:
        QuickstudyError: not a run folder, a damaged checkpoint, or one that does not fit its own settings.
    """
    where = Path(run) / "checkpoints" / which
    if not where.is_dir():
        raise QuickstudyError(
            f"'{run}' is not a run folder: it has no checkpoints/{which}. 'quickstudy train' makes one and says where."
        )
    saved = checkpoint.load(where)
    plain = saved.config.get("settings")
    if not isinstance(plain, dict):
        raise QuickstudyError(f"'{where}/config.json' does not say with which settings it was trained.")
    settings = from_plain(Settings, plain, f"{where}/config.json")
    if settings.method not in METHODS:
        raise unknown(f"method in '{where}/config.json'", settings.method, METHODS)
    family = families.get(settings.family)
    learner = build(settings, family)
    checkpoint.load_into(learner, saved.tensors, str(where))
    return settings, family, learner.eval()


def expect(settings: Settings, run: Path, method: str) -> None:
    """Raises QuickstudyError where a run is of another method than the one asked for."""
    if settings.method != method:
        raise QuickstudyError(f"'{run}' holds a checkpoint of '{settings.method}', not of '{method}'.")


def with_seed(settings: Settings, seed: int) -> Settings:
    """The same settings with another seed."""
    return replace(settings, seed=seed)
