"""A comparison ranks, counts what it cost, keeps to its budget and goes on without doing anything twice."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import quickstudy
from quickstudy import experiment, families, methods
from quickstudy.errors import QuickstudyError
from quickstudy.evaluation import Evaluation
from quickstudy.experiment import Experiment
from quickstudy.families.classic import PointNavigation, Sinusoid
from quickstudy.families.navigation2d import Navigation2D
from quickstudy.families.recognition.family import Recognition
from quickstudy.io.budget import Budget, OutOfTime, seconds_of
from quickstudy.method import Method
from quickstudy.results import compare as comparing
from quickstudy.results import runs, tables
from quickstudy.results.compare import Protocol, compare, suited, usual
from quickstudy.results.evidence import Cell, Row
from quickstudy.results.rows import rows, write_cell
from quickstudy.settings import Changes

FAMILY = PointNavigation()
PROTOCOL = Protocol(seeds=2, tasks=4, episodes=2, shots=(0, 1))


QUICK: Changes = {
    "training": {"steps": 4, "meta_batch": 3, "validate_every": 2, "batching": "vmap"},
    "data": {"tasks": 6, "demonstrations": 4, "validation_tasks": 2, "validation_episodes": 1},
}


def experiment_for(method: str | Method, seed: int) -> Experiment:
    return Experiment.of(FAMILY, method, seed, QUICK)


@pytest.fixture
def worked(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Counts trainings that took a step, and evaluations on test tasks."""
    counts = {"trainings": 0, "evaluations": 0}
    evaluate, meta_train = experiment.evaluate, experiment.meta_train

    def counting(learner: Any, family: Any, split: str, **rest: Any) -> Evaluation:
        counts["evaluations"] += split == "test"
        return evaluate(learner, family, split, **rest)

    def training(*arguments: Any, folder: Path, **rest: Any) -> Any:
        counts["trainings"] += not (folder / "checkpoints/last").exists()
        return meta_train(*arguments, folder=folder, **rest)

    monkeypatch.setattr(experiment, "evaluate", counting)
    monkeypatch.setattr(experiment, "meta_train", training)
    return counts


def test_a_comparison_goes_on_where_its_budget_ended(tmp_path: Path, worked: dict[str, int], capsys) -> None:
    methods = ("maml", "nearest")

    def go(budget: Budget | None = None) -> list[Cell]:
        return compare(
            FAMILY, methods, PROTOCOL, tmp_path, experiment_for=experiment_for, command="again", budget=budget
        )

    assert go(Budget(0.0)) == []
    assert worked == {"trainings": 0, "evaluations": 0}
    assert "4 of 4 did not fit" in capsys.readouterr().out

    class Two(Budget):
        """Ends after two evaluations."""

        def left(self) -> float:
            return 2.0 - worked["evaluations"]

    (cell,) = go(Two())
    assert worked == {"trainings": 1, "evaluations": 2}
    assert {row.method: row.note for row in cell.rows} == {"maml": "1 of 2 seeds", "nearest": "1 of 2 seeds"}
    assert "2 of 4 did not fit (maml seed 1, nearest seed 1)" in " ".join(capsys.readouterr().out.split())

    (cell,) = go()
    assert worked == {"trainings": 2, "evaluations": 4}
    assert {row.seeds for row in cell.rows} == {2}
    assert {row.note for row in cell.rows} == {""}
    go()
    assert worked == {"trainings": 2, "evaluations": 4}, "finished cells are never run again"

    maml = next(row for row in cell.rows if row.method == "maml")
    assert (maml.train_tasks, maml.demonstrations) == (6, 24)
    assert maml.env_steps is not None
    assert 24 <= maml.env_steps <= 24 * FAMILY.horizon
    assert maml.parameters is not None
    nearest = next(row for row in cell.rows if row.method == "nearest")
    assert (nearest.train_tasks, nearest.parameters, nearest.training_s) == (None, None, None)
    assert {p.name for p in tmp_path.glob("comparison.*")} == {"comparison.csv", "comparison.json", "comparison.tex"}


def test_training_stops_with_the_budget_and_goes_on(tmp_path: Path) -> None:
    made = experiment_for("maml", 0)

    class Ends(Budget):
        asked = 0

        def left(self) -> float:
            self.asked += 1
            return 1.0 if self.asked == 1 else 0.0

    with pytest.raises(OutOfTime):
        made.train(tmp_path, budget=Ends())
    config = json.loads((tmp_path / "checkpoints/last/config.json").read_text())
    assert 0 < config["step"] < 4
    made.train(tmp_path)
    assert json.loads((tmp_path / "checkpoints/last/config.json").read_text())["step"] == 4


