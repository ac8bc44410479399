"""quickstudy: a robot learns a new skill from a few demonstrations or trials, because it has learned how to learn."""

import importlib
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

# Ctrl-C ends the command `quickstudy` quietly while modules are imported; a program that imports it is left alone.
if os.path.basename(sys.argv[0]) == "quickstudy" or sys.orig_argv[1:3] == ["-m", "quickstudy"]:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

# Threads of torch wait for each other by spinning, by default for milliseconds: on a machine that is busy with other
# things, such as simulation on its other core, that makes every step many times slower. Some microseconds cost nothing
# on an idle machine, whereas not spinning at all does. Read once, when torch is first imported.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

__version__ = "0.2.0"

_HOME = {
    "BaseLearner": "learner",
    "Batch": "data",
    "Demonstration": "demonstration",
    "DemonstrationSet": "data",
    "Evaluation": "evaluation",
    "Experiment": "experiment",
    "MetaLearner": "learner",
    "Method": "method",
    "Policy": "task",
    "QuickstudyError": "errors",
    "Skill": "learner",
    "Source": "data",
    "SupportQuery": "data",
    "Task": "task",
    "TaskFamily": "task",
    "TrainConfig": "settings",
    "Validation": "train",
    "adapt": "evaluation",
    "compare": "results.compare",
    "evaluate": "evaluation",
    "load": "robot",
    "load_skill": "robot",
    "meta_train": "train",
}
"""Where each public name lives; it is imported when it is first used, so that `import quickstudy` costs nothing."""

__all__ = list(_HOME)

if TYPE_CHECKING:
    from quickstudy.data import Batch, DemonstrationSet, Source, SupportQuery
    from quickstudy.demonstration import Demonstration
    from quickstudy.errors import QuickstudyError
    from quickstudy.evaluation import Evaluation, adapt, evaluate
    from quickstudy.experiment import Experiment
    from quickstudy.learner import BaseLearner, MetaLearner, Skill
    from quickstudy.method import Method
    from quickstudy.results.compare import compare
    from quickstudy.robot import load, load_skill
    from quickstudy.settings import TrainConfig
    from quickstudy.task import Policy, Task, TaskFamily
    from quickstudy.train import Validation, meta_train


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'quickstudy' has no attribute '{name}'")
    return getattr(importlib.import_module(f"quickstudy.{_HOME[name]}"), name)


def _register() -> None:
    """Makes the environments known to Gymnasium by name; nothing is built before it is made."""
    from quickstudy.families.gymnasium.registration import register

    register()


_register()
