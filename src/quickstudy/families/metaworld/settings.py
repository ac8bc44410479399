"""What methods need otherwise on Meta-World than the general defaults."""

from collections.abc import Sequence

from quickstudy.families.shared_settings import LONG_DEMONSTRATIONS, THREE_INNER_STEPS
from quickstudy.settings import Changes

_DEMONSTRATIONS: Changes = {
    "demonstrations": {"training": {"validate_every": 1000}},
    **dict.fromkeys(("maml", "fomaml", "anil", "meta-sgd"), THREE_INNER_STEPS),
}

# Several of Meta-World's tasks: demonstrations are long, and each step of training goes through them.
_SEVERAL: Changes = {
    "demonstrations": {
        "training": {"validate_every": 1000},
        "data": {"tasks": 1000, "demonstrations": 4, "validation_tasks": 50},
    },
    **LONG_DEMONSTRATIONS,
    "matching-frames": {"training": {"steps": 500, "validate_every": 100, "rate": 3e-3, "most_shots": 2}},
}


def method_settings(tasks: Sequence[str], scrambled: bool = False) -> tuple[str, Changes]:
    """The default method of a family with these of Meta-World's tasks, and its settings."""
    reaching = list(tasks) == ["reach-v3"]
    if len(tasks) > 1:
        return "matching-frames", {**_SEVERAL, **by_trial(reaching)}
    return "hypernet-roles" if scrambled else "hypernet", {**_DEMONSTRATIONS, **by_trial(reaching)}


def by_trial(reaching: bool) -> Changes:
    """The published budget of an update: 20 tasks with 10 episodes each, which a learner with a memory goes through.

    The width is that of Finn et al. 2017. `rl2-dagger` has what fits into two million steps, in trials of two episodes.
    Reaching takes four: its goal is known after one, and a memory that never had to keep it for longer lost it again.
    """
    episodes, decay = (4, 0.5) if reaching else (2, 0.0)
    by_memory = {
        "training": {"meta_batch": 20, "episodes_per_task": 2, "validation_rounds": 9},
        "algorithm": {"episodes": 10},
    }
    return {
        "trials": {
            "network": {"hidden": (100, 100)},
            "training": {"steps": 300, "meta_batch": 20, "episodes_per_task": 10, "validation_tasks": 10},
        },
        "rl2": by_memory,
        "rl2-mann": by_memory,
        "rl2-dagger": {
            "training": {
                "steps": 400 // episodes,
                "meta_batch": 25,
                "episodes_per_task": 1,
                "validate_every": 25,
                "validation_tasks": 25,
                "lr_decay_fraction": decay,
            },
            "algorithm": {"episodes": episodes, "kept": 2000, "updates": 100, "batch": 32, "spread": 1.0},
        },
        "pearl": {"training": {"meta_batch": 20, "episodes_per_task": 2}, "algorithm": {"kept": 100}},
    }
