"""The one outer loop: every method is meta-trained here, and only here, from demonstrations and from trials.

The loop counts, validates, keeps the best, writes checkpoints, resumes and logs. What a meta-batch of experience is and
what one outer step makes of it is the matter of a `Steps`: `DemonstrationSteps` here, for learners written for one task
and batched over tasks; `quickstudy.methods.trials.outer_loop.TrialSteps` for those that act in environments.
"""

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils._pytree import tree_map

from quickstudy.batching import Outer, OuterStep
from quickstudy.data import Source, SupportQuery
from quickstudy.errors import DivergedError, TrainingError, listed
from quickstudy.io import checkpoint
from quickstudy.io.curves import Logger
from quickstudy.io.interrupts import Abandoned, abandonable, stop_on_interrupt
from quickstudy.io.progress import console, progress
from quickstudy.learner import MetaLearner
from quickstudy.settings import TrainConfig, TrialConfig

_LOOKS = 50
"""How often the training figures are noted in a training's history, besides at validations."""

_TOLD, _WATCHED = 3, 100
"""Steps with tasks left out that are told one by one; steps after which it is asked whether most had to be."""

_HALVINGS = 8
"""Times that a training steps back before it is given up."""

_AGAIN = "the same call with resume=True goes on from there"


@dataclass(frozen=True)
class Validation:
    """How a learner is judged on validation tasks while it trains.

    Attributes:
        name: of the figure, such as 'success'.
        measure: the figure of a learner; or the figure, and all that is logged beside it by name.
        higher_is_better: which way is up.
    """

    name: str
    measure: Callable[[Any], float | tuple[float, Mapping[str, float]]]
    higher_is_better: bool = True

    def __call__(self, learner: nn.Module) -> tuple[float, Mapping[str, float]]:
        """The figure, and what is logged: 'validation/<name>' where the measure does not say more."""
        found = self.measure(learner)
        return found if isinstance(found, tuple) else (found, {f"validation/{self.name}": found})


@dataclass(frozen=True)
class Trained:
    """How a training ended.

    Attributes:
        steps: outer steps done in all.
        best: the best validation figure, or None where there was none.
        interrupted: stopped by Ctrl-C or out of time before its last step; the last checkpoint resumes it.
        history: one mapping for each look: 'step', 'train/...' and, if it was a validation, 'validation/...'.
    """

    steps: int
    best: float | None
    interrupted: bool
    history: list[dict[str, float]]


class Steps(Protocol):
    """Draws meta-batches of experience, and makes one outer step of each.

    Attributes:
        log_every: steps from one that is logged to the next.
    """

    log_every: int

    def step(self, rng: torch.Generator, number: int) -> Mapping[str, float]:
        """Outer step `number`, from 1: improves the learner in place, and returns what to log, without 'train/'."""
        ...

    def settle(self) -> None:
        """Makes sure that the learner, which will be looked at, is as the last step left it."""
        ...

    def summary(self) -> dict[str, float]:
        """What the history keeps of the steps since the last call, by names with 'train/'."""
        ...

    def note(self) -> str:
        """How it goes, in a few words for the progress bar."""
        ...

    def once(self) -> float:
        """Seconds since the last call that come but once, such as compiling; they are no part of the time left."""
        ...

    def state(self) -> dict[str, Any]:
        """What else than the learner's parameters an exact resumption needs, as a checkpoint holds it."""
        ...

    def restore(self, state: dict[str, Any], finished: bool) -> None:
        """Takes what `state` gave; of a training that is finished no more than its figures."""
        ...


class OuterGradient(Protocol):
    """Leaves the meta-gradient of a meta-batch in the parameters of a learner, as `OuterStep` does.

    Attributes:
        compiling: seconds that compilation took, since somebody set it to 0.
    """

    compiling: float

    def __call__(self, meta_batch: SupportQuery, number: int | None = None) -> Outer: ...


