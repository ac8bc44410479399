"""The outer loop: exact resume, clean stop, broken losses, best on validation."""

import math
import os
import signal
import time
from dataclasses import replace

import pytest
import torch

from quickstudy import batching
from quickstudy.batching import Outer
from quickstudy.data import DemonstrationSet, SupportQuery
from quickstudy.errors import DivergedError, QuickstudyError, TrainingError
from quickstudy.experiment import Experiment
from quickstudy.families.classic import PointNavigation, Sinusoid
from quickstudy.families.classic.fresh import FreshSinusoids
from quickstudy.io import checkpoint, progress
from quickstudy.io.interrupts import abandonable
from quickstudy.settings import TrainConfig
from quickstudy.train import DemonstrationSteps, Validation, meta_train, run

FAMILY = PointNavigation()
CONFIG = TrainConfig(steps=30, meta_batch=4, validate_every=10, batching="vmap")


@pytest.fixture(scope="module")
def source() -> DemonstrationSet:
    return DemonstrationSet.record(FAMILY, FAMILY.tasks("train", 20), 4, seed=0)


def learner(method: str = "maml"):
    return Experiment.of(FAMILY, method, changes={"network": {"hidden": (16,), "context": 2}}).build()


def parameters(module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])


class InterruptedSource:
    """Sends Ctrl-C to this process when it is asked for the meta-batch after `calls` others."""

    def __init__(self, source, calls: int) -> None:
        self.source, self.left = source, calls

    def sample(self, *numbers) -> SupportQuery:
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGINT)
        self.left -= 1
        return self.source.sample(*numbers)

    def names(self) -> list[str]:
        return self.source.names()


class BrokenSource(InterruptedSource):
    """Puts a NaN into one task, or into every task, of the meta-batch after `calls` others."""

    def __init__(self, source, calls: int, everywhere: bool = False) -> None:
        super().__init__(source, calls)
        self.everywhere = everywhere

    def sample(self, *numbers) -> SupportQuery:
        batch = self.source.sample(*numbers)
        if self.left == 0:
            batch.query.y[slice(None) if self.everywhere else 2] = math.nan
        self.left -= 1
        return batch


def test_an_interrupted_training_resumes_exactly(source, tmp_path):
    whole, parts = learner(), learner()
    meta_train(whole, source, CONFIG, folder=tmp_path / "whole")
    first = meta_train(parts, InterruptedSource(source, 17), CONFIG, folder=tmp_path / "parts")
    assert first.interrupted
    assert first.steps == 18  # the step at hand is finished
    again = learner()
    second = meta_train(again, source, CONFIG, folder=tmp_path / "parts", resume=True)
    assert not second.interrupted
    assert second.steps == 30
    assert torch.equal(parameters(again), parameters(whole))
    histories = [checkpoint.load(tmp_path / name / "checkpoints/last").config["history"] for name in ("whole", "parts")]
    assert histories[0] == histories[1]


def test_a_damaged_last_checkpoint_resumes_exactly_from_the_one_before(source, tmp_path, capsys):
    whole, again = learner(), learner()
    meta_train(whole, source, CONFIG, folder=tmp_path / "whole")
    meta_train(learner(), InterruptedSource(source, 27), CONFIG, folder=tmp_path / "parts")
    last = tmp_path / "parts/checkpoints/last"
    (last / "model.safetensors").write_bytes(b"damaged")
    trained = meta_train(again, source, CONFIG, folder=tmp_path / "parts", resume=True)
    assert trained.steps == 30
    assert torch.equal(parameters(again), parameters(whole))
    assert "The checkpoint before it is whole and is taken" in " ".join(capsys.readouterr().out.split())
    for folder in (last, last.with_name(".last.before")):
        (folder / "model.safetensors").write_bytes(b"damaged")
    checkpoint.save(last.with_name("best"), again.state_dict(), {})
    with pytest.raises(QuickstudyError, match=r"damaged.*best' is whole: 'quickstudy evaluate' and 'adapt' use it"):
        meta_train(learner(), source, CONFIG, folder=tmp_path / "parts", resume=True)


