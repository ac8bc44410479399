"""The meta-gradient is the same however tasks are batched, and right at second order."""

import itertools
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from quickstudy import batching
from quickstudy.batching import OuterStep, Plan, adapt_tasks, over_tasks, usable
from quickstudy.data import Batch, SupportQuery
from quickstudy.errors import QuickstudyError
from quickstudy.learner import BaseLearner, imitation_loss
from quickstudy.methods.demonstrations.maml import MAML, MAMLConfig
from quickstudy.nets import MLP

OPTIONS = {
    "maml": MAMLConfig(2, 0.05),
    "fomaml": MAMLConfig(2, 0.05, first_order=True),
    "anil": MAMLConfig(2, 0.05, adapt_only="head"),
    "meta-sgd": MAMLConfig(2, 0.05, learn_rates="parameter"),
    "meta-sgd-steps": MAMLConfig(2, 0.05, learn_rates="parameter-step"),
    "anil-first-order-rates": MAMLConfig(2, 0.05, True, "head", "parameter"),
}
NETWORKS = {"plain": (0, False), "normalise": (0, True), "context": (3, False), "both": (3, True)}


def maml(option: str = "maml", network: str = "plain", seed: int = 0) -> MAML:
    torch.manual_seed(seed)
    context, normalise = NETWORKS[network]
    learner = MAML(BaseLearner(MLP(3, 2, (8, 8), context, normalise), 3), OPTIONS[option]).double()
    with torch.no_grad():
        for p in learner.parameters():
            p.add_(0.05 * torch.rand_like(p))
    return learner


def sets(tasks: int, shots: int, seed: int) -> Batch:
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(tasks, shots, 6, 3, dtype=torch.float64, generator=rng)
    y = torch.randn(tasks, shots, 6, 2, dtype=torch.float64, generator=rng)
    lengths = torch.randint(2, 7, (tasks, shots, 1), generator=rng)
    mask = (torch.arange(6) < lengths).double()
    return Batch(x, y, mask, torch.zeros(tasks, 1, dtype=torch.float64))


def meta_batch(tasks: int = 5) -> SupportQuery:
    return SupportQuery(sets(tasks, 2, 0), sets(tasks, 3, 1))


def one(tree: SupportQuery, task: int) -> SupportQuery:
    return SupportQuery(*(Batch(*(t[task] for t in part)) for part in tree))


def by_hand(learner: MAML, batch: SupportQuery, tasks: list[int]) -> dict[str, Tensor]:
    """The mean meta-gradient by nothing but `torch.autograd.grad` in a loop."""
    config, base, losses = learner.config, learner.base, []
    for task in (one(batch, i) for i in tasks):
        phi = dict(base.named_parameters())
        for k in range(config.inner_steps):
            moved = [n for n in phi if config.adapt_only == "all" or ".head." in n]
            inner = imitation_loss(base.predict(phi, task.support.x), task.support)
            gradient = torch.autograd.grad(inner, [phi[n] for n in moved], create_graph=True)
            for n, g in zip(moved, gradient, strict=True):
                g = g.detach() if config.first_order else g
                rates = learner.rates[n.replace(".", "/")] if config.learn_rates != "no" else [config.inner_rate]
                phi[n] = phi[n] - rates[min(k, len(rates) - 1)] * g
        losses.append(imitation_loss(base.predict(phi, task.query.x), task.query))
    named = dict(learner.named_parameters())
    gradient = torch.autograd.grad(torch.stack(losses).mean(), list(named.values()), allow_unused=True)
    return {n: g for n, g in zip(named, gradient, strict=True) if g is not None}


def assert_gradient(learner: MAML, expected: dict[str, Tensor]) -> None:
    got = {n: p.grad for n, p in learner.named_parameters() if p.grad is not None}
    got = {n: g for n, g in got.items() if n in expected or g.any()}
    assert got.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(
            got[name], expected[name], rtol=1e-12, atol=1e-12 * expected[name].abs().max().item()
        )


