"""Pins down what a change of the code must not change: digests, bit for bit, of short trainings and their evaluations.

`python tools/digests.py write FILE.json` runs every case and stores its digests; `python tools/digests.py compare
FILE.json` runs them again and says which part of which case moved (exit status 1). `--only TEXT ...` chooses the cases
whose names contain one of the texts. A case that cannot run, as its data or a package is missing, is skipped.

Parts of a case of training: 'weights' and 'optimiser' of its last checkpoint, 'evaluation/...': each metric on held-out
tasks, 'actions': what the learner did there. Parts of a family: 'hidden', 'demonstrations', 'episodes/...': what became
of a fixed policy, 'observed': what that policy saw. A part that the file does not have moves nothing.

Omniglot and recorded motions are found where QUICKSTUDY_CACHE and QUICKSTUDY_MOTIONS say. Digests hold for one kind of
processor and one set of versions: write them and compare them on the same machine.
"""

import argparse
import hashlib
import json
import os
import platform
import random
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import gymnasium
import numpy as np
import torch

Changes = Mapping[str, Mapping[str, Any]]
"""Settings that differ from the defaults, by group; a value may be a `Most`."""


@dataclass(frozen=True)
class Most:
    """The default, but at most this."""

    number: int


class Skipped(Exception):  # noqa: N818, it is no error
    """A case that cannot run here, and why."""


@dataclass(frozen=True)
class Outcome:
    """What a short training left.

    Attributes:
        weights: the learner's state.
        optimiser: the nested state of its optimiser and of what else it remembers; None where there is none.
        metrics: of the evaluation.
        actions: of the learner in the evaluation, one array a step.
    """

    weights: Mapping[str, torch.Tensor]
    optimiser: Any
    metrics: Mapping[str, np.ndarray]
    actions: Sequence[np.ndarray]


@dataclass(frozen=True)
class Shown:
    """What a family showed of some tasks.

    Attributes:
        hidden: what a demonstration reveals and an observation does not, one array a task.
        demonstrations: observations and actions of each.
        metrics: of a policy's episodes.
        observed: by that policy, one array a step.
    """

    hidden: Sequence[np.ndarray]
    demonstrations: Sequence[np.ndarray]
    metrics: Mapping[str, np.ndarray]
    observed: Sequence[np.ndarray]


# ---- adapter: the only part that knows the names of quickstudy


NEED_DATA = ("omniglot", "motions")
"""Beginnings of the names of families whose data may be missing."""


def changed(settings: Any, changes: Changes) -> Any:
    """Settings with some parts' fields replaced."""
    for part, fields in changes.items():
        then = getattr(settings, part)
        values = {k: min(getattr(then, k), v.number) if isinstance(v, Most) else v for k, v in fields.items()}
        settings = replace(settings, **{part: replace(then, **values)})
    return settings


def family_of(name: str | Path) -> Any:
    """A family by its name, by the file of its data, or 'cart': that of `Cart`."""
    from quickstudy import QuickstudyError, families

    if name == "cart":
        masses = {"validation": {"mass": (1.5, 1.6)}, "test": {"mass": (1.6, 2.0)}}
        varies: dict[str, Any] = {"mark": (-1.0, 1.0), "mass": (1.0, 1.5)}
        return families.from_gymnasium(Cart, varies, {"train": {}, **masses}, expert=Cart.expert, horizon=60, name=name)
    try:
        return families.get(str(name))
    except QuickstudyError as error:
        if not str(name).startswith(NEED_DATA):
            raise
        raise Skipped(str(error)) from error


def experiment_of(name: str | Path, method: str | None, changes: Changes) -> Any:
    """A family learned by a method, or by its own one where None, with changed settings."""
    from quickstudy import Experiment

    made = Experiment.of(family_of(name), method)
    return replace(made, settings=changed(made.settings, changes))


