"""Few-shot recognition of Omniglot characters, each method beside the figures of its paper.

    quickstudy data omniglot                  # once
    python -m benchmarks.omniglot             # trains and evaluates all; resumes where it was stopped
    python -m benchmarks.omniglot --methods prototypical maml --ways 5

Writes benchmarks/results/omniglot-{5w1s,5w5s,20w1s,20w5s,within-alphabet}.json. A learner is trained with one shot and
evaluated with one and with five. Methods without parameters for single classes are trained on 60-way tasks alone, as
Snell et al. 2017 do, and evaluated on both. Some start from the embedding that prototypical networks have learned
there: the table says so, and counts both trainings.
"""

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import tyro

from quickstudy import families
from quickstudy.data import DemonstrationSet
from quickstudy.evaluation import Evaluation, adaptation_ms, evaluate, first_shots
from quickstudy.experiment import TRAINING_SECONDS, Experiment, clock, seconds_so_far
from quickstudy.io import files
from quickstudy.io.progress import console
from quickstudy.learner import MetaLearner
from quickstudy.results.evidence import Cell, Row
from quickstudy.results.rows import figures
from quickstudy.results.tables import print_table
from quickstudy.task import TaskFamily

NARROW = "-narrow"
"""What is added to a method's name where its network is the small one of the methods that go through it often."""

VIEWS = "-views"
"""What is added to a method's name where its trained network embeds five copies of each image, see `nets.ConvNet`."""

ANY_WAYS = frozenset(
    {"prototypical", "prototypical" + NARROW, "prototypical" + VIEWS, "siamese", "matching", "matching-fce", "hypernet"}
)
"""Methods none of whose parameters belongs to a class."""

DESCENDING = ("maml", "maml-batch-statistics", "anil", "reptile", "meta-lstm")

STARTS = {
    "hypernet": "prototypical",
    **dict.fromkeys(("mann", *DESCENDING), "prototypical" + NARROW),
}
"""Methods whose base network starts as what another method learned on 60-way tasks."""

SMALL = {"channels": (32, 32, 64, 64), "embedding": 64}

FROM_START: dict[str, dict[str, dict[str, Any]]] = {
    "mann": {"network": SMALL},
    **{
        method: {"training": {"steps": 800, "rate": 3e-4, "validate_every": 200}}
        for method in ("maml", "maml-batch-statistics", "anil")
    },
    "reptile": {
        "algorithm": {"inner_optimiser": "sgd", "inner_rate": 0.01},
        "training": {"steps": 1000, "validate_every": 250},
    },
    # At a rate of 1e-3, fine for 5 classes, 20 of them ended at 77 % and, after five shots, at 61: 94 and 99 were left.
    "meta-lstm": {"training": {"steps": 300, "rate": 1e-4, "base_rate": 0.2, "most_shots": 5, "validate_every": 100}},
}
"""What these do otherwise than when they train from a random network: fewer and smaller steps."""

TRANSDUCTIVE = "-batch-statistics"
"""What is added to a method's name where its network normalises by the statistics of the batch at hand."""

METHODS = (
    "mann",
    "mann-raw",
    "meta-lstm",
    "siamese",
    "matching",
    "matching-fce",
    "maml",
    "maml" + TRANSDUCTIVE,
    "anil",
    "reptile",
    "prototypical",
    "prototypical" + NARROW,
    "prototypical" + VIEWS,
    "hypernet",
    "nearest",
)