def evaluation(values: list[list[list[float]]], shots: tuple[int, ...] = (1,)) -> Evaluation:
    return Evaluation(
        "test", [str(i) for i in range(len(values[0]))], list(shots), {"success": np.array(values)}, [1.0]
    )


def test_rows_have_iqm_and_probability_of_improvement_by_hand() -> None:
    better = [evaluation([[[1.0, 1.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0]]])]
    worse = [evaluation([[[0.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 1.0]]])]
    (row,) = rows(methods.get("maml"), FAMILY, better, worse)
    assert (row.value, row.iqm) == (0.625, 0.75)  # 0, 0.5, 1, 1; the middle two
    assert row.improvement == 0.5  # a win, two ties, a loss
    assert row.improvement_ci95 is not None
    assert row.improvement_ci95[0] <= 0.5 <= row.improvement_ci95[1]
    (row,) = rows(methods.get("maml"), FAMILY, better)
    assert row.improvement is None


def test_draws_of_one_kind_are_one_task() -> None:
    """ML10's five test tasks take turns: of fifty draws three kinds succeed always, two never."""
    family = families.get("ml10-imitation")
    values = np.repeat((np.arange(50) % 5 < 3)[None, :, None] * 1.0, 4, 2)
    found = Evaluation("test", [str(i) for i in range(50)], [1], {"success": values, "success_last": values}, [1.0])
    (row,) = rows(methods.get("replay"), family, [found, found])
    assert (row.tasks, row.distinct_tasks, row.episodes, row.seeds) == (50, 5, 4, 2)
    assert row.ci95 == pytest.approx((0.1466, 0.9473), abs=0.02)
    assert row.scores is not None
    assert np.array(row.scores).shape == (2, 50)
    assert row.groups == [i % 5 for i in range(50)]


@pytest.mark.parametrize(
    ("family", "split", "distinct"),
    [
        *(("ml10-imitation", "test", 5), ("ml45-imitation", "test", 5), ("ml45-imitation", "validation", 45)),
        *(("ml1-push", "test", 50), ("ml1-door-open", "test", 1), ("ml10-fixed-start", "test", 5)),
        *(("tools", "tools", 50), ("tools", "tasks", 1), ("cheetah-direction", "test", 2)),
        *(("cheetah-velocity", "test", 50), ("grasping", "sizes", 50), ("sinusoid", "test", 50)),
    ],
)
def test_families_say_which_tasks_are_distinct(family: str, split: str, distinct: int) -> None:
    made = families.get(family)
    assert len({made.task_key(task) for task in made.tasks(split, 50)}) == distinct


def test_classes_in_another_order_are_one_task_and_an_alphabet_is_one() -> None:
    x, classes = np.zeros((24, 3)), {"train": [np.arange(4)] * 4, "test": [np.arange(4)] * 6}
    whole = Recognition("a", x, classes, 2, 2)
    assert len({whole.task_key(task) for task in whole.tasks("test", 300)}) == 15  # pairs of six
    domains = {"train": np.zeros(4), "test": np.array([0, 0, 0, 1, 1, 1])}
    by_domain = Recognition("a", x, classes, 2, 2, domains=domains)
    assert len({by_domain.task_key(task) for task in by_domain.tasks("test", 300)}) == 2


def test_less_is_better_turns_the_improvement_round() -> None:
    small = [Evaluation("test", ["a"], [5], {"mse": np.array([[[0.1]]])}, [1.0])]
    large = [Evaluation("test", ["a"], [5], {"mse": np.array([[[0.9]]])}, [1.0])]
    (row,) = rows(methods.get("maml"), Sinusoid(), small, large)
    assert row.improvement == 1.0


def test_suited_methods_come_in_the_order_in_which_they_need_each_other() -> None:
    names = [method.name for method in suited(FAMILY)]
    assert {"maml", "mann", "replay", "transfer-equal-time", "oracle"} <= set(names)
    assert "prototypical" not in names
    assert names.index("transfer-equal-time") > names.index("maml")
    assert names.index("scratch") > names.index("transfer")
    x = np.zeros((20, 3))
    images = Recognition("a", x, {"train": [np.arange(4)] * 2, "test": [np.arange(4)] * 2}, 2, 2)
    names = [method.name for method in suited(images)]
    assert "prototypical" in names
    assert "replay" not in names


def test_a_comparison_holds_what_is_usual_for_the_family() -> None:
    assert {method.learns_from for method in suited(Navigation2D())} == {"demonstrations", "trials"}
    assert {method.learns_from for method in usual(Navigation2D())} == {"demonstrations"}
    assert "hypernet-roles" not in [method.name for method in usual(Navigation2D())]
    by_reward = families.get("cheetah-velocity")
    assert {method.learns_from for method in usual(by_reward)} == {"trials"}


