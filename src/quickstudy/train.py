"""The one outer loop: every method is meta-trained here, and only here."""

import math
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from quickstudy.batching import How, Outer, OuterStep
from quickstudy.data import Source
from quickstudy.errors import QuickstudyError
from quickstudy.io import checkpoint
from quickstudy.io.progress import console, progress
from quickstudy.learner import MetaLearner

_LOOKS = 50
"""How often the training loss is noted in a training's history, besides at validations."""


@dataclass(frozen=True)
class TrainConfig:
    """Settings of the outer loop.

    Attributes:
        steps: outer steps, one meta-batch each.
        meta_batch: tasks in a meta-batch.
        shots: support demonstrations of each task.
        most_shots: where it is larger, each meta-batch has a number of shots drawn from `shots` to this one, so that
            a learner with a memory of its support knows supports of every length.
        queries: query demonstrations of each task.
        rate: outer learning rate.
        base_rate: factor of the rate for the base network, beside that for what else a method learns; 0 freezes it.
        optimiser: of the outer loop: 'adam', or 'sgd' without momentum.
        schedule: of the rate over all steps: a 'cosine' to a hundredth of it, 'linear' to zero, or 'constant'.
        clip: largest norm of the meta-gradient; longer ones are shortened to it.
        validate_every: outer steps between two looks at the validation tasks; a checkpoint is written each time.
        non_finite: what to do about a task whose loss or gradient is not finite: 'skip' it and say so, or 'stop'.
        batching: how a meta-batch is gone through, see `quickstudy.batching`.
    """

    steps: int = 3000
    meta_batch: int = 16
    shots: int = 1
    most_shots: int = 1
    queries: int = 2
    rate: float = 1e-3
    base_rate: float = 1.0
    optimiser: Literal["adam", "sgd"] = "adam"
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    clip: float = 10.0
    validate_every: int = 500
    non_finite: Literal["skip", "stop"] = "skip"
    batching: How = "auto"

    def __post_init__(self) -> None:
        for name in ("steps", "meta_batch", "shots", "queries", "validate_every", "rate", "clip"):
            if not getattr(self, name) > 0:
                raise QuickstudyError(f"{name} must be positive; got {getattr(self, name)}.")
        if self.base_rate < 0:
            raise QuickstudyError(f"base_rate must not be negative; got {self.base_rate}.")


@dataclass(frozen=True)
class Validation:
    """How a learner is judged on validation tasks while it trains.

    Attributes:
        name: of the figure, such as 'success'.
        measure: the figure of a learner.
        higher_is_better: which way is up.
    """

    name: str
    measure: Callable[[MetaLearner], float]
    higher_is_better: bool = True


class Logger(Protocol):
    """Where training figures go."""

    def log(self, step: int, values: Mapping[str, float]) -> None: ...