PUBLISHED = {
    "mann-paper": (("Santoro et al. 2016", 82.8, 94.9, None, None),),
    "siamese-paper": (("Koch et al. 2015, as in Vinyals et al. 2016", 97.3, 98.4, 88.2, 97.0),),
    "matching-paper": (("Vinyals et al. 2016", 98.1, 98.9, 93.8, 98.5),),
    "maml-paper": (("Finn et al. 2017, transductive", 98.7, 99.9, 95.8, 98.9),),
    "maml-tasknorm-paper": (("Bronskill et al. 2020, best that is not transductive", 94.4, None, 90.0, None),),
    "reptile-paper": (("Nichol et al. 2018", 95.39, 98.90, 88.14, 96.65),),
    "reptile-transductive-paper": (("Nichol et al. 2018, transductive", 97.68, 99.48, 89.43, 97.12),),
    "prototypical-paper": (("Snell et al. 2017", 98.8, 99.7, 96.0, 98.9),),
}
"""Per cent at 5-way 1- and 5-shot, 20-way 1- and 5-shot."""

SHOTS = (1, 5)


@dataclass(frozen=True)
class Recognise:
    """What to run."""

    methods: tuple[str, ...] = METHODS
    ways: tuple[int, ...] = (5, 20)
    within_alphabet: bool = True
    """Also the 20-way 1-shot test within one alphabet, of the methods that need no 20-way training of their own."""
    tasks: int = 2000
    queries: int = 20
    """Of each task, each recognised alone."""
    seed: int = 0
    device: str = "cpu"
    """What trains and evaluates; milliseconds to adapt are the processor's all the same."""
    output_dir: Path = Path("runs/omniglot")


def start_of(method: str, family: str) -> tuple[str, str] | None:
    """The method and family whose training this one starts from."""
    return (STARTS[method], "omniglot-60way") if method in STARTS and "within" not in family else None


def experiment_for(method: str, family: str, what: Recognise) -> Experiment:
    """The method's experiment by default, with the network that its name says, and from where it starts."""
    plain = method.removesuffix(TRANSDUCTIVE).removesuffix(NARROW).removesuffix(VIEWS)
    start = start_of(method, family)
    changes = FROM_START.get(method, {}) if start else {}
    if method.endswith(NARROW):
        changes = {"network": SMALL, "training": {"steps": 4000}}
    if method.endswith(TRANSDUCTIVE):
        changes = {**changes, "network": {**changes.get("network", {}), "batch_statistics": True}}
    folder = str(run_folder(*start, what)) if start else ""
    return Experiment.of(family, plain, what.seed, changes, start=folder)


def trained_on(method: str, family: str) -> str:
    """The family whose tasks a method is trained on, to be evaluated on another one."""
    return "omniglot-60way" if method in ANY_WAYS and "within" not in family else family


def run_folder(method: str, family: str, what: Recognise) -> Path:
    return what.output_dir / f"{trained_on(method, family)}-{method.removesuffix(VIEWS)}"


def learner_for(method: str, name: str, what: Recognise) -> tuple[MetaLearner, float]:
    """A trained learner that fits the family of this name, and the seconds that its training took."""
    where, folder = trained_on(method, name), run_folder(method, name, what)
    start = start_of(method, where)
    seconds = learner_for(*start, what)[1] if start else 0.0
    trained = experiment_for(method, where, what)
    learner = trained.train(folder, device=what.device)
    if where != name or method.endswith(VIEWS):
        settings = trained.settings
        if method.endswith(VIEWS):
            settings = settings.changed({"network": {"num_augmentations": 5}})
        fitting = replace(trained, settings=settings, family=families.get(name)).build()
        fitting.load_state_dict(learner.state_dict())
        learner = fitting
    return learner, seconds + seconds_so_far(folder / TRAINING_SECONDS)