def test_the_same_seed_gives_the_same_learner_and_another_does_not(source):
    results = []
    for seed in (0, 0, 1):
        it = learner()
        meta_train(it, source, CONFIG, seed=seed)
        results.append(parameters(it))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_the_best_on_validation_is_kept(source, tmp_path):
    figures = iter([0.2, 0.9, 0.4])
    seen = []

    def measure(it) -> float:
        seen.append(parameters(it))
        return next(figures)

    it = learner()
    trained = meta_train(it, source, CONFIG, folder=tmp_path, validation=Validation("success", measure))
    assert trained.best == 0.9
    assert [(e["step"], e["validation/success"]) for e in trained.history if "validation/success" in e] == [
        (10, 0.2), (20, 0.9), (30, 0.4),
    ]  # fmt: skip
    assert all(math.isfinite(entry["train/loss"]) for entry in trained.history)
    assert torch.equal(parameters(it), seen[1])
    fresh = learner()
    checkpoint.load_into(fresh, checkpoint.load(tmp_path / "checkpoints/best").tensors, "best")
    assert torch.equal(parameters(fresh), seen[1])
    checkpoint.load_into(fresh, checkpoint.load(tmp_path / "checkpoints/last").tensors, "last")
    assert torch.equal(parameters(fresh), seen[2])


def test_lower_can_be_better(source):
    figures = iter([3.0, 1.0, 2.0])
    trained = meta_train(
        learner(), source, CONFIG, validation=Validation("mse", lambda it: next(figures), higher_is_better=False)
    )
    assert trained.best == 1.0


def test_a_broken_task_is_named_and_left_out(source, capsys):
    it = learner()
    trained = meta_train(it, BrokenSource(source, 5), CONFIG)
    assert trained.steps == 30
    assert parameters(it).isfinite().all()
    said = " ".join(capsys.readouterr().out.split())
    assert "Step 6: the loss of point-navigation/train/" in said
    assert "left out of this step" in said


@pytest.mark.parametrize(("everywhere", "policy"), [(True, "skip"), (False, "stop")])
def test_a_broken_meta_batch_stops_the_training_before_it_does_harm(source, tmp_path, everywhere, policy):
    config = TrainConfig(steps=30, meta_batch=4, validate_every=5, batching="vmap", non_finite=policy)
    it = learner()
    with pytest.raises(QuickstudyError, match=r"Step 8: .*point-navigation/train/.* not finite"):
        meta_train(it, BrokenSource(source, 7, everywhere), config, folder=tmp_path)
    assert parameters(it).isfinite().all()
    assert checkpoint.load(tmp_path / "checkpoints/last").config["step"] == 5


def test_other_settings_do_not_resume(source, tmp_path):
    meta_train(learner(), source, CONFIG, folder=tmp_path)
    other = TrainConfig(steps=40, meta_batch=4, validate_every=10, batching="vmap")
    with pytest.raises(QuickstudyError, match=r"other settings \(steps\)"):
        meta_train(learner(), source, other, folder=tmp_path, resume=True)


def test_any_optimiser_and_schedule(source):
    it = learner()
    before, steps = parameters(it), DemonstrationSteps(it, source, CONFIG)
    steps.optimiser = torch.optim.SGD(it.parameters(), lr=1.0)
    steps.schedule = torch.optim.lr_scheduler.ConstantLR(steps.optimiser, factor=0.0, total_iters=1000)
    run(steps, it, CONFIG)
    assert torch.equal(parameters(it), before)


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [("constant", [0.5] * 3), ("linear", [1 / 3, 1 / 6, 0.0]), ("cosine", [0.37625, 0.12875, 0.005])],
)
def test_the_rate_follows_its_schedule(source, schedule, rates):
    logged = []
    config = replace(CONFIG, rate=0.5, optimiser="sgd", schedule=schedule)
    steps = DemonstrationSteps(learner(), source, config)
    for number in range(1, 31):
        logged.append(steps.step(torch.Generator().manual_seed(0), number).get("rate"))
    assert [rate for rate in logged if rate is not None] == pytest.approx(rates)
    assert [place for place, rate in enumerate(logged, 1) if rate is not None] == [10, 20, 30]


@pytest.mark.parametrize("base_rate", [0.0, 0.5, 1.0])
def test_the_base_network_has_a_rate_of_its_own(source, base_rate):
    """Plain gradient descent, so that what each parameter moves by is its gradient times its rate."""
    it = learner("meta-sgd")
    config = replace(CONFIG, rate=0.1, base_rate=base_rate, optimiser="sgd", schedule="constant", clip=1e9)
    before = {name: p.detach().clone() for name, p in it.named_parameters()}
    DemonstrationSteps(it, source, config).step(torch.Generator().manual_seed(0), 1)
    for name, p in it.named_parameters():
        rate = 0.1 * (base_rate if name.startswith("base.") else 1.0)
        torch.testing.assert_close(p.detach(), before[name] - rate * p.grad)