class TensorBoard:
    """Logs to TensorBoard event files in `folder`."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()


@dataclass(frozen=True)
class Trained:
    """How a training ended.

    Attributes:
        steps: outer steps done in all.
        best: the best validation figure, or None where there was none.
        interrupted: stopped by Ctrl-C or out of time before its last step; the last checkpoint resumes it.
        history: one mapping for each look: 'step', 'train/loss' and, if it was a validation, 'validation/<name>'.
    """

    steps: int
    best: float | None
    interrupted: bool
    history: list[dict[str, float]]


def default_optimiser(config: TrainConfig) -> Callable[[nn.Module], Optimizer]:
    """Adam or plain gradient descent at `config.rate`, the base network at its own."""
    kind = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[config.optimiser]

    def make(learner: nn.Module) -> Optimizer:
        if config.base_rate == 1.0:
            return kind(learner.parameters(), lr=config.rate)
        named = [(name.startswith("base."), p) for name, p in learner.named_parameters()]
        groups = [[p for of_base, p in named if of_base == wanted] for wanted in (True, False)]
        rates = (config.base_rate * config.rate, config.rate)
        return kind([{"params": some, "lr": r} for some, r in zip(groups, rates, strict=True) if some])

    return make


def default_schedule(config: TrainConfig) -> Callable[[Optimizer], LRScheduler]:
    """What `config.schedule` says."""
    schedules = torch.optim.lr_scheduler
    return {
        "cosine": lambda o: schedules.LambdaLR(o, partial(_cosine, steps=config.steps)),
        "linear": lambda o: schedules.LinearLR(o, 1.0, 0.0, total_iters=config.steps),
        "constant": lambda o: schedules.ConstantLR(o, 1.0),
    }[config.schedule]


def _cosine(step: int, steps: int) -> float:
    """From 1 to a hundredth."""
    return 0.01 + 0.99 * (1 + math.cos(math.pi * step / steps)) / 2


def meta_train(
    learner: MetaLearner,
    source: Source,
    config: TrainConfig,
    *,
    seed: int = 0,
    validation: Validation | None = None,
    folder: Path | None = None,
    about: Mapping[str, Any] | None = None,
    resume: bool = False,
    optimiser: Callable[[nn.Module], Optimizer] | None = None,
    schedule: Callable[[Optimizer], LRScheduler] | None = None,
    logger: Logger | None = None,
    title: str = "meta-training",
    out_of_time: Callable[[], bool] = lambda: False,
) -> Trained:
    """Meta-trains `learner` in place and leaves it with its best parameters on the validation tasks.

    Args:
        folder: where `checkpoints/last` and `checkpoints/best` go; nothing is written where it is None.
        about: plain data that is kept in the checkpoints' config.json (the family, the method, the settings).
        resume: go on from `checkpoints/last` exactly as if there had been no break, if it exists.
        optimiser, schedule: made from the learner and from the optimiser; where not given, what `config` says.
        out_of_time: asked after every outer step; where it says so, training stops as it does at Ctrl-C.

    Raises:
        QuickstudyError: no task of a meta-batch is finite or, with `non_finite='stop'`, one is not; or a checkpoint
            to resume from is damaged or does not fit.
    """
    run = _Run(learner, source, config, seed, validation, folder, dict(about or {}), logger)
    run.optimiser = (optimiser or default_optimiser(config))(learner)
    run.schedule = (schedule or default_schedule(config))(run.optimiser)
    if resume and folder is not None and checkpoint.exists(folder / "checkpoints/last"):
        run.restore()
    with stop_on_interrupt() as stopped, progress(title, config.steps, run.step) as advance:
        while run.step < config.steps and not (stopped.is_set() or out_of_time()):
            outer = run.outer_step()
            advance(1, run.note(outer))
            if run.step % config.validate_every == 0 or run.step == config.steps:
                run.look(validate=True)
                run.save("last")
            elif run.step % max(1, config.steps // _LOOKS) == 0:
                run.look(validate=False)
    if run.step < config.steps:
        run.save("last")
        if folder is not None:
            console.print(f"Stopped at step {run.step} of {config.steps}; the same command goes on from there.")
    run.take_best()
    return Trained(run.step, run.best, run.step < config.steps, run.history)


class _Run:
    """The state of one training, all of which a checkpoint holds."""

    optimiser: Optimizer
    schedule: LRScheduler

    def __init__(
        self,
        learner: MetaLearner,
        source: Source,
        config: TrainConfig,
        seed: int,
        validation: Validation | None,
        folder: Path | None,
        about: dict[str, Any],
        logger: Logger | None,
    ) -> None:
        self.learner, self.source, self.config, self.validation = learner, source, config, validation
        self.folder, self.about, self.logger = folder, about, logger
        self.device = next(learner.parameters()).device
        self.rng = torch.Generator().manual_seed(seed)
        self.outer = OuterStep(learner, config.batching, config.steps)
        self.step = 0
        self.best: float | None = None
        self.history: list[dict[str, float]] = []
        self.best_state: dict[str, torch.Tensor] | None = None
        self._losses: list[float] = []

    def outer_step(self) -> Outer:
        config = self.config
        shots = config.shots
        if config.most_shots > shots:
            shots = int(torch.randint(shots, config.most_shots + 1, (), generator=self.rng))
        meta_batch = self.source.sample(self.rng, config.meta_batch, shots, config.queries).to(self.device)
        outer = self.outer(meta_batch)
        self.step += 1
        if not outer.finite.all():
            self._report_broken(outer)
        norm = nn.utils.clip_grad_norm_(self.learner.parameters(), config.clip)
        self.optimiser.step()
        self.schedule.step()
        self._losses.append(float(outer.losses[outer.finite].detach().mean()))
        if self.logger is not None and self.step % 10 == 0:
            values = {name: float(value.detach().mean()) for name, value in outer.metrics.items()}
            rate = float(self.schedule.get_last_lr()[0])
            values |= {"loss": self._losses[-1], "gradient-norm": float(norm), "rate": rate}
            self.logger.log(self.step, {f"train/{name}": value for name, value in values.items()})
        return outer

    def _report_broken(self, outer: Outer) -> None:
        names = self.source.names()
        broken = [name for name, fine in zip(names, outer.finite.tolist(), strict=True) if not fine]
        sentence = f"Step {self.step}: the loss or gradient of {', '.join(broken)} is not finite"
        if self.config.non_finite == "stop" or not outer.finite.any():
            raise QuickstudyError(f"{sentence}; training stopped before it changed a parameter. Try a lower rate.")
        console.print(f"{sentence}; left out of this step.")

    def note(self, outer: Outer) -> str:
        recent = self._losses[-50:] or [self.history[-1]["train/loss"]]
        return f"loss {sum(recent) / len(recent):.4f}" + ("" if self.best is None else f", best {self.best:.3f}")

    def look(self, validate: bool) -> None:
        """Notes the mean loss since the last look and, if asked, the figure on validation tasks."""
        recent, self._losses = self._losses, []
        figures = {"step": float(self.step), "train/loss": sum(recent) / max(1, len(recent))}
        if validate and self.validation is not None:
            name, sign = self.validation.name, 1.0 if self.validation.higher_is_better else -1.0
            value = self.validation.measure(self.learner)
            figures[f"validation/{name}"] = value
            if self.logger is not None:
                self.logger.log(self.step, {f"validation/{name}": value})
            if math.isfinite(value) and (self.best is None or sign * value >= sign * self.best):
                self.best = value
                self.best_state = {n: t.detach().clone() for n, t in self.learner.state_dict().items()}
                self.save("best")
        self.history.append(figures)

    def save(self, which: Literal["last", "best"]) -> None:
        if self.folder is None:
            return
        config = {**self.about, "training": asdict(self.config), "step": self.step, "history": self.history}
        state = None
        if which == "last":
            state = {
                "optimiser": self.optimiser.state_dict(),
                "schedule": self.schedule.state_dict(),
                "rng": self.rng.get_state(),
                "step": self.step,
                "best": self.best,
                "history": self.history,
                "losses": self._losses,
            }
        checkpoint.save(self.folder / "checkpoints" / which, self.learner.state_dict(), config, state)

    def restore(self) -> None:
        assert self.folder is not None
        where = self.folder / "checkpoints/last"
        saved = checkpoint.load_to_resume(where, asdict(self.config), asdict(TrainConfig()))
        assert saved.training is not None
        checkpoint.load_into(self.learner, saved.tensors, str(where))
        state = saved.training
        self.step, self.best, self.history = state["step"], state["best"], list(state["history"])
        if self.step < self.config.steps:
            self.optimiser.load_state_dict(state["optimiser"])
            self.schedule.load_state_dict(state["schedule"])
            self.rng.set_state(state["rng"])
        self._losses = list(state["losses"])
        if self.best is not None:
            self.best_state = dict(checkpoint.load(self.folder / "checkpoints/best").tensors)

    def take_best(self) -> None:
        if self.best_state is not None:
            self.learner.load_state_dict(self.best_state)


@contextmanager
def stop_on_interrupt() -> Iterator[threading.Event]:
    """The first Ctrl-C asks for a clean stop after the step at hand; a second one interrupts at once."""
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return

    def on_interrupt(number: int, frame: Any) -> None:
        if stopped.is_set():
            raise KeyboardInterrupt
        stopped.set()

    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield stopped
    finally:
        signal.signal(signal.SIGINT, before)