def measured(method: str, name: str, what: Recognise) -> list[Row]:
    """A row for each number of shots."""
    path = what.output_dir / f"{name}-{method}-{what.tasks}x{what.queries}.json"
    if not path.exists():
        console.print(f"[bold]{method}[/] on {name}")
        family = families.get(name)
        learner, seconds = learner_for(method, name, what)
        shots = SHOTS if "within" not in name else SHOTS[:1]
        wanted = {"tasks": what.tasks, "episodes": what.queries, "shots": shots, "seed": what.seed}
        result = evaluate(learner.to(what.device), family, "test", **wanted)
        together: list[float | None] = [None] * len(shots)
        if method.endswith(TRANSDUCTIVE):
            both = evaluate(learner, family, "test", **wanted, transductive=True)
            together = [round(float(v.mean()), 4) for v in both.metrics["accuracy"]]
        learned = replace(experiment_for(method, trained_on(method, name), what), family=family).parameters()
        if what.device != "cpu":
            result = replace(result, adaptation_ms=on_the_processor(learner.to("cpu"), family, shots, what.seed))
        rows = [row(method, name, result, i, together[i], learned, seconds, what) for i in range(len(shots))]
        files.write(path, json.dumps([vars(r) for r in rows]))
    return [Row(**plain) for plain in json.loads(path.read_text())]


def on_the_processor(learner: MetaLearner, family: TaskFamily, shots: Sequence[int], seed: int) -> list[float]:
    """Milliseconds to adapt to one task after so many shots."""
    support = DemonstrationSet.record(family, family.tasks("test", 1), max(shots), seed).batch
    return [adaptation_ms(learner, first_shots(support, k)) for k in shots]


def row(
    method: str,
    name: str,
    result: Evaluation,
    place: int,
    together: float | None,
    learned: int | None,
    seconds: float,
    what: Recognise,
) -> Row:
    accuracies = result.metrics["accuracy"][place].mean(-1)
    family = families.get(name)
    keys = [family.task_key(task) for task in family.tasks("test", what.tasks)]
    start = start_of(method, trained_on(method, name))
    notes = [f"starts from {start[0]}"] if start else []
    if what.device != "cpu":
        notes.append(f"trained on {torch.cuda.get_device_name(what.device)}")
    return Row(
        method,
        result.shots[place],
        episodes=what.queries,
        **figures(accuracies[None], keys),
        ms=round(result.adaptation_ms[place], 2),
        transductive=together,
        parameters=learned,
        training_s=round(seconds, 1) or None,
        note="; ".join(notes),
    )


def published(shots: int, ways: int) -> list[Row]:
    place = {(1, 5): 1, (5, 5): 2, (1, 20): 3, (5, 20): 4}[(shots, ways)]
    return [
        Row(name, shots, figures[place] / 100, note=str(figures[0]))
        for name, (figures,) in PUBLISHED.items()
        if figures[place] is not None
    ]


def write(cell: str, rows: Sequence[Row], name: str, what: Recognise, command: str) -> None:
    family = families.get(name)
    made = Cell.measured_here(
        cell=cell,
        metric="accuracy",
        unit="fraction",
        protocol=(
            f"{family.protocol}; one training seed; 'transductive' shows all queries of a task "
            "to a network with batch statistics together; mean accuracy with a 95 % interval over distinct tasks."
        ),
        command=command,
        seconds=seconds_so_far(what.output_dir / "seconds.json"),
        rows=rows,
    )
    made.write(Path("benchmarks/results") / f"{cell}.json")
    print_table(made)


def main(what: Recognise) -> None:
    command = shlex.join(["python", "-m", "benchmarks.omniglot", *sys.argv[1:]])
    tables: dict[tuple[str, int], list[Row]] = {}
    with clock(what.output_dir / "seconds.json"):
        for ways in what.ways:
            for method in what.methods:
                for found in measured(method, f"omniglot-{ways}way", what):
                    tables.setdefault((f"{ways}w{found.shots}s", ways), []).append(found)
        within = [m for m in what.methods if what.within_alphabet and m in ANY_WAYS]
        alphabet = "omniglot-within-alphabet-20way"
        apart = [found for method in within for found in measured(method, alphabet, what)]
    for (cell, ways), rows in tables.items():
        shots = int(cell.split("w")[1][0])
        write(f"omniglot-{cell}", [*rows, *published(shots, ways)], f"omniglot-{ways}way", what, command)
    if apart:
        write("omniglot-within-alphabet", apart, alphabet, what, command)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(tyro.cli(Recognise))