def left_in(folder: Path, *state: str) -> tuple[Mapping[str, torch.Tensor], Any]:
    """The weights of a run folder's last checkpoint, or of its best one alone, and a part of its training state."""
    from quickstudy.io import checkpoint

    last = folder / "checkpoints/last"
    saved = checkpoint.load(last if checkpoint.exists(last) else folder / "checkpoints/best")
    found = saved.training
    for name in state:
        found = None if found is None else found.get(name)
    return saved.tensors, found


def demonstration_case(
    name: str | Path,
    method: str | None,
    changes: Changes,
    shots: Sequence[int],
    tasks: int,
    episodes: int,
    folder: Path,
) -> Outcome:
    """Learning from demonstrations by a method, or by the family's own one where None, and its evaluation."""
    actions: list[np.ndarray] = []
    experiment = experiment_of(name, method, changes)
    learner = experiment.train(folder)
    run = experiment.family.run
    experiment.family.run = lambda tasks, episodes, policy, seed: run(
        tasks, episodes, kept(policy, given=actions), seed
    )
    result = experiment.evaluate(learner, shots=shots, tasks=tasks, episodes=episodes, seed=0)
    weights, optimiser = left_in(folder, "steps", "optimiser")
    return Outcome(weights, optimiser, result.metrics, actions)


def trial_case(
    name: str, method: str, changes: Changes, rounds: int, tasks: int, episodes: int, folder: Path
) -> Outcome:
    """Learning by trial and its evaluation."""
    actions: list[np.ndarray] = []
    experiment = experiment_of(name, method, changes)
    learner = experiment.train(folder)
    make = experiment.family.vector_env

    def vector_env(tasks: Sequence[Any], episodes_per_task: int) -> Any:
        made = make(tasks, episodes_per_task)
        made.step = kept(made.step, seen=actions)
        return made

    experiment.family.vector_env = vector_env
    result = experiment.evaluate(learner, shots=range(rounds + 1), tasks=tasks, episodes=episodes, seed=0)
    weights, optimiser = left_in(folder, "steps", "learner")
    return Outcome(weights, optimiser or None, result.metrics, actions)


def family_case(
    name: str | Path, split: str | None, tasks: int, count: int, policy: Callable[[int], Callable]
) -> Shown:
    """What a family's test tasks are, show, and make of a policy.

    Args:
        split: the first to test on where None.
        policy: gives the policy for a width of actions.
    """
    family = family_of(name)
    observed: list[np.ndarray] = []
    chosen = family.tasks(split or family.test_splits[0], tasks)
    shown = [d for some in family.demonstrate(chosen, count, seed=0) for d in some]
    metrics = family.run(chosen, count, kept(policy(family.action_size), seen=observed), seed=0)
    hidden = [family.hidden(task) for task in chosen]
    return Shown(hidden, [array for d in shown for array in (d.observations, d.actions)], metrics, observed)


def versions() -> dict[str, str]:
    """What digests depend on beside the code."""
    import mujoco

    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": torch.__version__,
        "mujoco": mujoco.__version__,
        "gymnasium": gymnasium.__version__,
        "processor": f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}",
    }


# ---- data and environment of a user's own


