"""The outer loop of learning by trial: every method is meta-trained here, and only here."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from quickstudy.errors import QuickstudyError
from quickstudy.io import checkpoint
from quickstudy.io.progress import console, progress
from quickstudy.methods.trials.evaluation import evaluate_trials
from quickstudy.methods.trials.learner import Figures, TrialLearner
from quickstudy.simulation.vector_env import TrialFamily
from quickstudy.train import Logger, Trained, stop_on_interrupt


@dataclass(frozen=True)
class TrialConfig:
    """Settings of the outer loop.

    Attributes:
        steps: outer steps, one meta-batch of freshly drawn tasks each.
        meta_batch: tasks in a meta-batch.
        episodes_per_task: episodes of each task between two updates; for a learner with a memory, trials of each task.
        validate_every: outer steps between two looks at the validation tasks; a checkpoint is written each time.
        validation_tasks: of each look.
        validation_rounds: adaptations after which the family's metric on them chooses among checkpoints.
        most_faults: environments that may fail, rewards that may be no numbers and steps that may be not finite, all
            together, before training stops.
        lr_decay_fraction: share of the steps, the last ones, over which the rate of the learner's optimiser falls to zero in a
            straight line; 0 keeps it as it is. What a learner does decides what it learns from: one that still changes
            is tested on experience that it has only begun to make.
    """

    steps: int = 200
    meta_batch: int = 20
    episodes_per_task: int = 20
    validate_every: int = 20
    validation_tasks: int = 20
    validation_rounds: int = 1
    most_faults: int = 100
    lr_decay_fraction: float = 0.0

    def __post_init__(self) -> None:
        for name in (
            "steps",
            "meta_batch",
            "episodes_per_task",
            "validate_every",
            "validation_tasks",
            "validation_rounds",
        ):
            if not getattr(self, name) > 0:
                raise QuickstudyError(f"{name} must be positive; got {getattr(self, name)}.")
        if self.most_faults < 0:
            raise QuickstudyError(f"most_faults must not be negative; got {self.most_faults}.")
        if not 0 <= self.lr_decay_fraction <= 1:
            raise QuickstudyError(f"lr_decay_fraction must be between 0 and 1; got {self.lr_decay_fraction}.")


def train_by_trial(
    learner: TrialLearner,
    family: TrialFamily,
    config: TrialConfig,
    *,
    seed: int = 0,
    folder: Path | None = None,
    about: Mapping[str, Any] | None = None,
    resume: bool = False,
    logger: Logger | None = None,
    title: str = "meta-training",
) -> Trained:
    """Meta-trains `learner` in place and leaves it with its best parameters on the validation tasks.

    Args:
        folder: where `checkpoints/last` and `checkpoints/best` go; nothing is written where it is None.
        about: plain data that is kept in the checkpoints' config.json.
        resume: go on from `checkpoints/last` exactly as if there had been no break, if it exists.

    Raises:
        QuickstudyError: more faults than `config.most_faults`, or a checkpoint that is damaged or does not fit.
    """
    run = _Run(learner, family, config, seed, folder, dict(about or {}), logger)
    if resume and folder is not None and checkpoint.exists(folder / "checkpoints/last"):
        run.restore()
    with stop_on_interrupt() as stopped, progress(title, config.steps, run.step) as advance:
        while run.step < config.steps and not stopped.is_set():
            run.outer_step()
            if run.step % config.validate_every == 0 or run.step == config.steps:
                run.look()
                run.save("last")
            advance(1, run.note())
    if run.step < config.steps:
        run.save("last")
        if folder is not None:
            console.print(f"Stopped at step {run.step} of {config.steps}; the same command goes on from there.")
    run.take_best()
    return Trained(run.step, run.best, run.step < config.steps, run.history)


class _Run:
    """The state of one training, all of which a checkpoint holds."""

    def __init__(
        self,
        learner: TrialLearner,
        family: TrialFamily,
        config: TrialConfig,
        seed: int,
        folder: Path | None,
        about: dict[str, Any],
        logger: Logger | None,
    ) -> None:
        self.learner, self.family, self.config = learner, family, config
        self.folder, self.about, self.logger = folder, about, logger
        self.rng = torch.Generator().manual_seed(seed)
        self.step, self.faults = 0, 0
        self.best: float | None = None
        self.history: list[dict[str, float]] = []
        self.best_state: dict[str, Tensor] | None = None
        self._figures: Figures = {}

    def outer_step(self) -> None:
        config = self.config
        self._decay_rate()
        env = self.family.vector_env(self.family.draw(config.meta_batch, self.rng), config.episodes_per_task)
        try:
            self._figures = self.learner.outer_step(env, self.rng)
        except FloatingPointError as error:
            self.faults += 1
            console.print(f"Step {self.step + 1}: {error}; left out.")
        finally:
            self.faults += env.faults
            env.close()
        self.step += 1
        if self.faults > config.most_faults:
            names = f"{env.tasks[0].name} to {env.tasks[-1].name}"
            raise QuickstudyError(
                f"{self.faults} failures by step {self.step}, the last among {names}; {config.most_faults} are the "
                "limit. What failed was said above, as it happened."
            )
        if self.logger is not None:
            self.logger.log(self.step, {f"train/{k}": v for k, v in self._figures.items() | {("faults", self.faults)}})

    def _decay_rate(self) -> None:
        if self.config.lr_decay_fraction and self.learner.optimiser is not None:
            share = min(1.0, (1 - self.step / self.config.steps) / self.config.lr_decay_fraction)
            for group in self.learner.optimiser.param_groups:
                group["lr"] = share * group.setdefault("initial_lr", group["lr"])

    def note(self) -> str:
        said = [f"{k} {v:.2f}" for k, v in self._figures.items() if k.startswith("return")]
        return ", ".join(said) + ("" if self.best is None else f", best {self.best:.2f}")

    def look(self) -> None:
        """Notes the last step's figures and how it does on validation tasks, and keeps the best parameters."""
        config = self.config
        result = evaluate_trials(
            self.learner,
            self.family,
            "validation",
            config.validation_rounds,
            config.validation_tasks,
            config.episodes_per_task,
        )
        means = {
            name: result.metrics[name].mean((1, 2)).tolist()
            for name in (self.family.metric, *self.family.secondary_metrics)
        }
        by_round = means[self.family.metric]
        figures = {f"validation/{name}-{k}": value for name, mean in means.items() for k, value in enumerate(mean)}
        if self.logger is not None:
            self.logger.log(self.step, figures)
        if math.isfinite(by_round[-1]) and (self.best is None or by_round[-1] >= self.best):
            self.best = by_round[-1]
            self.best_state = {n: t.detach().clone() for n, t in self.learner.state_dict().items()}
            self.save("best")
        train = {f"train/{k}": v for k, v in self._figures.items()}
        self.history.append({"step": float(self.step), "faults": float(self.faults), **train, **figures})

    def save(self, which: Literal["last", "best"]) -> None:
        if self.folder is None:
            return
        config = {**self.about, "training": asdict(self.config), "step": self.step, "history": self.history}
        state = None
        if which == "last":
            state = {
                "learner": self.learner.state(),
                "rng": self.rng.get_state(),
                "step": self.step,
                "faults": self.faults,
                "best": self.best,
                "history": self.history,
            }
        checkpoint.save(self.folder / "checkpoints" / which, self.learner.state_dict(), config, state)

    def restore(self) -> None:
        assert self.folder is not None
        where = self.folder / "checkpoints/last"
        saved = checkpoint.load_to_resume(where, asdict(self.config), asdict(TrialConfig()))
        assert saved.training is not None
        checkpoint.load_into(self.learner, saved.tensors, str(where))
        state = saved.training
        self.learner.restore(state["learner"])
        self.rng.set_state(state["rng"])
        self.step, self.faults, self.best = state["step"], state["faults"], state["best"]
        self.history = list(state["history"])
        if self.best is not None:
            self.best_state = dict(checkpoint.load(self.folder / "checkpoints/best").tensors)

    def take_best(self) -> None:
        if self.best_state is not None:
            self.learner.load_state_dict(self.best_state)