def test_methods_of_both_ways_stand_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few: Changes = {"training": {"steps": 2, "meta_batch": 2, "validate_every": 2}}
    quick: dict[str, Changes] = {
        "maml": {**QUICK, "training": {**QUICK["training"], "steps": 2}},
        "replay": {},
        "rl2": {
            "training": {**few["training"], "episodes_per_task": 2, "validation_tasks": 2},
            "algorithm": {"width": 8, "minibatches": 2},
        },
    }
    family, protocol = Navigation2D(), Protocol(seeds=1, tasks=3, episodes=2, trial_episodes=4, shots=(0, 1))
    (cell,) = compare(
        family, list(quick), protocol, tmp_path, experiment_for=lambda m, s: Experiment.of(family, m, s, quick[str(m)])
    )
    assert {(row.method, row.role, row.learns_from, row.shots, row.tasks, row.episodes) for row in cell.rows} == {
        ("maml", "meta-learner", "demonstrations", 0, 3, 2),
        ("maml", "meta-learner", "demonstrations", 1, 3, 2),
        ("replay", "floor", "demonstrations", 1, 3, 2),
        ("rl2", "meta-learner", "trials", 0, 3, 4),
        ("rl2", "meta-learner", "trials", 1, 3, 4),
    }
    assert "from its demonstrations alone" in cell.protocol
    assert "a learner by trial adapts to its own episodes" in cell.protocol
    tables.print_comparison([cell], Console(width=400))
    said = " ".join(capsys.readouterr().out.split())
    assert "after 1 demonstration" in said
    assert "after 1 own episode" in said
    cost = {row.method: (row.train_tasks, row.demonstrations) for row in cell.rows}
    assert cost == {"maml": (6, 24), "replay": (None, None), "rl2": (4, None)}
    (run,) = runs.listed(tmp_path)
    assert (run.kind, run.method, run.state, run.progress) == ("comparison", "maml replay rl2", "finished", (3, 3))


def test_methods_that_learn_nothing_record_few_training_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded: list[int] = []
    demonstrate = PointNavigation.demonstrate

    def counting(self: PointNavigation, tasks: Any, count: int, seed: int) -> Any:
        recorded.append(sum(task.split == "train" for task in tasks))
        return demonstrate(self, tasks, count, seed)

    monkeypatch.setattr(PointNavigation, "demonstrate", counting)
    protocol = Protocol(seeds=1, tasks=2, episodes=1, shots=(1,))
    compare("point-navigation", ["replay", "nearest"], protocol, tmp_path)
    assert sum(recorded) == 2 * 50, "the scale of observations is taken from some"
    assert Experiment.of(Navigation2D(), "scratch-ppo").source() is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30min", 1800), ("1h30min", 5400), ("1h 30m", 5400), ("0.5h", 1800), ("2d", 172800)],
)
def test_durations(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "soon", "-5min", "0s", "5 weeks", "1h and a bit"])
def test_no_durations(text: str) -> None:
    with pytest.raises(QuickstudyError, match="A budget is a duration such as 90s, 30min, 1h30min or 2d"):
        seconds_of(text)


def test_a_budget_begins_nothing_that_took_longer_before() -> None:
    budget = Budget(3600.0)
    with budget.part("a"):
        pass
    budget._longest["a"] = 4000.0
    with pytest.raises(OutOfTime), budget.part("a"):
        raise AssertionError("begun")
    with budget.part("b"):
        pass


# ---- one table


def cells() -> list[Cell]:
    made = Cell("grasping-sizes", "success", "fraction", "Hidden: 50 % & more_than_that.", "c", 60, "abc", {}, "m", [
        Row("meta-sgd", 0, 0.1, (0.0, 0.2), 2, 10, 2),
        Row("meta-sgd", 1, 0.934, (0.91, 0.955), 2, 10, 2, iqm=0.95, iqm_ci95=(0.9, 1.0), improvement=0.8,
            improvement_ci95=(0.7, 0.9), ms=4.2, env_steps=12_000, train_tasks=40, demonstrations=160),
        Row("transfer", 1, 0.5, (0.4, 0.6), 2, 10, 2, iqm=0.5, ms=400.0),
    ], reference="transfer")  # fmt: skip
    return [made, replace(made, cell="grasping-shapes", rows=made.rows[1:])]


def test_csv_has_a_line_for_each_row_in_full() -> None:
    lines = list(csv.DictReader(io.StringIO(tables.to_csv(cells()))))
    assert [(line["split"], line["method"], line["shots"]) for line in lines] == [
        ("sizes", "meta-sgd", "0"), ("sizes", "meta-sgd", "1"), ("sizes", "transfer", "1"),
        ("shapes", "meta-sgd", "1"), ("shapes", "transfer", "1"),
    ]  # fmt: skip
    assert (lines[1]["value"], lines[1]["ci95_low"], lines[1]["improvement_ci95_high"]) == (
        "0.934", "0.91", "0.9",
    )  # fmt: skip
    assert lines[1]["env_steps"] == "12000"
    assert lines[0]["iqm"] == ""