class Cart(gymnasium.Env):
    """Parks at a mark that it does not see."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-2.0, 2.0, (1,), np.float32)

    def __init__(self, mark: float, mass: float) -> None:
        self.mark, self.mass = mark, mass

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.state = self.np_random.uniform([-1.0, -0.1], [1.0, 0.1])
        return self.state.astype("f4"), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        speed = self.state[1] + 0.1 * float(action[0]) / self.mass
        self.state = np.array([self.state[0] + 0.1 * speed, speed])
        parked = bool(abs(self.state[0] - self.mark) < 0.05 and abs(speed) < 0.05)
        return self.state.astype("f4"), 0.0, False, False, {"success": parked}

    @staticmethod
    def expert(env: Any, x: np.ndarray) -> list[float]:
        return [3 * (env.mark - x[0]) - 3.5 * x[1]]


def write_features(path: Path) -> None:
    """Examples of 30 classes, to be recognised by 12 features."""
    rng = np.random.default_rng(1)
    y = np.repeat(np.arange(30), 12)
    np.savez(path, x=(rng.normal(size=(30, 12))[y] + 0.7 * rng.normal(size=(len(y), 12))).astype("f4"), y=y)


def write_images(path: Path) -> None:
    """Grey images of 20 classes."""
    rng = np.random.default_rng(2)
    y = np.repeat(np.arange(20), 10)
    x = (128 + 60 * rng.normal(size=(20, 14, 14))[y] + 40 * rng.normal(size=(len(y), 14, 14))).clip(0, 255)
    np.savez(path, x=x.astype("u1"), y=y, ways=3)


def strides() -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Demonstrations of different lengths: the label of a task, observations and actions."""
    rng, made = np.random.default_rng(3), []
    for task in range(16):
        goal = rng.normal(size=3)
        for _ in range(6):
            x, seen, done = rng.normal(size=3), [], []
            for _ in range(int(rng.integers(8, 14))):
                action = 0.3 * (goal - x)
                seen.append(x)
                done.append(action)
                x = x + action + 0.02 * rng.normal(size=3)
            made.append((f"goal {task}", np.array(seen, "f4"), np.array(done, "f4")))
    return made


def write_csv(path: Path) -> None:
    """`strides` as a table."""
    kinds = [f"{kind}.{axis}" for kind in ("observation", "action") for axis in "xyz"]
    lines = [",".join(["episode", "task", "timestamp", *kinds])]
    for episode, (task, seen, done) in enumerate(strides()):
        for step, row in enumerate(np.concatenate([seen, done], 1).tolist()):
            lines.append(",".join([str(episode), task, f"{step / 10:.1f}", *map(repr, row)]))
    path.write_text("\n".join(lines) + "\n")


def write_strides(path: Path) -> None:
    """`strides` as arrays."""
    tasks, seen, done = zip(*strides(), strict=True)
    start = np.cumsum([0, *map(len, seen)])
    np.savez(path, observations=np.concatenate(seen), actions=np.concatenate(done), start=start, task=np.array(tasks))


def write_motions(path: Path) -> None:
    """Swings between two poses, 7 tasks."""
    rng, points, task = np.random.default_rng(4), [], []
    for i in range(7):
        for _ in range(6):
            phase = np.linspace(0.0, 1.0, int(rng.integers(60, 90)))[:, None]
            start, end = np.array([2.0, 0.0, 0.0]) + 0.1 * rng.normal(size=3), np.full(3, 5.0)
            place = start + phase * (end - start) + np.sin(np.pi * phase) * [0.0, 0.5 + i, 0.3]
            half = 0.5 * phase * (1.5 + 0.2 * i)
            turned = np.concatenate([np.cos(half), 0.0 * half, 0.0 * half, np.sin(half)], 1)
            points.append(np.concatenate([place, turned], 1))
            task.append(f"swing {i}")
    start = np.cumsum([0, *map(len, points)])
    np.savez(path, points=np.concatenate(points), start=start, task=np.array(task), unit=2.0)


OWN: dict[str, tuple[str, Callable[[Path], None]]] = {
    "own-arrays": ("own-arrays.npz", write_features),
    "own-images": ("own-images.npz", write_images),
    "own-csv": ("own-csv.csv", write_csv),
    "own-npz": ("own-npz.npz", write_strides),
    "own-motions": ("own-motions.npz", write_motions),
}
"""Files of a user's own data, and what writes them."""


def steady(width: int) -> Callable[[np.ndarray], np.ndarray]:
    """A policy without a learner: waves of the sum of what is observed, [task, episode, width]."""
    return lambda x: np.sin(np.asarray(x, "f8").sum(-1, keepdims=True) + np.arange(width)).astype("f4")


