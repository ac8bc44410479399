"""Run folders of learning by trial: checkpoints, curves and tables, as those of `quickstudy.results.runs`."""

import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from quickstudy.errors import QuickstudyError
from quickstudy.evaluate import Evaluation
from quickstudy.io import checkpoint
from quickstudy.methods.catalogue import from_plain
from quickstudy.methods.trials.catalogue import UNTRAINED, TrialSettings, build, family
from quickstudy.methods.trials.evaluation import evaluate_trials
from quickstudy.methods.trials.learner import TrialLearner
from quickstudy.methods.trials.outer_loop import train_by_trial
from quickstudy.results.compare import TRAINING_SECONDS, Protocol, clock, rows
from quickstudy.results.evidence import Cell, Row
from quickstudy.simulation.vector_env import TrialFamily
from quickstudy.train import TensorBoard, Trained

_MEASURES = {"return": "return", "success": "success at any step, %", "success_last": "success at the last step, %"}


def train(settings: TrialSettings, family: TrialFamily, folder: Path) -> Trained:
    """Meta-trains in a run folder, or goes on there; `folder` gets checkpoints, curves and the seconds it took."""
    learner = build(settings, family)
    about = {"settings": asdict(settings)}
    if settings.method in UNTRAINED:
        checkpoint.save(folder / "checkpoints/best", learner.state_dict(), about)
        return Trained(0, None, False, [])
    with clock(folder / TRAINING_SECONDS):
        return train_by_trial(
            learner,
            family,
            settings.training,
            seed=settings.seed,
            folder=folder,
            about=about,
            resume=True,
            logger=TensorBoard(folder / "tensorboard"),
            title=f"{settings.method}, seed {settings.seed}",
        )


def check_folder(folder: Path, settings: TrialSettings, resume: bool) -> None:
    """Raises QuickstudyError where a training must not start in this folder, before anything is computed."""
    where = folder / "checkpoints/last"
    if not checkpoint.exists(where):
        if resume:
            raise QuickstudyError(f"There is nothing to resume in '{folder}': it has no checkpoints/last.")
        return
    if not resume:
        raise QuickstudyError(f"'{folder}' holds a run already; add --resume to go on with it, or name another folder.")
    then = asdict(load_settings(folder, "last"))
    changed = [name for name, value in asdict(settings).items() if then[name] != value]
    if changed:
        raise QuickstudyError(
            f"'{folder}' was trained with other settings of {', '.join(changed)}; resume with the same."
        )


def load_settings(run: Path, which: str = "best") -> TrialSettings:
    """The settings of a run folder.

    Raises:
        QuickstudyError: not a run folder of learning by trial.
    """
    where = run / "checkpoints" / which
    if not checkpoint.exists(where):
        raise QuickstudyError(
            f"'{run}' is not a run folder: it has no checkpoints/{which}. 'quickstudy rl-train' makes one."
        )
    plain = checkpoint.load(where).config.get("settings")
    if not isinstance(plain, dict):
        raise QuickstudyError(f"'{where}/config.json' does not say with which settings it was trained.")
    made: TrialSettings = from_plain(TrialSettings, plain, f"{where}/config.json")
    return made


def load(run: Path, which: str = "best") -> tuple[TrialSettings, TrialFamily, TrialLearner]:
    """The settings, family and trained learner of a run folder."""
    settings = load_settings(run, which)
    of = family(settings.family)
    learner = build(settings, of)
    where = run / "checkpoints" / which
    checkpoint.load_into(learner, checkpoint.load(where).tensors, str(where))
    return settings, of, learner


def evaluate_run(
    run: Path, split: str | None, rounds: int, tasks: int | None, episodes_per_task: int | None, seed: int, command: str
) -> Cell:
    """Evaluates a run's learner on a split and writes the table to the run folder.

    Args:
        split: by default the first to test on.
        tasks: held-out tasks; 100, or all where there are fewer.
        episodes_per_task: episodes of each task in a round; the family's own number by default.
    """
    started = time.perf_counter()
    settings, of, learner = load(run)
    split = of.test_splits[0] if split is None else split
    tasks = min(100, of.sizes.get(split, 100)) if tasks is None else tasks
    result = evaluate_trials(
        learner, of, split, rounds, tasks, of.episodes if episodes_per_task is None else episodes_per_task, seed
    )
    made = trial_rows(settings.method, of, [result], learner.shares_experience)
    cell = table(of, split, made, time.perf_counter() - started, command)
    cell.write(run / "results" / f"{cell.cell}.json")
    return cell


def trial_rows(method: str, family: TrialFamily, evaluations: list[Evaluation], shares_experience: bool) -> list[Row]:
    """One row for each round: after how many own episodes, and for a method without a memory how many updates."""
    first = evaluations[0]
    tasks, episodes = first.metrics[family.metric].shape[1:]
    made = rows(method, family, Protocol(tasks=tasks, episodes=episodes), evaluations)
    if family.secondary_metrics:
        made = [replace(row, secondary_metrics=_beside(family, evaluations, k)) for k, row in enumerate(made)]
    return [replace(row, steps=k) for k, row in enumerate(made)] if shares_experience else made


def _beside(family: TrialFamily, evaluations: list[Evaluation], k: int) -> dict[str, float]:
    """The mean over seeds, tasks and episodes of what the family reports beside its metric, after k rounds."""
    means = {name: float(np.mean([e.metrics[name][k] for e in evaluations])) for name in family.secondary_metrics}
    titles = {name: _MEASURES.get(name, name) for name in means}
    return {titles[name]: round(100 * mean if "%" in titles[name] else mean, 4) for name, mean in means.items()}


def table(family: TrialFamily, split: str, made: list[Row], seconds: float, command: str) -> Cell:
    what = {"return": "undiscounted return"}.get(family.metric, family.metric)
    return Cell.measured_here(
        cell=f"rl-{family.name}" + ("" if split == family.test_splits[0] else f"-{split}"),
        metric=family.metric,
        unit="fraction" if family.metric.startswith("success") else "",
        protocol=(
            f"Held-out tasks of split '{split}'; {family.protocol}; a shot is an own episode with its rewards, no "
            f"demonstration; every episode counts, exploration included; mean {what} of the policy that explores with "
            "a 95 % bootstrap interval over tasks and seeds."
        ),
        command=command,
        seconds=seconds,
        rows=made,
    )
