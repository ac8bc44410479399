"""quickstudy: a robot learns a new skill from a few demonstrations, because it has learned how to learn."""

import os

# Threads of torch wait for each other by spinning, by default for milliseconds: on a machine that is busy with other
# things, such as simulation on its other core, that makes every step many times slower. Some microseconds cost nothing
# on an idle machine, whereas not spinning at all does. Read once, when torch is first imported.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

from quickstudy.data import Batch, DemonstrationSet, Source, SupportQuery
from quickstudy.demonstration import Demonstration
from quickstudy.errors import QuickstudyError
from quickstudy.evaluate import Evaluation, adapt, evaluate
from quickstudy.families.gymnasium import registration as environments
from quickstudy.learner import BaseLearner, MetaLearner, Skill
from quickstudy.task import Policy, Task, TaskFamily
from quickstudy.train import TrainConfig, Validation, meta_train

environments.register()

__version__ = "0.1.0"
__all__ = [
    "BaseLearner",
    "Batch",
    "Demonstration",
    "DemonstrationSet",
    "Evaluation",
    "MetaLearner",
    "Policy",
    "QuickstudyError",
    "Skill",
    "Source",
    "SupportQuery",
    "Task",
    "TaskFamily",
    "TrainConfig",
    "Validation",
    "adapt",
    "evaluate",
    "meta_train",
]