def kept(
    function: Callable, seen: list[np.ndarray] | None = None, given: list[np.ndarray] | None = None
) -> Callable[..., Any]:
    """A function that also keeps its first arguments in `seen`, or what it returns in `given`."""

    def called(first: np.ndarray, *others: Any) -> Any:
        if seen is not None:
            seen.append(np.array(first))
        result = function(first, *others)
        if given is not None:
            given.append(np.array(result))
        return result

    return called


# ---- digests


Parts = dict[str, str]


def digest_of_tree(value: Any) -> str:
    """Of nested dicts, lists, tuples, tensors, numbers and texts."""
    sha = hashlib.sha256()
    _feed(sha, value)
    return sha.hexdigest()


def _feed(sha: Any, value: Any) -> None:
    if isinstance(value, Mapping):
        sha.update(f"dict {len(value)};".encode())
        for key in sorted(value, key=str):
            sha.update(f"key {key};".encode())
            _feed(sha, value[key])
    elif isinstance(value, list | tuple):
        sha.update(f"list {len(value)};".encode())
        for item in value:
            _feed(sha, item)
    elif isinstance(value, torch.Tensor):
        raw = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        sha.update(f"tensor {value.dtype} {tuple(value.shape)};".encode() + raw)
    else:
        sha.update(f"{value!r};".encode())


def digest_of_arrays(named: Mapping[str, np.ndarray]) -> str:
    """Of arrays by sorted name, as float64."""
    sha = hashlib.sha256()
    for name in sorted(named):
        values = np.ascontiguousarray(named[name], "<f8")
        sha.update(f"{name} {values.shape};".encode() + values.tobytes())
    return sha.hexdigest()


def of_metrics(part: str, metrics: Mapping[str, np.ndarray]) -> Parts:
    """One digest for each metric, so that more of them move nothing."""
    return {f"{part}/{name}": digest_of_arrays({name: values}) for name, values in metrics.items()}