@pytest.mark.parametrize("how", ["vmap", "loop", "chunk", "auto"])
@pytest.mark.parametrize(("option", "network"), list(itertools.product(OPTIONS, NETWORKS)))
def test_meta_gradient_equals_a_loop_written_by_hand(how, option: str, network: str) -> None:
    learner, batch = maml(option, network), meta_batch()
    found = OuterStep(learner, how)(batch)
    assert_gradient(learner, by_hand(learner, batch, [*range(5)]))
    expected = torch.stack([learner.loss(one(batch, i))[0] for i in range(5)])
    torch.testing.assert_close(found.losses, expected.detach(), rtol=1e-12, atol=0)
    assert found.finite.all()


@pytest.mark.parametrize("how", ["vmap", "loop", "chunk"])
def test_tasks_that_are_not_finite_are_named_and_left_out(how) -> None:
    learner, batch = maml(), meta_batch()
    batch.support.y[2] = torch.inf
    found = OuterStep(learner, how)(batch)
    assert found.finite.tolist() == [True, True, False, True, True]
    assert found.losses.isfinite().tolist() == found.finite.tolist()
    assert_gradient(learner, by_hand(learner, batch, [0, 1, 3, 4]))


def test_no_finite_task_leaves_no_gradient() -> None:
    learner, batch = maml(), meta_batch()
    batch.query.y[:] = torch.nan
    assert not OuterStep(learner, "vmap")(batch).finite.any()
    assert all(p.grad is None for p in learner.parameters())


def test_the_gradient_of_the_step_before_is_replaced() -> None:
    learner, batch = maml(), meta_batch()
    step = OuterStep(learner, "vmap")
    step(batch), step(batch)
    assert_gradient(learner, by_hand(learner, batch, [*range(5)]))


def test_frozen_parameters_get_no_gradient() -> None:
    learner = maml()
    learner.base.network.head.bias.requires_grad_(False)
    OuterStep(learner, "vmap")(meta_batch())
    assert learner.base.network.head.bias.grad is None
    assert learner.base.network.head.weight.grad is not None


def test_unknown_way_is_one_sentence() -> None:
    with pytest.raises(QuickstudyError, match="how must be"):
        OuterStep(maml(), "threads")  # type: ignore[arg-type]


@pytest.mark.parametrize("chunk", [None, 1, 2, 5])
def test_over_tasks_equals_a_loop(chunk: int | None) -> None:
    learner, support = maml("meta-sgd", "both"), sets(5, 2, 0)
    skills = over_tasks(learner.adapt, support, chunk=chunk)
    for i in range(5):
        for name, value in learner.adapt(Batch(*(t[i] for t in support))).items():
            torch.testing.assert_close(skills[name][i], value.detach(), rtol=1e-12, atol=1e-14)
    assert not any(value.requires_grad for value in skills.values())


def test_adapt_tasks_then_predict() -> None:
    learner, batch = maml(), meta_batch()
    skills = adapt_tasks(learner, batch.support)
    actions = over_tasks(learner.predict, skills, batch.query.x)
    expected = learner.predict(learner.adapt(one(batch, 3).support), batch.query.x[3])
    torch.testing.assert_close(actions[3], expected.detach(), rtol=1e-12, atol=1e-14)


COMPILED = [("vmap", "maml", "both"), ("chunk", "meta-sgd-steps", "plain"), ("loop", "anil", "context")]


@pytest.mark.parametrize(("how", "option", "network"), COMPILED)
def test_compiled_meta_gradient_equals_a_loop_written_by_hand(how, option: str, network: str) -> None:
    learner = maml(option, network)
    step = OuterStep(learner, how, compiled=True)
    for seed in range(2):  # the second time with other data, parameters and buffers, and nothing compiled anew
        batch = SupportQuery(sets(4, 2, seed), sets(4, 3, seed + 10))
        found = step(batch)
        assert_gradient(learner, by_hand(learner, batch, [*range(4)]))
        torch.testing.assert_close(found.losses[3], learner.loss(one(batch, 3))[0].detach(), rtol=1e-12, atol=0)
        with torch.no_grad():
            for p in learner.parameters():
                p.sub_(0.1 * p.grad if p.grad is not None else 0.0)
        learner.base.mean += 0.3
    assert len(step._passes) == 1
    batch.support.y[2] = torch.inf
    assert step(batch).finite.tolist() == [True, True, False, True]
    assert_gradient(learner, by_hand(learner, batch, [0, 1, 3]))