class DemonstrationSteps:
    """Meta-batches of demonstrations: the mean outer loss of their tasks is descended.

    Args:
        gradient: how the gradient of a meta-batch is computed; by an `OuterStep` in this process where not given.

    Raises:
        TrainingError: from `step`, where no task of a meta-batch is finite or, with `non_finite='stop'`, one is not; or
            most tasks of many steps, or of the last ones, are not.
    """

    log_every = 10

    def __init__(
        self, learner: MetaLearner, source: Source, config: TrainConfig, gradient: OuterGradient | None = None
    ) -> None:
        self.learner, self.source, self.config = learner, source, config
        self.device = next(learner.parameters()).device
        self.outer = gradient or OuterStep(learner, config.batching, config.steps)
        self.optimiser = _optimiser(learner, config)
        self.schedule = _schedule(self.optimiser, config)
        self._losses: list[float] = []
        self._last = 0.0
        self._tasks = self._left_out = self._told = 0

    def step(self, rng: torch.Generator, number: int) -> Mapping[str, float]:
        config, shots = self.config, self.config.shots
        if config.most_shots > shots:
            shots = int(torch.randint(shots, config.most_shots + 1, (), generator=rng))
        meta_batch = self.source.sample(rng, config.meta_batch, shots, config.queries).to(self.device)
        outer = self.outer(meta_batch, number)
        self._tasks += len(outer.finite)
        if not outer.finite.all():
            self._report_broken(meta_batch, outer, number)
        self._watch(number)
        if outer.compiled:  # all parameters in one operation, whose rounding is its own, as that of compiled steps is
            for group in self.optimiser.param_groups:
                group["fused"] = True
        norm = nn.utils.clip_grad_norm_(self.learner.parameters(), config.clip)
        self.optimiser.step()
        self.schedule.step()
        self._losses.append(float(outer.losses[outer.finite].detach().mean()))
        if number % self.log_every:
            return {}
        values = {name: float(value.detach().mean()) for name, value in outer.metrics.items()}
        rate = float(self.schedule.get_last_lr()[0])
        return values | {"loss": self._losses[-1], "gradient-norm": float(norm), "rate": rate}

    def settle(self) -> None:
        """Steps are made on the learner itself."""

    def summary(self) -> dict[str, float]:
        recent, self._losses = self._losses, []
        self._last = sum(recent) / max(1, len(recent))
        return {"train/loss": self._last}

    def note(self) -> str:
        recent = self._losses[-50:] or [self._last]
        return f"loss {sum(recent) / len(recent):.4f}"

    def state(self) -> dict[str, Any]:
        return {
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
            "losses": self._losses,
        }

    def restore(self, state: dict[str, Any], finished: bool) -> None:
        self._losses = list(state["losses"])
        if not finished:
            self.optimiser.load_state_dict(state["optimiser"])
            self.schedule.load_state_dict(state["schedule"])

    def once(self) -> float:
        seconds, self.outer.compiling = self.outer.compiling, 0.0
        return seconds

    def halve_rate(self, times: int) -> None:
        """Halves the rate of the outer loop, now and for all steps to come, so many times."""
        self.schedule.base_lrs = [rate / 2**times for rate in self.schedule.base_lrs]
        for group in self.optimiser.param_groups:
            group["lr"] /= 2**times

    def _report_broken(self, meta_batch: SupportQuery, outer: Outer, number: int) -> None:
        names = self.source.names()
        broken = [name for name, fine in zip(names, outer.finite.tolist(), strict=True) if not fine]
        stops = self.config.non_finite == "stop" or not outer.finite.any()
        self._left_out += len(broken)
        self._told += 1
        if not stops and self._told > _TOLD and self._told % _WATCHED:
            return
        which = self._not_finite(meta_batch, outer.finite.tolist().index(False))
        sentence = f"Step {number}: {which} of {listed(broken, 3)} is not finite"
        if stops:
            raise DivergedError(f"{sentence}; training stopped before it changed a parameter. {self._advice(number)}")
        if self._told <= _TOLD or self._told % _WATCHED == 0:
            console.print(f"{sentence}; left out of this step.", markup=False, soft_wrap=True)
        if self._told == _TOLD:
            console.print(f"Further ones are counted, and told every {_WATCHED} times.")

    def _not_finite(self, meta_batch: SupportQuery, task: int) -> str:
        """What of a task of the meta-batch is not finite: its loss, or its gradient of which tensor."""
        named = [(name, p) for name, p in self.learner.named_parameters() if p.requires_grad]
        alone = tree_map(lambda tensor: tensor[task], meta_batch)
        try:
            loss = self.learner.loss(alone)[0]
            if not loss.isfinite():
                return "the loss"
            gradients = torch.autograd.grad(loss, [p for _, p in named], allow_unused=True)
        except RuntimeError:  # where a network takes several tasks at once alone
            return "the loss or gradient"
        for (name, _), gradient in zip(named, gradients, strict=True):
            if gradient is not None and not gradient.isfinite().all():
                return f"the gradient of '{name}' for the loss"
        return "the loss or gradient"

    def _watch(self, number: int) -> None:
        """Raises TrainingError where more than half of the tasks of some steps were left out."""
        if number % _WATCHED and number < self.config.steps:
            return
        left_out, tasks, self._left_out, self._tasks = self._left_out, self._tasks, 0, 0
        if left_out > tasks / 2:
            raise DivergedError(
                f"{left_out} of {tasks} tasks of the last steps up to step {number} had to be left out, as "
                f"their loss or gradient is not finite: nothing comes of this training. {self._advice(number)}"
            )

    def _advice(self, number: int) -> str:
        """What may help against losses and gradients that are not finite."""
        rate = getattr(getattr(self.learner, "config", None), "inner_rate", None)
        if rate is not None:
            return f"Steps of the inner loop that are too large do that: try a lower --inner-rate than {rate:g}."
        if number == 1:
            return "Nothing was learned yet: 'quickstudy data doctor' finds data that lies far outside."
        return f"Outer steps that are too large do that: try a lower --training.rate than {self.config.rate:g}."