def test_training_figures_are_logged(source):
    logged = {}

    class Log:
        def log(self, step, values):
            logged.update({(step, name): value for name, value in values.items()})

    meta_train(learner(), source, CONFIG, logger=Log(), validation=Validation("success", lambda it: 0.5))
    assert {(10, "train/loss"), (10, "train/gradient-norm"), (30, "train/rate"), (20, "validation/success")} <= set(
        logged
    )
    assert all(math.isfinite(value) for value in logged.values())


@pytest.mark.parametrize("bad", [{"steps": 0}, {"meta_batch": 0}, {"shots": 0}, {"queries": -1}, {"rate": 0.0}])
def test_settings_are_checked(bad):
    with pytest.raises(QuickstudyError, match=f"{next(iter(bad))} must be positive"):
        TrainConfig(**bad)


def test_the_number_of_shots_varies_where_it_is_asked_to():
    seen = []

    class Watched(FreshSinusoids):
        def sample(self, rng, tasks, shots, queries):
            seen.append(shots)
            return super().sample(rng, tasks, shots, queries)

    learner = Experiment.of(Sinusoid(), "no-adaptation", changes={"network": {"hidden": (4,), "context": 0}}).build()
    meta_train(learner, Watched(), TrainConfig(steps=60, meta_batch=2, shots=2, most_shots=4, queries=1))
    assert set(seen) == {2, 3, 4}


# ---- nothing came of it


def test_a_training_without_a_finite_figure_on_validation_tasks_is_no_result(source, tmp_path):
    with pytest.raises(TrainingError, match=r"Nothing came of 30 steps: no look .* gave a finite success") as error:
        meta_train(learner(), source, CONFIG, folder=tmp_path, validation=Validation("success", lambda it: math.nan))
    assert error.value.status == 1
    assert not checkpoint.exists(tmp_path / "checkpoints/best")


def outer(finite: list[bool]) -> Outer:
    return Outer(torch.ones(len(finite)), {}, torch.tensor(finite))


def test_tasks_left_out_are_told_thrice_and_the_training_stops_where_they_are_most(source, capsys):
    it = learner()
    steps = DemonstrationSteps(it, source, replace(CONFIG, steps=400, meta_batch=4))
    steps.outer = lambda batch, number: outer([True, False, False, False])
    rng = torch.Generator().manual_seed(0)
    for number in range(1, 100):
        steps.step(rng, number)
    with pytest.raises(TrainingError, match="300 of 400 tasks of the last steps up to step 100 had to be left out"):
        steps.step(rng, 100)
    said = " ".join(capsys.readouterr().out.split())
    assert said.count("left out of this step") == 4, "three times, and at the hundredth"
    steps.outer = lambda batch, number: outer([False] * 4)
    with pytest.raises(TrainingError, match=r"not finite; training stopped .* try a lower --inner-rate than 0\.1"):
        steps.step(rng, 101)


def test_a_short_training_that_left_most_out_fails(source):
    it = learner()
    steps = DemonstrationSteps(it, source, replace(CONFIG, steps=30, meta_batch=4))
    steps.outer = lambda batch, number: outer([True, False, False, False])
    steps.outer.compiling = 0.0
    with pytest.raises(TrainingError, match="90 of 120 tasks of the last steps up to step 30 had to be left") as failed:
        run(steps, it, steps.config)
    assert failed.value.status == 1


def test_the_tensor_whose_gradient_is_not_finite_is_named(source):
    it = learner()
    steps = DemonstrationSteps(it, source, replace(CONFIG, non_finite="stop"))
    name, tensor = next(pair for pair in it.named_parameters() if pair[0].endswith("weight"))
    tensor.register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(
        DivergedError, match=rf"Step 1: the gradient of '{name}' for the loss of point-navigation/train"
    ):
        steps.step(torch.Generator().manual_seed(0), 1)


class Diverging(BrokenSource):
    """Every task is broken for as long as the learner's rate is above a bound."""

    steps: DemonstrationSteps
    bound = 0.0

    def sample(self, *numbers) -> SupportQuery:
        self.left = 0 if self.left < 0 and self.steps.optimiser.param_groups[0]["lr"] > self.bound else self.left
        return super().sample(*numbers)