def numbered(arrays: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays by names that sort as they are ordered."""
    return {f"{i:06}": array for i, array in enumerate(arrays)}


def parts_of(outcome: Outcome) -> Parts:
    return {
        "weights": digest_of_tree(outcome.weights),
        "optimiser": "-" if outcome.optimiser is None else digest_of_tree(outcome.optimiser),
        **of_metrics("evaluation", outcome.metrics),
        "actions": digest_of_arrays(numbered(outcome.actions)),
    }


# ---- cases


Case = Callable[[Path], Parts]
"""Runs in an empty folder."""


def place(name: str, folder: Path) -> str | Path:
    """A family's name, or the file of a user's own data, which is written first."""
    if name not in OWN:
        return name
    file, write = OWN[name]
    path = folder / file
    write(path)
    return path


def by_demonstrations(name: str, method: str | None, changes: Changes, shots: Sequence[int], folder: Path) -> Parts:
    return parts_of(demonstration_case(place(name, folder), method, changes, shots, 3, 2, folder / "run"))


def by_trial(name: str, method: str, changes: Changes, folder: Path) -> Parts:
    return parts_of(trial_case(name, method, changes, 1, 3, 2, folder / "run"))


def of_family(name: str, split: str | None, folder: Path) -> Parts:
    shown = family_case(place(name, folder), split, 2, 2, steady)
    return {
        "hidden": digest_of_arrays(numbered(shown.hidden)),
        "demonstrations": digest_of_arrays(numbered(shown.demonstrations)),
        **of_metrics("episodes", shown.metrics),
        "observed": digest_of_arrays(numbered(shown.observed)),
    }


def merged(*some: Changes) -> Changes:
    """Changes one after the other."""
    groups = dict.fromkeys(group for changes in some for group in changes)
    return {group: {k: v for changes in some for k, v in changes.get(group, {}).items()} for group in groups}


FEW: Changes = {
    "training": {"steps": 3, "validate_every": 3, "meta_batch": Most(4), "queries": Most(2)},
    "data": {
        "tasks": Most(6),
        "demonstrations": Most(4),
        "validation_tasks": Most(3),
        "validation_episodes": Most(2),
    },
}
SMALL: Changes = {"training": {"meta_batch": 2}, "data": {"tasks": 3, "validation_tasks": 2, "validation_episodes": 1}}
"""Where simulation or a network is dear."""
EVERY_KIND: Changes = {"algorithm": {"inner_rate": 0.01}, "data": {"tasks": 10}}
"""Where a learner diverges on kinds of tasks that training did not hold."""

SKILLS = (
    *("maml", "fomaml", "anil", "meta-sgd", "reptile", "meta-lstm", "mann", "mann-raw", "siamese", "matching"),
    *("matching-fce", "matching-convex", "hypernet", "hypernet-roles", "transfer", "scratch", "no-adaptation"),
    *("oracle", "replay", "nearest"),
)
RECOGNITION = (
    *("maml", "fomaml", "anil", "meta-sgd", "reptile", "meta-lstm", "mann", "mann-raw", "siamese", "matching"),
    *("matching-fce", "prototypical", "hypernet", "transfer", "scratch", "no-adaptation", "nearest"),
)
OMNIGLOT = ("omniglot-5way", "omniglot-20way", "omniglot-60way", "omniglot-within-alphabet-20way")
ROBOTS = ("grasping", "grasping-panda", "navigation", "navigation-dynamics")
METAWORLD = ("ml1-reach", "ml1-push", "ml1-pick-place", "ml10", "ml10-imitation", "ml45", "ml45-imitation", "tools")
OWN_SKILLS = ("own-csv", "own-npz", "own-motions", "cart")

BY_DEMONSTRATIONS: dict[tuple[str, str], Changes] = {
    **{(method, "point-navigation"): {} for method in SKILLS},
    **{(method, "own-arrays"): {} for method in RECOGNITION},
    **{(method, "own-images"): {} for method in ("default", "maml", "matching", "hypernet", "mann-raw")},
    **{(method, family): {} for family in ("sinusoid", "motions", *OWN_SKILLS) for method in ("default", "maml")},
    **{("default", family): {} for family in ("point-navigation", "own-arrays", *ROBOTS)},
    **{("default", family): SMALL for family in ("ml1-reach-scrambled", *METAWORLD)},
    **{("maml", family): SMALL for family in (*ROBOTS, "ml1-reach", "ml1-push", "tools")},
    **{("maml", family): merged(SMALL, EVERY_KIND) for family in ("ml10", "ml45-imitation")},
    **{(method, "sinusoid"): {} for method in ("reptile", "meta-lstm", "mann", "siamese", "matching", "hypernet")},
    **{(method, "grasping"): SMALL for method in ("mann", "reptile", "matching", "meta-lstm", "hypernet", "transfer")},
    **{(method, "navigation"): SMALL for method in ("mann", "siamese")},
    **{(method, "ml1-reach-scrambled"): SMALL for method in ("hypernet", "matching")},
    **{(method, "ml10-imitation"): SMALL for method in ("matching-frames", "warp", "hypernet-roles")},
    ("meta-sgd", "ml10-imitation"): merged(SMALL, EVERY_KIND),
    ("hypernet", "cart"): {},
    **{("oracle", family): SMALL for family in ("grasping", "navigation", "ml10", "motions")},
    ("warp", "ml1-push"): SMALL,
    **{("default", family): SMALL for family in OMNIGLOT},
    **{(method, "omniglot-5way"): SMALL for method in ("maml", "mann", "reptile", "hypernet")},
}
"""Learning from demonstrations: (method or 'default', family), and what is reduced there beside `FEW`."""

ALWAYS_SHOWN = ("replay", "nearest")
"""Methods whose evaluation without a demonstration says nothing."""

TRIALS_FEW: Changes = {
    "training": {
        "steps": 3,
        "validate_every": 3,
        "meta_batch": Most(4),
        "episodes_per_task": Most(4),
        "validation_tasks": 2,
        "validation_rounds": Most(1),
    },
}
TRIALS_SMALL: Changes = {"training": {"steps": 2, "validate_every": 2, "meta_batch": 2, "episodes_per_task": 2}}
FEW_UPDATES: dict[str, Changes] = {
    "rl2-dagger": {"algorithm": {"updates": Most(10), "batch": Most(16)}},
    "pearl": {"algorithm": {"updates": 10}},
}

FIXED_START = tuple(f"{name}-fixed-start" for name in ("ml1-reach", "ml1-push", "ml1-pick-place", "ml10"))

BY_TRIAL: dict[tuple[str, str], Changes] = {
    **{
        (method, "navigation2d"): {}
        for method in (
            *("maml-trpo", "maml-by-return", "maml-ppo", "promp", "reptile-ppo", "rl2", "rl2-mann", "rl2-dagger"),
            *("pearl", "meta-lstm-ppo", "scratch-ppo", "transfer-ppo", "domain-randomisation", "oracle-ppo"),
        )
    },
    ("matched", "navigation2d"): {"algorithm": {"known": 3, "known_rounds": 2}},
    **{
        ("rl2-dagger", family): TRIALS_SMALL
        for family in (
            *("navigation2d-sparse", *FIXED_START),
            *("navigation", "navigation-dynamics", "grasping-tries"),
        )
    },
    **{
        ("maml-trpo", family): TRIALS_SMALL
        for family in ("cheetah-direction", "cheetah-velocity", "navigation", "ml1-reach-fixed-start", "grasping-tries")
    },
    **{("rl2", family): TRIALS_SMALL for family in ("cheetah-velocity", "navigation", "grasping-tries")},
    **{("pearl", family): TRIALS_SMALL for family in ("grasping-tries", "ml1-reach-fixed-start")},
}
"""Learning by trial: (method, family), and what is reduced there beside `TRIALS_FEW` and `FEW_UPDATES`."""

OF_FAMILIES: dict[str, tuple[str, str | None]] = {
    **{
        name: (name, None)
        for name in (
            *("grasping", "grasping-panda", "navigation", "navigation-dynamics", "ml1-push", "ml10", "tools"),
            *("point-navigation", "cart", "sinusoid", "motions", "ml1-reach-scrambled", "ml10-imitation"),
            *("own-arrays", "own-csv", "own-npz", "own-motions", "omniglot-5way"),
        )
    },
    "grasping/shapes": ("grasping", "shapes"),
    "tools/tasks": ("tools", "tasks"),
    "motions/positions": ("motions", "positions"),
}
"""What a family shows and how its episodes end: by name, the family and a split, or None for the first to test on."""


def cases() -> dict[str, Case]:
    """Every case by its name."""
    made: dict[str, Case] = {
        f"family/{name}": partial(of_family, family, split) for name, (family, split) in OF_FAMILIES.items()
    }
    for (method, family), changes in BY_DEMONSTRATIONS.items():
        shots = (1,) if method in ALWAYS_SHOWN else (0, 1)
        given = None if method == "default" else method
        made[f"demonstrations/{method}/{family}"] = partial(
            by_demonstrations, family, given, merged(FEW, changes), shots
        )
    for (method, family), changes in BY_TRIAL.items():
        every = merged(TRIALS_FEW, FEW_UPDATES.get(method, {}), changes)
        made[f"trials/{method}/{family}"] = partial(by_trial, family, method, every)
    return made


# ---- running them


def run(case: Case) -> dict[str, Any]:
    """The record of a case: its digests, or why it was skipped, or how it failed; and seconds."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002, nothing should ask it, and what does gets the same
    torch.manual_seed(0)
    started, record = time.perf_counter(), {}
    with tempfile.TemporaryDirectory() as folder:
        try:
            with redirect_stdout(sys.stderr):  # progress of trainings
                record["parts"] = case(Path(folder))
        except Skipped as reason:
            record["skipped"] = str(reason)
        except Exception as error:
            traceback.print_exc()
            record["failed"] = f"{type(error).__name__}: {error}"
    return record | {"seconds": round(time.perf_counter() - started, 1)}


def say(name: str, record: Mapping[str, Any], verdict: str) -> None:
    print(f"{record['seconds']:6.1f} s  {name}: {verdict}", flush=True)


def verdict_of(record: Mapping[str, Any]) -> str:
    if "skipped" in record:
        return f"skipped ({record['skipped']})"
    if "failed" in record:
        return f"FAILED ({record['failed']})"
    return " ".join(f"{part} {digest[:8]}" for part, digest in record["parts"].items())


def write(path: Path, chosen: Mapping[str, Case]) -> int:
    """Stores the records, each as soon as it is there; those of other cases that the file holds stay."""
    then = json.loads(path.read_text())["cases"] if path.exists() else {}
    failed = []
    for name, case in chosen.items():
        then[name] = record = run(case)
        say(name, record, verdict_of(record))
        failed += [name] if "failed" in record else []
        partial_path = path.with_name(f".{path.name}.partial")
        partial_path.write_text(json.dumps({"versions": versions(), "cases": then}, indent=1) + "\n")
        partial_path.replace(path)
    seconds = sum(then[name]["seconds"] for name in chosen)
    print(f"{len(chosen)} cases, {len(failed)} failed, {seconds:.0f} s.")
    return bool(failed)


def compare(path: Path, chosen: Mapping[str, Case], every: bool) -> int:
    """Runs what a file has records of, and says what moved.

    Args:
        every: whether a record whose case is gone counts as well.
    """
    stored = json.loads(path.read_text())
    then, now = stored["cases"], versions()
    for what, version in stored["versions"].items():
        if now.get(what) != version:
            print(f"Digests were written with {what} {version}; here it is {now.get(what)}.")
    moved, skipped, seconds = [], [], 0.0
    for name, case in chosen.items():
        parts = then.get(name, {}).get("parts")
        if parts is None:
            skipped.append(f"{name}: the file has no digests of it")
            continue
        record = run(case)
        seconds += record["seconds"]
        if "skipped" in record:
            skipped.append(f"{name}: {record['skipped']}")
            say(name, record, verdict_of(record))
            continue
        fresh = record.get("parts", {})
        apart = [part for part in sorted(parts) if parts[part] != fresh.get(part)]
        moved += [f"{name}: {record.get('failed') or ', '.join(apart)}"] if apart else []
        say(name, record, f"MOVED ({record.get('failed') or ', '.join(apart)})" if apart else "as before")
    if every:
        moved += [f"{name}: there is no such case any more" for name in then if name not in chosen]
    for title, lines in (("Skipped", skipped), ("Moved", moved)):
        if lines:
            print(f"{title}:\n" + "\n".join(f"  {line}" for line in lines))
    print(f"{len(chosen)} cases, {len(moved)} moved, {len(skipped)} skipped, {seconds:.0f} s.")
    return bool(moved)


def main() -> int:
    parser = argparse.ArgumentParser(description="Digests of short trainings: write them, or compare with them.")
    parser.add_argument("command", choices=("write", "compare"))
    parser.add_argument("file", type=Path)
    parser.add_argument("--only", nargs="+", default=[], metavar="TEXT", help="cases whose names contain one of these")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    chosen = {n: case for n, case in cases().items() if not asked.only or any(text in n for text in asked.only)}
    if not chosen:
        parser.error(f"no case has a name with {' or '.join(asked.only)}")
    if asked.command == "write":
        return write(asked.file, chosen)
    if not asked.file.exists():
        parser.error(f"there is no file '{asked.file}'")
    return compare(asked.file, chosen, every=not asked.only)


if __name__ == "__main__":
    sys.exit(main())