def _optimiser(learner: nn.Module, config: TrainConfig) -> Optimizer:
    """Adam or plain gradient descent at `config.rate`, the base network at its own."""
    kind = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[config.optimiser]
    if config.base_rate == 1.0:
        return kind(learner.parameters(), lr=config.rate)
    named = [(name.startswith("base."), p) for name, p in learner.named_parameters()]
    groups = [[p for of_base, p in named if of_base == wanted] for wanted in (True, False)]
    rates = (config.base_rate * config.rate, config.rate)
    return kind([{"params": some, "lr": r} for some, r in zip(groups, rates, strict=True) if some])


def _schedule(optimiser: Optimizer, config: TrainConfig) -> LRScheduler:
    """What `config.schedule` says."""
    schedules = torch.optim.lr_scheduler
    if config.schedule == "cosine":
        return schedules.LambdaLR(optimiser, partial(_cosine, steps=config.steps))
    if config.schedule == "linear":
        return schedules.LinearLR(optimiser, 1.0, 0.0, total_iters=config.steps)
    return schedules.ConstantLR(optimiser, 1.0)


def _cosine(step: int, steps: int) -> float:
    """From 1 to a hundredth."""
    return 0.01 + 0.99 * (1 + math.cos(math.pi * step / steps)) / 2


def meta_train(learner: MetaLearner, source: Source, config: TrainConfig, **options: Any) -> Trained:
    """Meta-trains a learner on demonstrations, in place, and leaves it with its best parameters on validation tasks.

    Args:
        options: those of `run`.

    Raises:
        QuickstudyError: as `run` and `DemonstrationSteps`.
    """
    return run(DemonstrationSteps(learner, source, config), learner, config, **options)


