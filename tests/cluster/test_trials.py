"""Trials, recordings and parts of a comparison on several processes."""

import os
import signal
import sys
import threading
import time
from contextlib import suppress
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils._pytree import tree_leaves, tree_map

from quickstudy.data import recorded
from quickstudy.errors import QuickstudyError
from quickstudy.experiment import Experiment
from quickstudy.methods.trials.learner import TrialLearner
from quickstudy.results.compare import compare

ray = pytest.importorskip("ray", reason="the extra 'cluster' is not installed")
from quickstudy.cluster.connection import ClusterConfig, connected  # noqa: E402
from quickstudy.cluster.trials import Collector, joined  # noqa: E402

FAMILY = "navigation2d"
METHODS = (
    "maml-trpo",
    "maml-ppo",
    "reptile-ppo",
    "meta-lstm-ppo",
    "rl2",
    "pearl",
    "rl2-dagger",
    "matched",
    "oracle-ppo",
)


def experiment(method: str) -> Experiment:
    return Experiment.of(FAMILY, method, 0, {"training": {"meta_batch": 5, "episodes_per_task": 2, "steps": 2}})


@pytest.mark.parametrize("method", METHODS)
def test_a_learner_improves_by_parts_as_by_the_whole(method):
    """Collected in two parts of different length and joined, experience gives an update; in one part, the same bits."""
    made = experiment(method)
    family, tasks = made.family, made.family.tasks("train", 5)
    rng = torch.Generator().manual_seed(0)
    whole, parts = made.build(), made.build()
    figures = whole.outer_step(family.vector_env(tasks, 2), rng)
    collector = Collector(made.build(), family, 2)
    experience, faults, _ = collector.collect(parts.state_dict(), tasks, 0)
    rng = torch.Generator().manual_seed(0)
    parts.experience(family.vector_env(tasks, 2), rng)  # for the random numbers that it takes
    assert parts.improve(joined([experience]), tasks, rng) == pytest.approx(figures, nan_ok=True)
    for ours, theirs in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
    some = [collector.collect(parts.state_dict(), share, 1)[0] for share in (tasks[:2], tasks[2:])]
    together = joined(some)
    assert all(len(leaf) == 5 for leaf in tree_leaves(together))
    assert all(np.isfinite(value) for value in parts.improve(together, tasks, rng).values())
    assert faults == 0


def test_parts_of_different_length_are_padded():
    short, long = np.ones((2, 3, 4, 5), "f4"), np.ones((1, 3, 6, 5), "f4")
    made = joined([{"x": short, "r": short[:, 0, 0, 0]}, {"x": long, "r": long[:, 0, 0, 0]}])
    assert made["x"].shape == (3, 3, 6, 5)
    assert made["x"][:2, :, 4:].abs().max() == 0
    assert made["r"].tolist() == [1.0, 1.0, 1.0]


@pytest.fixture
def cluster(nodes):
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with connected(ClusterConfig(workers=2, patience=60.0)) as made:
        yield made
    ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def test_a_killed_collector_loses_no_task_and_recordings_are_the_same_anywhere(cluster):
    made = experiment("maml-trpo")
    steps = cluster.trial_steps(made.build(), made.family, made.settings.training)
    rng = torch.Generator().manual_seed(0)
    first = steps.step(rng, 1)
    assert first.keys() >= {"return-0", "return-1", "faults"}
    weights, before = tree_map(torch.clone, steps.learner.state_dict()), rng.get_state()
    untouched = steps.step(rng, 2)
    steps.learner.load_state_dict(weights)
    rng.set_state(before)
    lost = ray.get(steps.pool._hands[0].about.remote()).split()[1]
    threading.Timer(0.05, os.kill, [int(lost), signal.SIGKILL]).start()
    assert steps.step(rng, 2) == pytest.approx(untouched)
    steps.close()

    tasks = made.family.tasks("train", 10)
    ours = cluster.record(made.family, tasks, 2, 0)
    theirs = recorded(made.family, tasks, 2, 0)
    for a, b in zip(chain(*ours), chain(*theirs), strict=True):
        np.testing.assert_array_equal(a.observations, b.observations)
        np.testing.assert_array_equal(a.actions, b.actions)


class OneFunction(TrialLearner):
    def outer_step(self, env, rng):
        return {}

    def trial(self, env, rounds, rng):
        return []


def test_a_method_that_does_not_collect_apart_is_told(cluster):
    made = experiment("maml-trpo")
    with pytest.raises(QuickstudyError, match="OneFunction learns in one process"):
        cluster.trial_steps(OneFunction(), made.family, made.settings.training)


def test_a_comparison_is_the_same_when_a_process_and_then_a_machine_are_killed(nodes, cluster, tmp_path):
    changes = {"training": {"steps": 40, "validate_every": 10}, "data": {"validation_tasks": 4}}
    asked = {
        "methods": ("maml", "reptile"),
        "seeds": 1,
        "shots": (1,),
        "tasks": 5,
        "episodes": 1,
        "experiment_for": lambda method, seed: Experiment.of("sinusoid", method, seed, changes),
    }
    (alone,) = compare("sinusoid", folder=tmp_path / "alone", **asked)
    stop = threading.Event()
    killed: list[int] = []

    def kill_when_begun() -> None:
        """Kills one of the processes as soon as a training has a checkpoint, and then a machine."""
        while not stop.is_set() and not list((tmp_path / "shared").glob("*/checkpoints/last")):
            time.sleep(0.02)
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                if path.read_text().startswith("ray::Hand") and not killed:
                    killed.append(int(path.parent.name))
                    os.kill(killed[0], signal.SIGKILL)
        nodes.remove_node(next(iter(nodes.worker_nodes)), allow_graceful=False)

    watching = threading.Thread(target=kill_when_begun)
    watching.start()
    try:
        (shared,) = compare("sinusoid", folder=tmp_path / "shared", machines=cluster, **asked)
    finally:
        stop.set()
        watching.join()
        nodes.add_node(num_cpus=2, object_store_memory=200 * 2**20)
    assert killed
    figures = [[(row.method, row.shots, row.value) for row in cell.rows] for cell in (alone, shared)]
    assert figures[0] == figures[1]
    assert not list((tmp_path / "shared").glob("**/*.partial*"))
