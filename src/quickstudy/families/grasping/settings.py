"""Settings of methods that the grasping families need otherwise than in general."""

from collections.abc import Mapping

from quickstudy.families.shared_settings import MANN_ALGORITHM, META_LSTM, REPTILE, THREE_INNER_STEPS
from quickstudy.settings import Changes

TRIES = 5
"""Of a trial of `grasping-tries`."""

_COMPARING: Changes = {"training": {"steps": 600, "validate_every": 300}}

GRASPING: Mapping[str, Changes] = {
    "demonstrations": {"training": {"steps": 1500, "validate_every": 500}},
    **dict.fromkeys(("maml", "fomaml", "anil", "meta-sgd"), THREE_INNER_STEPS),
    **dict.fromkeys(("siamese", "matching", "matching-convex"), _COMPARING),
    "mann": {"algorithm": MANN_ALGORITHM, "training": {"steps": 500, "queries": 1, "most_shots": 3}},
    "reptile": REPTILE,
    "meta-lstm": META_LSTM,
    # A step of simulation is expensive: fewer environments. Nobody has tuned these.
    "trials": {"training": {"meta_batch": 10, "episodes_per_task": 8, "validation_tasks": 10}},
}

# A gradient method learns from the reward of single decisions, so the return is the reward; a Fisher matrix of every
# eighth step would see too few of them.
_BY_GRADIENT: Changes = {"algorithm": {"returns": {"gae_lambda": 1.0}, "trpo": {"fisher_every": 1}}}
_MEMORY_TRAINING = {"meta_batch": 20, "episodes_per_task": 5, "validation_rounds": TRIES - 1}
_BY_MEMORY: Changes = {
    "training": _MEMORY_TRAINING,
    "algorithm": {"episodes": TRIES, "std": 0.5, "minibatches": 4},
}

BY_TRIES: Mapping[str, Changes] = {
    "trials": {"training": {"steps": 300, "meta_batch": 10, "episodes_per_task": 20, "validation_tasks": 20}},
    **dict.fromkeys(("maml-trpo", "maml-by-return", "maml-ppo", "promp"), _BY_GRADIENT),
    "rl2": _BY_MEMORY,
    "rl2-mann": _BY_MEMORY,
    "pearl": {"training": _MEMORY_TRAINING, "algorithm": {"episodes": TRIES}},
    # As many objects as there can be: what an outcome says of an object is learned from objects, not from tries.
    # Trials are ten steps long, so learning from them costs little compared with simulating them.
    "rl2-dagger": {
        "training": {
            "steps": 100,
            "meta_batch": 50,
            "episodes_per_task": 2,
            "validate_every": 10,
            "validation_rounds": TRIES - 1,
            "lr_decay_fraction": 0.5,
        },
        "algorithm": {
            "episodes": TRIES,
            "kept": 20_000,
            "updates": 80,
            "batch": 128,
            "rate": 4e-3,
            "spread": 1.0,
            "candidates": 64,
        },
    },
}