def run(
    steps: Steps,
    learner: nn.Module,
    config: TrainConfig | TrialConfig,
    *,
    seed: int = 0,
    validation: Validation | None = None,
    folder: Path | None = None,
    about: Mapping[str, Any] | None = None,
    resume: bool = False,
    logger: Logger | None = None,
    title: str = "meta-training",
    out_of_time: Callable[[], bool] = lambda: False,
    goes_on: str = _AGAIN,
) -> Trained:
    """Makes the outer steps of a training, and leaves `learner` with its best parameters on the validation tasks.

    Args:
        seed: of the generator that all meta-batches, tasks and noise are drawn from.
        folder: where `checkpoints/last` and `checkpoints/best` go; nothing is written where it is None.
        about: plain data that is kept in the checkpoints' config.json (the family, the method, the settings).
        resume: go on from `checkpoints/last` exactly as if there had been no break, if it exists.
        out_of_time: asked after every outer step; where it says so, training stops as it does at Ctrl-C.
        goes_on: what goes on with a training that was stopped, as part of a sentence.

    Raises:
        QuickstudyError: what `steps` raises, a checkpoint to resume from that is damaged or does not fit, or no finite
            figure on validation tasks.
    """
    training = _Training(steps, learner, config, seed, validation, folder, dict(about or {}), logger)
    if resume and folder is not None and checkpoint.exists(folder / "checkpoints/last"):
        training.restore()
    training.keep()
    with stop_on_interrupt() as stopped, progress(title, config.steps, training.step) as advance:
        if training.owes_look and training.look(validate=True):
            training.save("last")
        while training.unfinished and not (stopped.is_set() or out_of_time()):
            try:
                if not training.outer_step():
                    break
            except DivergedError as error:
                training.step_back(error)
                continue
            if training.step % config.validate_every == 0 or training.step == config.steps:
                if training.look(validate=True):
                    training.save("last")
            elif training.step % max(1, config.steps // _LOOKS) == 0:
                training.look(validate=False)
            advance(1, training.note(), steps.once())
    if training.unfinished:
        training.save("last")
        if folder is not None:
            said = f"Stopped at step {training.step} of {config.steps}; {goes_on}."
            console.print(said, markup=False, soft_wrap=True)
    elif validation is not None and training.best is None:
        raise TrainingError(
            f"Nothing came of {config.steps} steps: no look at the validation tasks gave a finite {validation.name}, "
            "so that there is no best learner."
        )
    training.take_best()
    return Trained(training.step, training.best, training.unfinished, training.history)


class _Training:
    """The state of one training, all of which a checkpoint holds."""

    def __init__(
        self,
        steps: Steps,
        learner: nn.Module,
        config: TrainConfig | TrialConfig,
        seed: int,
        validation: Validation | None,
        folder: Path | None,
        about: dict[str, Any],
        logger: Logger | None,
    ) -> None:
        self.steps, self.learner, self.config, self.validation = steps, learner, config, validation
        self.folder, self.about, self.logger = folder, about, logger
        self.rng = torch.Generator().manual_seed(seed)
        self.step = 0
        self.best: float | None = None
        self.history: list[dict[str, float]] = []
        self.best_state: dict[str, torch.Tensor] | None = None
        self.owes_look = False
        """Ctrl-C came while the learner was judged, so that this is still to be done."""
        self.halvings = self._since_kept = 0
        self._kept: tuple[dict[str, torch.Tensor], dict[str, Any]] | None = None

    @property
    def unfinished(self) -> bool:
        return self.step < self.config.steps or self.owes_look

    def outer_step(self) -> bool:
        """Makes one, unless Ctrl-C comes while its compilation is waited for; says whether it did."""
        before = self.rng.get_state()
        try:
            figures = self.steps.step(self.rng, self.step + 1)
        except Abandoned:
            self.rng.set_state(before)
            return False
        self.step += 1
        if self.logger is not None and self.step % self.steps.log_every == 0:
            self.logger.log(self.step, {f"train/{name}": value for name, value in figures.items()})
        return True

    def step_back(self, error: DivergedError) -> None:
        """Goes back to the last checkpoint and halves the rate, where the settings say so; raises `error` otherwise."""
        if self._kept is None or self.halvings >= _HALVINGS or not isinstance(self.steps, DemonstrationSteps):
            raise error
        self.halvings += 1
        self._since_kept += 1
        parameters, state = copy.deepcopy(self._kept)
        self.learner.load_state_dict(parameters)
        self._take(state)
        self.steps.halve_rate(self._since_kept)
        said = f"{error} Back to step {self.step}, with half the rate ({self.halvings} of at most {_HALVINGS} times)."
        console.print(said, markup=False, soft_wrap=True)

    def keep(self) -> None:
        """Notes the state of now to step back to, where that may be asked for."""
        if getattr(self.config, "non_finite", "") == "halve":
            self._kept = copy.deepcopy((self.learner.state_dict(), self._state()))
            self._since_kept = 0

    def note(self) -> str:
        return self.steps.note() + ("" if self.best is None else f", best {self.best:.3f}")

    def look(self, validate: bool) -> bool:
        """Notes what happened since the last look and, if asked, the figures on validation tasks.

        Says whether it came to that; a Ctrl-C that comes while the learner is judged leaves all as it was.
        """
        judged = None
        if validate and self.validation is not None:
            self.steps.settle()
            try:
                with abandonable():
                    judged = self.validation(self.learner)
            except Abandoned:
                self.owes_look = True
                return False
        self.owes_look = False
        figures = {"step": float(self.step), **self.steps.summary()}
        if judged is not None and self.validation is not None:
            value, said = judged
            figures |= said
            if self.logger is not None:
                self.logger.log(self.step, said)
            sign = 1.0 if self.validation.higher_is_better else -1.0
            if math.isfinite(value) and (self.best is None or sign * value >= sign * self.best):
                self.best = value
                self.best_state = {n: t.detach().clone() for n, t in self.learner.state_dict().items()}
                self.save("best")
        self.history.append(figures)
        return True

    def save(self, which: Literal["last", "best"]) -> None:
        if which == "last":
            self.keep()
        if self.folder is None:
            return
        config = {**self.about, "training": asdict(self.config), "step": self.step, "history": self.history}
        state = self._state() if which == "last" else None
        checkpoint.save(self.folder / "checkpoints" / which, self.learner.state_dict(), config, state)

    def _state(self) -> dict[str, Any]:
        return {
            "steps": self.steps.state(),
            "rng": self.rng.get_state(),
            "step": self.step,
            "best": self.best,
            "history": self.history,
            "halvings": self.halvings,
            "owes-look": self.owes_look,
        }

    def restore(self) -> None:
        assert self.folder is not None
        where = self.folder / "checkpoints/last"
        saved = checkpoint.load_to_resume(where, asdict(self.config), asdict(type(self.config)()))
        assert saved.training is not None
        checkpoint.load_into(self.learner, saved.tensors, str(where))
        self._take(saved.training)
        self.halvings = saved.training.get("halvings", 0)
        if self.best is not None:
            self.best_state = dict(checkpoint.load(self.folder / "checkpoints/best").tensors)

    def _take(self, state: dict[str, Any]) -> None:
        """Takes what `_state` gave."""
        self.step, self.best, self.history = state["step"], state["best"], list(state["history"])
        self.rng.set_state(state["rng"])
        self.owes_look = bool(state.get("owes-look", False))
        # Before version 0.2 what `steps` keeps lay among the rest.
        self.steps.restore(state.get("steps", state), finished=self.step >= self.config.steps)

    def take_best(self) -> None:
        if self.best_state is not None:
            self.learner.load_state_dict(self.best_state)