def test_more_threads_come_to_the_same_end() -> None:
    learner, batch, before = maml(), meta_batch(), torch.get_num_threads()
    step, gradients = OuterStep(learner, "loop", compiled=True), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            step(batch)
            gradients.append(torch.cat([p.grad.flatten() for p in learner.parameters()]))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*gradients)


def test_rounded_products_change_the_gradient_by_some_per_cent() -> None:
    learner = maml(network="context").float()
    batch = SupportQuery(*(Batch(*(t.float() for t in part)) for part in meta_batch()))
    OuterStep(learner, "loop")(batch)
    exact = torch.cat([p.grad.flatten() for p in learner.parameters()])
    OuterStep(learner, "loop", matmul="bf16")(batch)
    rounded = torch.cat([p.grad.flatten() for p in learner.parameters()])
    assert 1e-4 < ((rounded - exact).norm() / exact.norm()).item() < 0.1


def test_long_runs_are_compiled_and_short_ones_are_not() -> None:
    learner, batch = maml(), meta_batch()
    assert not OuterStep(learner, steps=100).plan(batch).compiled
    assert OuterStep(learner, steps=100_000).plan(batch).compiled
    assert not OuterStep(learner, steps=100_000, compiled=False).plan(batch).compiled


def test_tasks_at_once_follow_the_shape() -> None:
    def plan(base: nn.Module, tasks: int, points: int) -> int:
        batch = Batch(torch.zeros(tasks, 1, points, 3), torch.zeros(tasks, 1, points, 2), torch.ones(tasks, 1, points),
                      torch.zeros(tasks, 1))  # fmt: skip
        return OuterStep(MAML(BaseLearner(base, 3))).plan(SupportQuery(batch, batch)).at_once

    assert plan(MLP(3, 2, (40, 40)), 25, 10) == 25
    assert plan(MLP(39, 4, (256, 256)), 32, 250) == 4
    assert plan(MLP(39, 4, (2048, 2048)), 32, 250) == 1
    assert plan(nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU()), 25, 10) == 1


def test_an_accelerator_gets_all_tasks_at_once() -> None:
    learner, batch = maml(), meta_batch()
    there = SupportQuery(*(part.to("meta") for part in batch))
    assert OuterStep(learner, steps=100_000).plan(there) == Plan(5, False)
    assert OuterStep(learner, "loop", compiled=False).plan(there) == Plan(1, False)


@pytest.mark.parametrize("name", ["gpu", "cuda:99"])
def test_a_device_that_is_not_there_is_one_sentence(name: str) -> None:
    assert usable("cpu") == torch.device("cpu")
    with pytest.raises(QuickstudyError, match=f"no device '{name}'.*torch sees cpu"):
        usable(name)


@pytest.mark.parametrize("how", ["vmap", "loop"])
@pytest.mark.parametrize(("option", "network"), list(itertools.product(OPTIONS, NETWORKS)))
def test_written_out_meta_gradient_equals_a_loop_written_by_hand(how, option: str, network: str) -> None:
    learner, batch = maml(option, network), meta_batch()
    step = OuterStep(learner, how)
    step(batch, batching._BY_AUTOGRAD)
    assert not step._passes
    found = step(batch, batching._BY_AUTOGRAD + 1)
    assert len(step._passes) == 1
    assert_gradient(learner, by_hand(learner, batch, [*range(5)]))
    expected = torch.stack([learner.loss(one(batch, i))[0] for i in range(5)])
    torch.testing.assert_close(found.losses, expected.detach(), rtol=1e-12, atol=0)


