"""Settings of methods that several simulated families need alike, otherwise than in general."""

from quickstudy.settings import Changes

THREE_INNER_STEPS: Changes = {"algorithm": {"inner_steps": 3}}
REPTILE: Changes = {"algorithm": {"inner_steps": 10, "batch": 50}}
META_LSTM: Changes = {
    "network": {"hidden": (64, 64)},
    "algorithm": {"initial_rate": 0.05},
    "training": {"steps": 1500, "validate_every": 500, "meta_batch": 4},
}
MANN_ALGORITHM = {"slots": 64, "controller": 128, "support_loss": 1.0}

_FEWER_STEPS: Changes = {**THREE_INNER_STEPS, "training": {"steps": 1500, "validate_every": 500}}
LONG_DEMONSTRATIONS: Changes = {
    **dict.fromkeys(("maml", "meta-sgd"), _FEWER_STEPS),
    **dict.fromkeys(("fomaml", "anil"), THREE_INNER_STEPS),
    # All pairs of a query and a support step: so many that a large meta-batch takes seconds.
    "siamese": {
        "network": {"embedding": 32},
        "algorithm": {"width": 32},
        "training": {"meta_batch": 4, "queries": 1},
    },
    "mann": {
        "algorithm": MANN_ALGORITHM,
        "training": {"steps": 500, "validate_every": 250, "meta_batch": 8, "queries": 1, "most_shots": 3},
    },
    "reptile": REPTILE,
    "meta-lstm": META_LSTM,
}
