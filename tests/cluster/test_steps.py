"""One loop on one machine or several: the same parameters, and whatever is killed, every step counts once."""

import os
import re
import signal
import sys
import threading
import time
from contextlib import suppress

import pytest
import torch

from quickstudy.experiment import Experiment
from quickstudy.io.progress import console
from quickstudy.learner import BaseLearner
from quickstudy.methods.demonstrations.maml import MAML, MAMLConfig
from quickstudy.nets import MLP
from quickstudy.settings import TrainConfig
from quickstudy.train import DemonstrationSteps, Validation, run

ray = pytest.importorskip("ray", reason="the extra 'cluster' is not installed")
from quickstudy.cluster.connection import ClusterConfig, connected  # noqa: E402

CONFIG = TrainConfig(steps=12, meta_batch=5, shots=2, most_shots=4, clip=0.5, validate_every=6, rate=1e-2)
FAMILY = "sinusoid"


class Slow(MAML):
    """Takes its time, so that something can happen in the middle of a step."""

    def loss(self, task):
        time.sleep(0.2)
        return super().loss(task)


def learner() -> MAML:
    torch.manual_seed(0)
    return Slow(BaseLearner(MLP(1, 1, (16, 16)), 1), MAMLConfig(1, 0.01))


def source():
    return Experiment.of(FAMILY, "maml").family.fresh()


VALIDATION = Validation("size", lambda made: float(sum(p.square().sum() for p in made.parameters())))


@pytest.fixture(scope="module")
def plain():
    made = learner()
    trained = run(DemonstrationSteps(made, source(), CONFIG), made, CONFIG, validation=VALIDATION)
    return made, trained


@pytest.fixture
def by_value():
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def processes(steps) -> list[int]:
    return [int(re.search(r"process (\d+)", name)[1]) for name in steps.group.names]


def agree(made, plain, trained, wanted) -> None:
    for ours, theirs in zip(made.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
    assert trained.steps == wanted.steps
    assert [look["step"] for look in trained.history] == [look["step"] for look in wanted.history]
    for ours, theirs in zip(trained.history, wanted.history, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3)


def test_a_killed_worker_a_frozen_one_and_a_killed_machine_change_nothing(nodes, by_value, plain, tmp_path):
    """Each in the middle of a step; the parameters are those of a training in one process that nothing happened to."""
    frozen: list[int] = []

    def kill_one(steps) -> None:
        os.kill(processes(steps)[1], signal.SIGKILL)

    def freeze_one(steps) -> None:
        frozen.append(processes(steps)[0])
        os.kill(frozen[0], signal.SIGSTOP)

    def kill_node(_) -> None:
        nodes.remove_node(next(iter(nodes.worker_nodes)), allow_graceful=False)

    happens = {3: kill_one, 7: freeze_one, 10: kill_node}
    made, done = learner(), 0
    with connected(ClusterConfig(workers=2, patience=10.0)) as cluster, console.capture() as said:
        steps = cluster.demonstration_steps(made, source(), CONFIG)

        def before_each_step() -> bool:
            nonlocal done
            done += 1
            if done in happens:
                threading.Timer(0.1, happens[done], [steps]).start()
            return False

        trained = run(steps, made, CONFIG, validation=VALIDATION, folder=tmp_path, out_of_time=before_each_step)
    with suppress(ProcessLookupError):
        os.kill(frozen[0], signal.SIGKILL)
    nodes.add_node(num_cpus=2, object_store_memory=200 * 2**20)
    agree(made, plain[0], trained, plain[1])
    text = " ".join(said.get().split())
    assert re.search(r"Worker 2 \(process \d+ on [\d.]+\) is gone during step 3\.", text)
    assert re.search(rf"Waiting for worker 1 \(process {frozen[0]} on [\d.]+\): step 7 has taken \d+ s", text)
    assert re.search(r"did not finish step 7 within 10 s", text)
    assert "during step 10" in text
    assert "2 workers go on from step 2." in text