class LooksAtValues(MAML):
    """Its loss cannot be written out, as what is done depends on a value."""

    def loss(self, task: SupportQuery) -> tuple[Tensor, dict[str, Tensor]]:
        loss, metrics = super().loss(task)
        return (loss if loss > -1.0 else 2 * loss), metrics


def test_what_cannot_be_written_out_is_left_to_autograd(recwarn: pytest.WarningsRecorder) -> None:
    torch.manual_seed(0)
    learner, batch = LooksAtValues(BaseLearner(MLP(3, 2, (8, 8)), 3)).double(), meta_batch()
    step = OuterStep(learner, "loop")
    for number in (1, 11, 12):
        step(batch, number)
        assert_gradient(learner, by_hand(learner, batch, [*range(5)]))
    assert not step._passes
    assert not recwarn


class Later:
    """Stands for a compilation that is done whenever it is asked for; what comes of it gives other bits."""

    def __init__(self, graph, inputs, threads) -> None:
        self.graph, self.done = graph, False

    def result(self):
        return lambda inputs: [2 * output for output in self.graph(*inputs)]


def test_the_step_at_which_compiled_ones_take_over_depends_on_no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "Compilation", Later)
    batch = meta_batch()

    def compiled(numbers: range) -> list[int]:
        step = OuterStep(maml(), steps=100_000)
        plain = OuterStep(maml(), compiled=False)(batch).losses
        return [n for n in numbers if torch.equal(step(batch, n).losses, 2 * plain)]

    step = OuterStep(maml(), steps=100_000)
    step(batch, 11)
    (stage,) = step._passes.values()
    assert 1_000 < stage.change_over < 50_000
    around = range(stage.change_over - 3, stage.change_over + 3)
    assert compiled(around) == [*around][3:]
    assert compiled(range(stage.change_over + 1, stage.change_over + 3)) == [*around][4:], "resumed after it"
    short = OuterStep(maml(), steps=stage.change_over)
    short(batch, 11)
    assert not next(iter(short._passes.values())).change_over, "not worth it"


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(batching, "_COMPILE_SECONDS", 1e-3)  # the change-over comes at once


@pytest.mark.usefixtures("no_compiler")
def test_without_a_compiler_auto_goes_on_with_one_warning() -> None:
    learner, batch = maml(), meta_batch()
    step = OuterStep(learner, steps=100_000)
    with pytest.warns(UserWarning, match="runs uncompiled.*CompilationError.*compiler") as caught:
        step(batch, 11), step(batch, 12)
    assert len(caught) == 1
    assert_gradient(learner, by_hand(learner, batch, [*range(5)]))
    assert not next(iter(step._passes.values())).compiled


@pytest.mark.usefixtures("no_compiler")
def test_without_a_compiler_asking_for_compilation_is_one_sentence() -> None:
    with pytest.raises(QuickstudyError, match="could not be compiled"):
        OuterStep(maml(), compiled=True)(meta_batch())


def test_rounded_products_uncompiled_is_refused() -> None:
    with pytest.raises(QuickstudyError, match="bf16"):
        OuterStep(maml(), compiled=False, matmul="bf16")


@pytest.mark.parametrize("part", ["support", "query"])
def test_a_task_without_a_real_step_is_named(part):
    batch = meta_batch()
    getattr(batch, part).mask[3] = 0.0
    with pytest.raises(QuickstudyError, match=f"Task 3 of the meta-batch has an empty {part}"):
        OuterStep(maml())(batch)


def test_a_task_without_a_real_step_is_named_however_it_is_gone_through() -> None:
    batch, step = meta_batch(), OuterStep(maml())
    step(batch, 11)
    batch.query.mask[2] = 0.0
    with pytest.raises(QuickstudyError, match="Task 2 of the meta-batch has an empty query"):
        step(batch, 12)
