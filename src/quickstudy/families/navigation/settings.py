"""Settings of methods that the navigation families need otherwise than in general."""

from collections.abc import Mapping

from quickstudy.settings import Changes

_FEWER_STEPS = {"steps": 1500, "validate_every": 500}
_BY_GRADIENT: Changes = {"training": _FEWER_STEPS, "algorithm": {"inner_steps": 3}}

# A trial has three episodes.
_MEMORY_TRAINING = {"meta_batch": 20, "episodes_per_task": 2, "validation_rounds": 2}
_BY_MEMORY: Changes = {"training": _MEMORY_TRAINING, "algorithm": {"episodes": 3, "width": 128}}

NAVIGATION: Mapping[str, Changes] = {
    "demonstrations": {
        "training": {"steps": 3000, "validate_every": 1000},
        "data": {"tasks": 1000, "demonstrations": 4, "validation_episodes": 2},
    },
    "maml": _BY_GRADIENT,
    "meta-sgd": _BY_GRADIENT,
    "fomaml": {"algorithm": {"inner_steps": 3}},
    "anil": {"algorithm": {"inner_steps": 3}},
    # All pairs of a query and a support step: so many that a large meta-batch takes seconds.
    "siamese": {
        "network": {"embedding": 32},
        "algorithm": {"width": 32},
        "training": {"meta_batch": 4, "queries": 1},
    },
    "mann": {
        "algorithm": {"slots": 64, "controller": 128, "support_loss": 1.0},
        "training": {"steps": 500, "validate_every": 250, "meta_batch": 8, "queries": 1, "most_shots": 3},
    },
    "reptile": {"algorithm": {"inner_steps": 10, "batch": 50}},
    "meta-lstm": {
        "network": {"hidden": (64, 64)},
        "algorithm": {"initial_rate": 0.05},
        "training": {**_FEWER_STEPS, "meta_batch": 4},
    },
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
