"""Names of older versions, which runs and checkpoints still hold: the one table that translates them.

Until version 0.1 learning by trial was a product of its own, with families and methods under names that those by
demonstration had too, and a run kept the settings of all methods, one group each.
"""

from collections.abc import Mapping
from typing import Any

_FIELDS = {
    "lanes": "episodes_per_task",
    "settle": "lr_decay_fraction",
    "trace": "gae_lambda",
    "views": "num_augmentations",
    "matchings": "sinkhorn_iterations",
}

_TRIAL_METHODS = {
    "meta-lstm": "meta-lstm-ppo",
    "scratch": "scratch-ppo",
    "transfer": "transfer-ppo",
    "oracle": "oracle-ppo",
}

_TRIAL_FAMILIES = {
    "grasping": "grasping-tries",
    "ml1-reach": "ml1-reach-fixed-start",
    "ml1-push": "ml1-push-fixed-start",
    "ml1-pick-place": "ml1-pick-place-fixed-start",
    "ml10": "ml10-fixed-start",
}

_GROUPS = {
    "maml": "maml", "fomaml": "maml", "anil": "maml", "meta-sgd": "maml", "reptile": "reptile",
    "meta-lstm": "meta_lstm", "mann": "mann", "mann-raw": "mann", "siamese": "siamese", "matching": "matching",
    "matching-fce": "matching", "matching-convex": "matching", "matching-frames": "frames",
    "prototypical": "prototypical", "hypernet": "hypernet", "hypernet-roles": "roles",
    "transfer": "fine_tune", "scratch": "fine_tune",
}  # fmt: skip

_TRIAL_GROUPS = {
    "maml-trpo": "maml", "maml-by-return": "maml", "maml-ppo": "maml", "promp": "maml", "reptile-ppo": "reptile",
    "rl2": "rl2", "rl2-mann": "rl2", "rl2-dagger": "dagger", "pearl": "pearl", "meta-lstm": "meta_lstm",
    "matched": "matched", "scratch": "opponents", "transfer": "opponents", "domain-randomisation": "opponents",
    "oracle": "opponents",
}  # fmt: skip


def migrated(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of any version, as plain data, under the names of this one."""
    if "algorithm" in plain or not {"family", "method"} <= plain.keys():
        return dict(plain)
    by_trial, old = "policy" in plain, renamed(plain)
    method, family = old["method"], old["family"]
    group = (_TRIAL_GROUPS if by_trial else _GROUPS).get(method, "")
    own = dict(old.get(group, {}))
    if method == "hypernet-roles":
        own["hypernet"] = old.get("hypernet", {})
    return {
        "family": _TRIAL_FAMILIES.get(family, family) if by_trial else family,
        "method": _TRIAL_METHODS.get(method, method) if by_trial else method,
        "seed": old.get("seed", 0),
        "start": old.get("start", ""),
        "network": old.get("policy" if by_trial else "network", {}),
        "algorithm": {name: value for name, value in own.items() if name not in _GONE},
        "training": old.get("training", {}),
        **({} if by_trial else {"data": old.get("data", {})}),
    }


_GONE = frozenset({"vote", "checkpoint"})
"""Settings of methods that nothing ever set otherwise than by default, and that no longer exist."""


def renamed(plain: Any) -> Any:
    """The same tree with today's names of fields."""
    if isinstance(plain, Mapping):
        return {_FIELDS.get(name, name): renamed(value) for name, value in plain.items()}
    return plain


_COMMANDS = {"rl-train": "train", "rl-evaluate": "evaluate", "rl-profile": "profile"}


def today(arguments: list[str]) -> list[str]:
    """A command of learning by trial of version 0.1 in today's words; one that there never was stays as it is."""
    if arguments[0] not in _COMMANDS:
        return arguments
    made, method = [_COMMANDS[arguments[0]]], ""
    rest = iter(arguments[1:])
    groups = {f"--{group.replace('_', '-')}." for group in set(_TRIAL_GROUPS.values())}
    for word in rest:
        name, equals, value = word.replace("_", "-").partition("=") if word.startswith("--") else (word, "", "")
        value = word.partition("=")[2]
        if name == "--rounds":
            made += ["--shots", *map(str, range(int(value or next(rest, "3")) + 1))]
            continue
        if name == "--method":
            method = value or next(rest, "")
            made += [name, _TRIAL_METHODS.get(method, method)]
            continue
        if not name.startswith("--"):
            made.append(_TRIAL_FAMILIES.get(name, name) if made[0] != "evaluate" else word)
            continue
        for old, new in {"lanes": "episodes-per-task", "settle": "lr-decay-fraction", "trace": "gae-lambda"}.items():
            name = name.replace(f".{old}", f".{new}")
        name = {"--lanes": "--episodes"}.get(name, name).replace("--policy.", "--network.")
        name = next((f"--{name.removeprefix(group)}" for group in groups if name.startswith(group)), name)
        made.append(f"{name}{equals}{value}")
    if made[0] != "evaluate" and not method:
        made += ["--method", "maml-trpo"]
    return made
