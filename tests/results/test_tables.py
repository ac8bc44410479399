"""Tables by hand, in every format; what methods learned from is said, where it could be mistaken."""

import csv
import io
from dataclasses import replace

from rich.console import Console

from quickstudy.results import tables
from quickstudy.results.evidence import Cell, Row

FEW_SHOT = Cell(
    cell="grasping-sizes",
    metric="success",
    unit="fraction",
    protocol="Size and grasp point are hidden; success is held after one second.",
    command="quickstudy compare grasping --splits sizes",
    seconds=812.4,
    commit="0123456789ab",
    versions={"torch": "2.13.0", "python": "3.11.2"},
    machine="2 cores, CPU",
    rows=[
        Row("maml", 0, 0.21, (0.18, 0.25), 3, 100, 5, ms=0.1, role="meta-learner"),
        Row("maml", 1, 0.934, (0.91, 0.955), 3, 100, 5, ms=41.26, role="meta-learner"),
        Row("replay", 1, 0.02, (0.01, 0.031), 3, 100, 5, note="open loop | as recorded", role="floor"),
    ],
)
SPEED = replace(
    FEW_SHOT,
    cell="speed-outer-step",
    metric="time",
    unit="ms",
    rows=[
        Row("learn2learn", workload="W1", threads=2, ms=156.0, ratio=1.0),
        Row("quickstudy", workload="W1", threads=2, ms=0.0912, ratio=1710.0, memory_mb=120),
    ],
)
SINUSOID = replace(
    FEW_SHOT,
    cell="sinusoid",
    metric="squared error",
    unit="",
    rows=[Row("maml", 5, 0.67, (0.6, 0.7), steps=1), Row("maml", 5, 0.35123, steps=10)],
)
BOTH = replace(
    FEW_SHOT,
    rows=[
        Row("maml", 1, 0.9, iqm=0.95, role="meta-learner"),
        Row("pearl", 0, 0.2, role="meta-learner", learns_from="trials"),
        Row("pearl", 20, 0.6, iqm=0.65, steps=1, role="meta-learner", learns_from="trials"),
    ],
)


def test_markdown_by_hand() -> None:
    assert tables.to_markdown(FEW_SHOT) == (
        "| method | success, % after 0 shots | success, % after 1 shot | ms to adapt | note |\n"
        "| :-- | --: | --: | --: | :-- |\n"
        "| maml | 21.0 [18.0, 25.0] | 93.4 [91.0, 95.5] | 41.3 |  |\n"
        "| replay | – | 2.0 [1.0, 3.1] | – | open loop \\| as recorded |\n"
        "\n"
        "Size and grasp point are hidden; success is held after one second.\n"
        "100 tasks × 5 episodes × 3 training seeds; measured in 14 min on 2 cores, CPU, torch 2.13.0, "
        "commit 0123456789ab. Again: `quickstudy compare grasping --splits sizes`\n"
    )


def test_speeds_and_steps_have_their_columns() -> None:
    speed, sinusoid = tables.table(SPEED), tables.table(SINUSOID)
    assert speed.headers == ["workload", "method", "threads", "ms", "ratio", "MB"]
    assert speed.rows == [
        ["W1", "learn2learn", "2", "156", "1.00", "–"],
        ["W1", "quickstudy", "2", "0.0912", "1,710", "120"],
    ]
    assert sinusoid.headers == [
        "method",
        "squared error after 5 shots, 1 step",
        "squared error after 5 shots, 10 steps",
    ]
    assert sinusoid.rows == [["maml", "0.670 [0.600, 0.700]", "0.351"]]


def test_terminal_table_shows_every_figure() -> None:
    text = io.StringIO()
    tables.print_table(FEW_SHOT, Console(file=text, width=140))
    for part in ("grasping-sizes", "93.4 [91.0, 95.5]", "open loop", "14 min"):
        assert part in text.getvalue()


def test_baselines_and_words_are_known() -> None:
    made = tables.table(FEW_SHOT)
    assert made.baselines == [False, True]
    assert made.words == [True, False, False, False, True]
    assert made.headers[made.method] == "method"


def test_demonstrations_and_own_episodes_beside_each_other() -> None:
    made = tables.table(BOTH)
    assert made.headers == [
        "method",
        "success, % after 1 demonstration",
        "success, % after 0 own episodes",
        "success, % after 20 own episodes, 1 update",
        "IQM, % after 1 demonstration",
        "IQM, % after 20 own episodes",
    ]
    assert made.rows == [["maml", "90.0", "–", "–", "95.0", "–"], ["pearl", "–", "20.0", "60.0", "–", "65.0"]]
    only = tables.table(replace(BOTH, rows=BOTH.rows[1:]))
    assert only.headers[1:3] == ["success, % after 0 own episodes", "success, % after 20 own episodes, 1 update"]
    lines = list(csv.DictReader(io.StringIO(tables.to_csv([BOTH]))))
    assert [(line["shots"], line["learns_from"]) for line in lines] == [
        ("1", "demonstrations"),
        ("0", "trials"),
        ("20", "trials"),
    ]
    assert "20 own episodes, 1 update" in tables.to_latex([BOTH])


def test_distinct_tasks_are_stated_beside_tasks_and_episodes() -> None:
    rows = [replace(row, distinct_tasks=100) for row in FEW_SHOT.rows]
    assert tables.measured(replace(FEW_SHOT, rows=rows)).startswith(
        "100 distinct tasks × 5 episodes × 3 training seeds;"
    )
    rows[0] = replace(rows[0], distinct_tasks=5)
    assert tables.measured(replace(FEW_SHOT, rows=rows[:1])).startswith("100 tasks (5 distinct) × 5 episodes")
    assert "distinct_tasks" in tables.to_csv([FEW_SHOT]).splitlines()[0]


def test_a_narrow_terminal_cuts_nothing_short() -> None:
    note = "an expert was asked in meta-training, and was paid for it by the hour"
    rows = [
        Row(
            "domain-randomisation",
            20 * k,
            0.9 + k / 100,
            (0.8, 1.0),
            steps=k,
            iqm=0.91,
            iqm_ci95=(0.8, 1.0),
            parameters=5320,
            training_s=634.0,
            note=note if k == 0 else "",
            at=0.25,
            learns_from="trials",
        )
        for k in range(6)
    ]
    by_try = replace(FEW_SHOT, metric="success-by-try", rows=rows, against="true rate")
    text = io.StringIO()
    tables.print_table(by_try, Console(file=text, width=80))
    printed = text.getvalue()
    assert max(map(len, printed.splitlines())) <= 80
    assert "…" not in printed
    for whole in ("success-by-try", "domain-randomisation", "95.0", "[80.0, 100.0]", "5,320", "634", "after 100 own"):
        assert whole in printed
    assert printed.count("true rate") == printed.count("┏"), "every part says what its rows are about"
    words = " ".join(printed.replace("│", " ").split())
    for word in note.split():
        assert word in words