def test_a_training_that_diverges_steps_back_and_halves_its_rate(source, tmp_path, capsys):
    config = replace(CONFIG, steps=20, validate_every=5, non_finite="halve", schedule="constant", rate=0.01)
    it = learner()
    broken = Diverging(source, 7, everywhere=True)
    broken.steps, broken.bound = DemonstrationSteps(it, broken, config), 0.003
    trained = run(broken.steps, it, config, folder=tmp_path)
    assert trained.steps == 20
    assert not trained.interrupted
    said = " ".join(capsys.readouterr().out.split())
    assert "Step 8: the loss of point-navigation/train/" in said
    assert "Back to step 5, with half the rate (2 of at most 8 times)." in said
    assert broken.steps.schedule.get_last_lr() == [0.0025]
    state = checkpoint.load(tmp_path / "checkpoints/last").training
    assert (state["halvings"], state["steps"]["schedule"]["base_lrs"]) == (2, [0.0025])


def test_a_training_that_diverges_whatever_its_rate_ends(source, tmp_path):
    config = replace(CONFIG, validate_every=5, non_finite="halve")
    it = learner()
    broken = Diverging(source, 7, everywhere=True)
    broken.steps = DemonstrationSteps(it, broken, config)
    with pytest.raises(DivergedError, match="Step 6"):
        run(broken.steps, it, config, folder=tmp_path)
    assert parameters(it).isfinite().all()
    assert checkpoint.load(tmp_path / "checkpoints/last").config["step"] == 5


def test_seconds_that_come_but_once_are_no_part_of_the_time_left(capsys, monkeypatch):
    now = iter([0.0, 60.0, 61.0, 81.5])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    with progress.progress("training", 1000) as advance:
        advance(1, once=59.0)
        advance(1)
        advance(1)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("training: 1/1000, 60 s, 999 s left")
    assert lines[1].startswith("training: 3/1000, 82 s, 7478 s left")


class Compiling:
    """Stands for a compilation that takes a moment, or until Ctrl-C."""

    interrupted = False

    def __init__(self, graph, inputs, threads) -> None:
        self.graph, self.done = graph, False

    def result(self):
        with abandonable():
            if self.interrupted:
                os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
        return lambda inputs: self.graph(*inputs)


def test_compiling_is_announced_and_timed(source, capsys, monkeypatch):
    monkeypatch.setattr(batching, "Compilation", Compiling)
    steps = DemonstrationSteps(learner(), source, CONFIG)
    steps.outer.compiled = True
    rng = torch.Generator().manual_seed(0)
    steps.step(rng, 1)
    assert capsys.readouterr().out == "compiling the step, about a minute\n"
    assert steps.once() > 0.0
    steps.step(rng, 2)
    assert steps.once() < 0.01
    assert not capsys.readouterr().out


def test_ctrl_c_while_compilation_is_waited_for_changes_no_bit(source, tmp_path, monkeypatch):
    monkeypatch.setattr(batching, "Compilation", Compiling)
    monkeypatch.setattr(batching, "_COMPILE_SECONDS", 0.02)
    monkeypatch.setattr(batching, "_SHORT", 10)
    monkeypatch.setattr(batching, "_WORTH_IT", 0.0)
    whole, again = learner(), learner()
    meta_train(whole, source, CONFIG, folder=tmp_path / "whole")
    with monkeypatch.context() as interrupting:
        interrupting.setattr(Compiling, "interrupted", True)
        first = meta_train(learner(), source, CONFIG, folder=tmp_path / "parts")
    assert first.interrupted
    assert 10 <= first.steps < 30, "the step that waited was not made"
    assert meta_train(again, source, CONFIG, folder=tmp_path / "parts", resume=True).steps == 30
    assert torch.equal(parameters(again), parameters(whole))


@pytest.mark.parametrize("look", [1, 3])
def test_ctrl_c_in_a_validation_is_answered_at_once_and_changes_no_bit(look, source, tmp_path):
    looks = 0

    def measure(it) -> float:
        nonlocal looks
        looks += 1
        if looks == 3 + look:
            os.kill(os.getpid(), signal.SIGINT)
            pytest.fail("the validation went on")
        return float(parameters(it).sum())

    def train(folder: str):
        one, judge = learner(), Validation("success", measure)
        return one, meta_train(one, source, CONFIG, validation=judge, folder=tmp_path / folder, resume=True)

    whole, _ = train("whole")
    _, first = train("parts")
    assert first.interrupted
    assert first.steps == 10 * look
    again, second = train("parts")
    assert not second.interrupted
    assert torch.equal(parameters(again), parameters(whole))
    histories = [checkpoint.load(tmp_path / name / "checkpoints/last").config["history"] for name in ("whole", "parts")]
    assert histories[0] == histories[1]