def test_json_is_the_cells() -> None:
    plain = json.loads(tables.to_json(cells()))
    assert list(plain) == ["sizes", "shapes"]
    assert plain["sizes"]["rows"][1]["iqm"] == 0.95
    assert Cell(**{**plain["shapes"], "rows": [Row(**row) for row in plain["shapes"]["rows"]]}) == cells()[1]


def test_latex_is_escaped_and_whole() -> None:
    text = tables.to_latex(cells())
    assert r"Hidden: 50 \% \& more\_than\_that." in text
    assert r"\emph{sizes}" in text
    assert r"93.4 [91.0, 95.5]" in text
    body = [line for line in text.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
    assert len(body) == 1 + 2 + 2
    assert len({line.count(" & ") for line in body}) == 1
    assert text.count(r"\begin{") == text.count(r"\end{") == 2


def test_rows_of_single_tasks_are_no_part_of_the_tables_of_all() -> None:
    first, second = cells()
    detailed = [replace(first, rows=[*first.rows, Row("meta-sgd", 1, 0.9, workload="a mug")]), second]
    assert tables.to_latex(detailed) == tables.to_latex(cells())


@pytest.mark.parametrize("width", [100, 300])
def test_the_terminal_shows_every_figure(width: int) -> None:
    text = io.StringIO()
    tables.print_comparison(cells(), Console(file=text, width=width))
    for part in ("sizes", "shapes", "93.4", "[91.0,", "12,000", "transfer"):
        assert part in text.getvalue()


def test_old_cells_are_read_and_new_ones_come_back(tmp_path: Path) -> None:
    for cell in (*cells(), replace(cells()[0], against="training tasks", rows=[Row("maml", 1, 0.5, at=25.0)])):
        cell.write(tmp_path / "a.json")
        assert Cell.read(tmp_path / "a.json") == cell
    for path in Path("benchmarks/results").glob("*.json"):
        assert "iqm" not in path.read_text() or Cell.read(path).rows


def test_ranks_best_first_and_lower_is_better_where_it_is(tmp_path: Path) -> None:
    class Done:
        def __init__(self, method: str, value: float) -> None:
            self.method, self.value = methods.get(method), value

        def evaluation(self, split: str) -> Evaluation:
            return Evaluation("test", ["a"], [5], {"mse": np.full((1, 1, 1), self.value)}, [1.0])

        def costs(self, runs: Any) -> dict[str, Any]:
            return {}

    done: Any = {name: [Done(name, value)] for name, value in (("maml", 0.3), ("reptile", 0.1), ("transfer", 0.2))}
    cell = comparing._cell_of("test", done, Sinusoid(), Protocol(1, tasks=1, episodes=1), 1.0, tmp_path, "c")
    assert [row.method for row in cell.rows] == ["reptile", "transfer", "maml"]
    assert cell.reference == "transfer"
    assert [row.improvement for row in cell.rows] == [1.0, None, 0.0]


def test_a_table_says_what_its_metric_counts_in(tmp_path):
    class Rooted(Sinusoid):
        metric = "rmse"

    for family, unit in ((FAMILY, "fraction"), (Sinusoid(), "squared error"), (Rooted(), "")):
        assert write_cell(family, "test", [Row("maml", 1, 0.5)], 1.0, tmp_path, "command").unit == unit


def test_a_folder_that_holds_a_run_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "checkpoints/last").mkdir(parents=True)
    (tmp_path / "checkpoints/last/config.json").write_text("{}")
    with pytest.raises(QuickstudyError, match="holds a run; a comparison needs a folder of its own"):
        compare("point-navigation", ["nearest"], folder=tmp_path)
    assert not (tmp_path / "settings.json").exists()


def test_the_numbers_of_a_comparison_by_name(tmp_path):
    numbers = {"seeds": 1, "tasks": 2, "episodes": 1, "splits": ("test",)}
    (cell,) = quickstudy.compare("point-navigation", methods=["replay", "nearest"], folder=tmp_path, **numbers)
    assert {(row.method, row.seeds, row.tasks) for row in cell.rows} == {("replay", 1, 2), ("nearest", 1, 2)}
    with pytest.raises(QuickstudyError, match="Unknown number of a comparison 'sedes'"):
        quickstudy.compare("point-navigation", methods=["replay"], folder=tmp_path / "other", sedes=1)
