"""What version 0.1 wrote is still understood: settings, run folders with their training state, commands."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from commands import DEMONSTRATIONS, TRIALS, interrupted, quickstudy
from quickstudy import families, methods
from quickstudy.io import checkpoint
from quickstudy.io.migration import migrated, today
from quickstudy.io.provenance import NOTE, read_note
from quickstudy.results import runs
from quickstudy.results.runs import settings_from_plain
from quickstudy.settings import Settings

Plain = dict[str, Any]

KEPT = json.loads((Path(__file__).parent / "settings-of-version-0.1.json").read_text())
"""Default settings as version 0.1 wrote them: one of each kind in full, and what others have different."""


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> Plain:
    """`base` with the changes, however deep they lie."""
    nested = {
        n: merged(base[n], v) for n, v in changes.items() if isinstance(v, dict) and isinstance(base.get(n), dict)
    }
    return {**base, **changes, **nested}


OLD: list[Plain] = [merged(KEPT[kind], changes) for kind, changes in KEPT["changes"]]


@pytest.mark.parametrize("old", [pytest.param(o, id=f"{o['family']} {o['method']}") for o in OLD])
def test_the_defaults_of_version_0_1_are_those_of_today(old: Plain) -> None:
    now = settings_from_plain(old, "old")
    assert now == methods.get(now.method).defaults(now.family, families.get(now.family))
    assert migrated(asdict(now)) == asdict(now), "what has today's names stays as it is"


def test_every_method_of_version_0_1_is_among_them() -> None:
    found = {settings_from_plain(old, "old").method for old in OLD}
    assert found | {"prototypical"} == set(methods.names()) - {"transfer-equal-time"}


@pytest.mark.parametrize(
    ("method", "changes", "algorithm"),
    [
        ("anil", {"maml": {"inner_steps": 7, "adapt_only": "head"}}, {"inner_steps": 7, "adapt_only": "head"}),
        ("matching-frames", {"frames": {"pull": 3.0}}, {"hidden": (64, 64)}),
        ("hypernet-roles", {"roles": {"matchings": 9}, "hypernet": {"heads": 2}}, {"sinkhorn_iterations": 9}),
        ("scratch", {"fine_tune": {"steps": 11}}, {"steps": 11}),
    ],
)
def test_a_methods_own_settings_come_from_its_old_group(method: str, changes: Plain, algorithm: Plain) -> None:
    now = settings_from_plain(merged(KEPT["demonstrations"], {"method": method, **changes}), "old")
    assert {name: getattr(now.algorithm, name) for name in algorithm} == algorithm


@pytest.mark.parametrize(
    ("method", "family", "changes", "part", "value"),
    [
        ("maml-trpo", "navigation2d", {"maml": {"returns": {"trace": 0.25}}}, "algorithm.returns.gae_lambda", 0.25),
        ("rl2", "navigation2d", {"rl2": {"trace": 0.25}}, "algorithm.gae_lambda", 0.25),
        ("rl2", "navigation2d", {"training": {"lanes": 9}}, "training.episodes_per_task", 9),
        ("pearl", "navigation2d", {"training": {"settle": 0.5}}, "training.lr_decay_fraction", 0.5),
        ("rl2", "navigation2d", {"policy": {"std": 0.3}}, "network.std", 0.3),
        ("scratch", "grasping", {"opponents": {"test": {"epochs": 3}}}, "algorithm.test.epochs", 3),
    ],
)
def test_renamed_fields_by_trial(method: str, family: str, changes: Plain, part: str, value: float) -> None:
    now: Any = settings_from_plain(merged(KEPT["trials"], {"method": method, "family": family, **changes}), "old")
    assert (now.method, now.family) == {"scratch": ("scratch-ppo", "grasping-tries")}.get(method, (method, family))
    for name in part.split("."):
        now = getattr(now, name)
    assert now == value


def as_version_0_1(folder: Path) -> None:
    """Rewrites a run folder of today as version 0.1 would have written it."""
    note = read_note(folder)
    now: Plain = note["settings"]
    by_trial = now["family"] == "navigation2d"
    kept, group = (KEPT["trials"], "rl2") if by_trial else (KEPT["demonstrations"], "maml")
    algorithm, training = dict(now["algorithm"]), dict(now["training"])
    if by_trial:
        algorithm["trace"] = algorithm.pop("gae_lambda")
        training["lanes"], training["settle"] = training.pop("episodes_per_task"), training.pop("lr_decay_fraction")
        old = {**kept, "method": now["method"], "training": training, group: algorithm, "policy": now["network"]}
    else:
        network = dict(now["network"])
        network["views"] = network.pop("num_augmentations")
        old = {**kept, "training": training, group: algorithm, "network": network, "data": now["data"]}
    for which in ("best", "last"):
        where = folder / "checkpoints" / which
        if checkpoint.exists(where):
            found = checkpoint.load(where)
            state = found.training and {**found.training.pop("steps"), **found.training}
            about = {**found.config, "settings": old, "training": training}
            checkpoint.save(where, found.tensors, about, state)
    if by_trial:
        (folder / NOTE).unlink()  # there was none by trial
    else:
        (folder / NOTE).write_text(json.dumps({**note, "settings": old}))


@pytest.mark.parametrize("words", [DEMONSTRATIONS, TRIALS], ids=["demonstrations", "trials"])
def test_a_run_of_version_0_1_goes_on_exactly_and_is_evaluated(words: list[str], tmp_path: Path) -> None:
    whole, part = tmp_path / "whole", tmp_path / "part"
    quickstudy("train", *words, "--output-dir", whole)
    interrupted("train", *words, "--output-dir", part)
    as_version_0_1(part)
    listed = {run.folder.name: run for run in runs.listed(tmp_path)}
    assert (listed["part"].family, listed["part"].method, listed["part"].state) == (words[0], words[2], "stopped")
    assert listed["part"].progress[1] == listed["whole"].progress[1] > listed["part"].progress[0] > 0
    quickstudy("resume", part)
    once, again = (checkpoint.load(folder / "checkpoints/last") for folder in (whole, part))
    assert all(torch.equal(once.tensors[name], again.tensors[name]) for name in once.tensors)
    as_version_0_1(whole)
    quickstudy("evaluate", whole, "--tasks", 2, "--episodes", 2, "--shots", 0, 1)
    quickstudy("report", whole, "--no-video")
    experiment, _ = runs.load(whole)
    assert isinstance(experiment.settings, Settings)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("rl-train grasping --method scratch", "train grasping-tries --method scratch-ppo"),
        ("rl-train ml1-push --maml.inner-rate 0.1", "train ml1-push-fixed-start --inner-rate 0.1 --method maml-trpo"),
        ("rl-train navigation --rl2.trace=0.9 --method=rl2", "train navigation --gae-lambda=0.9 --method rl2"),
        ("rl-train x --training.lanes 3 --training.settle 0", "train x --training.episodes-per-task 3 "
         "--training.lr-decay-fraction 0 --method maml-trpo"),
        ("rl-train x --meta_lstm.returns.trace 1 --method meta-lstm", "train x --returns.gae-lambda 1 "
         "--method meta-lstm-ppo"),
        ("rl-evaluate grasping --rounds 2 --lanes 5", "evaluate grasping --shots 0 1 2 --episodes 5"),
        ("rl-evaluate a --rounds=1", "evaluate a --shots 0 1"),
        ("rl-profile navigation2d --policy.hidden 8 8", "profile navigation2d --network.hidden 8 8 --method maml-trpo"),
        ("rl-prune x", "rl-prune x"),
    ],
)  # fmt: skip
def test_commands_of_version_0_1_in_todays_words(old: str, new: str) -> None:
    assert " ".join(today(old.split())) == new
