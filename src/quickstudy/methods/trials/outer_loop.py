"""What the outer loop does with a method that learns by trial: a step of meta-training, and the look at validation."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from quickstudy.errors import QuickstudyError, TrainingError
from quickstudy.families.base import SimulatedFamily
from quickstudy.io.progress import console
from quickstudy.methods.trials.evaluation import evaluate_trials
from quickstudy.methods.trials.learner import Figures, TrialLearner
from quickstudy.settings import TrialConfig
from quickstudy.task import Task

Elsewhere = Callable[[TrialLearner, Sequence[Task], torch.Generator], tuple[Any, int]]


class TrialSteps:
    """Meta-batches of experience: environments of tasks just drawn, in which the learner makes one outer step.

    It is a `quickstudy.train.Steps`.

    Args:
        elsewhere: collects the experience of tasks for `TrialLearner.improve`, and says how many faults there were;
            where not given, environments are made in this process.
    """

    log_every = 1

    def __init__(
        self, learner: TrialLearner, family: SimulatedFamily, config: TrialConfig, elsewhere: Elsewhere | None = None
    ) -> None:
        self.learner, self.family, self.config, self.elsewhere = learner, family, config, elsewhere
        self.faults = self._made = self._left_out = 0
        self._figures: Figures = {}

    def step(self, rng: torch.Generator, number: int) -> Figures:
        """One outer step, the `number`-th, counted from 1.

        Draws tasks, makes their environments and lets the learner learn in them. A step whose gradient is not finite is
        left out, reported and counted among the faults.

        Returns:
            what to log: what the learner says of its step, and 'faults', all failures so far.

        Raises:
            QuickstudyError: more faults than `config.most_faults`, or most steps left out.
        """
        self._decay_rate(number - 1)
        self._made += 1
        tasks = self.family.draw(self.config.meta_batch, rng)
        try:
            self._figures = self._improve(tasks, rng)
        except FloatingPointError as error:
            self._figures = {}
            self.faults += 1
            self._left_out += 1
            console.print(f"Step {number}: {error}; left out.", markup=False)
        if self.faults > self.config.most_faults:
            raise QuickstudyError(
                f"{self.faults} failures by step {number}, the last among {tasks[0].name} to {tasks[-1].name}; "
                f"{self.config.most_faults} are the limit. What failed was said above, as it happened."
            )
        if number == self.config.steps and self._left_out > self._made / 2:
            raise TrainingError(
                f"{self._left_out} of {self._made} steps had to be left out, as their gradient is not finite: nothing "
                "came of this training. A lower rate may help."
            )
        return self._figures | {"faults": float(self.faults)}

    def _improve(self, tasks: Sequence[Task], rng: torch.Generator) -> Figures:
        """The learner's outer step."""
        if self.elsewhere is not None:
            experience, faults = self.elsewhere(self.learner, tasks, rng)
            self.faults += faults
            return self.learner.improve(experience, tasks, rng)
        env = self.family.vector_env(tasks, self.config.episodes_per_task)
        try:
            return self.learner.outer_step(env, rng)
        finally:
            self.faults += env.faults
            env.close()

    def once(self) -> float:
        """Nothing comes but once."""
        return 0.0

    def settle(self) -> None:
        """Steps are made on the learner itself."""

    def summary(self) -> Figures:
        """What the history keeps of the last step."""
        return {f"train/{name}": value for name, value in (self._figures | {"faults": float(self.faults)}).items()}

    def note(self) -> str:
        """What the last step's returns were, for a progress bar."""
        return ", ".join(f"{k} {v:.2f}" for k, v in self._figures.items() if k.startswith("return"))

    def state(self) -> dict[str, Any]:
        """What an exact resumption needs, as a checkpoint holds it."""
        return {"learner": self.learner.state(), "faults": self.faults}

    def restore(self, state: dict[str, Any], finished: bool = False) -> None:
        """Takes what `state` gave; of a training that is finished the count of faults alone."""
        self.faults = state["faults"]
        if not finished:
            self.learner.restore(state["learner"])

    def _decay_rate(self, done: int) -> None:
        """The rate falls to zero in a straight line over the last `lr_decay_fraction` of all steps."""
        if self.config.lr_decay_fraction and self.learner.optimiser is not None:
            share = min(1.0, (1 - done / self.config.steps) / self.config.lr_decay_fraction)
            for group in self.learner.optimiser.param_groups:
                group["lr"] = share * group.setdefault("initial_lr", group["lr"])


def validate(learner: TrialLearner, family: SimulatedFamily, config: TrialConfig) -> tuple[float, Figures]:
    """How the learner does on validation tasks.

    Returns:
        the figure that chooses among checkpoints, the mean of the family's metric after the last round; and the means
        of the metric and of what the family shows beside it, as 'validation/<name>-<round>'.
    """
    rounds, tasks = range(config.validation_rounds + 1), config.validation_tasks
    result = evaluate_trials(learner, family, "validation", rounds, tasks, config.episodes_per_task)
    means = {name: result.metrics[name].mean((1, 2)).tolist() for name in (family.metric, *family.secondary_metrics)}
    figures = {f"validation/{name}-{k}": value for name, mean in means.items() for k, value in enumerate(mean)}
    return means[family.metric][-1], figures
