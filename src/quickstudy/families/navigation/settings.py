"""Settings of methods that the navigation families need otherwise than in general."""

from collections.abc import Mapping

from quickstudy.families.shared_settings import LONG_DEMONSTRATIONS
from quickstudy.settings import Changes

# A trial has three episodes.
_MEMORY_TRAINING = {"meta_batch": 20, "episodes_per_task": 2, "validation_rounds": 2}
_BY_MEMORY: Changes = {"training": _MEMORY_TRAINING, "algorithm": {"episodes": 3, "width": 128}}

NAVIGATION: Mapping[str, Changes] = {
    "demonstrations": {
        "training": {"steps": 3000, "validate_every": 1000},
        "data": {"tasks": 1000, "demonstrations": 4, "validation_episodes": 2},
    },
    **LONG_DEMONSTRATIONS,
    # A step of simulation is expensive: fewer environments.
    "trials": {"training": {"steps": 500, "meta_batch": 10, "episodes_per_task": 8, "validation_tasks": 10}},
    "rl2": _BY_MEMORY,
    "rl2-mann": _BY_MEMORY,
    "pearl": {"training": _MEMORY_TRAINING, "algorithm": {"episodes": 3}},
    "rl2-dagger": {
        "training": {
            "steps": 150,
            "meta_batch": 20,
            "episodes_per_task": 2,
            "validate_every": 25,
            "validation_tasks": 20,
            "validation_rounds": 2,
        },
        "algorithm": {"episodes": 3, "kept": 400, "batch": 16},
    },
}
