"""The demonstration of the whole product: meta-training, a comparison, films and the report."""

import time
from dataclasses import replace
from pathlib import Path

from quickstudy.families import own as families
from quickstudy.io.progress import console
from quickstudy.methods.catalogue import DataConfig, Settings, defaults
from quickstudy.report.build import headline, write_report
from quickstudy.results import tables
from quickstudy.results.compare import Protocol, compare
from quickstudy.results.runs import save_example
from quickstudy.simulation import rendering

FILMED = "meta-sgd"
METHODS = (
    "meta-sgd",
    "maml",
    "transfer",
    "transfer-equal-time",
    "scratch",
    "no-adaptation",
    "replay",
    "nearest",
    "oracle",
)
"""Few of them, so that it stays a matter of minutes."""
PROTOCOL = Protocol(
    seeds=1, tasks=50, episodes=2, tuning_tasks=20, tuning_steps=(20, 100), tuning_rates=(3e-4, 1e-3, 3e-3)
)
FAMILY = "grasping"


def settings_for(method: str, seed: int) -> Settings:
    """A short training: the defaults of the family, on fewer tasks and for fewer steps."""
    settings = defaults(FAMILY, method, seed)
    return replace(
        settings,
        training=replace(settings.training, steps=600, validate_every=300),
        data=DataConfig(tasks=200, demonstrations=4, validation_tasks=25, validation_episodes=2),
    )


def demo(folder: Path, video: bool) -> Path:
    """Meta-trains on grasping, compares, films, and writes `folder/report.html`; goes on where it was stopped.

    Returns:
        where the report is.
    """
    started = time.perf_counter()
    family = families.get(FAMILY)
    console.print(
        "An arm learns to learn how objects must be grasped: meta-training on "
        f"{settings_for(FILMED, 0).data.tasks} objects, then one demonstration of each object it has never seen."
    )
    cells = compare(family, METHODS, settings_for, PROTOCOL, folder, "quickstudy demo")
    save_example(family, folder / f"{FILMED}-seed0")
    if video and not rendering.available():
        console.print(f"No video: {rendering.why_not()}")
    tables.print_comparison(cells)
    report = write_report(folder, "quickstudy demo", video)
    run = folder / f"{FILMED}-seed0"
    console.print(f"\n{headline(cells)} ({(time.perf_counter() - started) / 60:.1f} minutes)")
    console.print(f"The report, with plots and videos of the arm: [bold]{report}[/]", soft_wrap=True)
    console.print("Next, with the learner that was just trained (see quickstudy --help for more):", soft_wrap=True)
    console.print(f"  quickstudy adapt {run} --demo {next((run / 'examples').iterdir())}", soft_wrap=True)
    console.print(f"  quickstudy evaluate {run} --shots 0 1 3", soft_wrap=True)
    console.print("  quickstudy families grasping", soft_wrap=True)
    return report
