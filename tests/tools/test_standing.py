"""The table of speed says what the files of results say."""

import sys
from pathlib import Path

import pytest

from quickstudy.results.evidence import Cell, Row

ROOT = Path(__file__).parents[2]
if not (ROOT / "tools/standing.py").exists():
    pytest.skip("a source distribution has not got the tool", allow_module_level=True)
sys.path.insert(0, str(ROOT / "tools"))
import standing  # noqa: E402


def cell(*rows: Row) -> Cell:
    return Cell("speed-x", "time", "ms", "How.", "python", 1.0, "0123456789ab", {}, "2 cores", rows=list(rows))


def test_a_row_stands_beside_its_peer_the_fastest_other_and_the_bound() -> None:
    found = standing.lines(
        cell(
            Row("learn2learn 0.2.0", workload="W1", threads=2, ratio=1.0),
            Row("JAX, scan", workload="W1", threads=2, ratio=1.25),
            Row("auto", workload="W1", threads=2, ratio=2.0),
            Row("bare products, 1 at once", workload="W1", threads=2, ratio=2.5),
            Row("bare products, 4 at once", workload="W1", threads=2, ratio=2.2),
        )
    )
    expected = "2 x learn2learn 0.2.0", "1.6 x JAX, scan", "1.25 x bare products, 1 at once"
    assert list(found) == [("W1, 2 threads", "auto", *expected)]


def test_each_method_of_meta_learning_has_its_own_peer() -> None:
    rows = [
        Row(f"{method}, {way}", workload="skills", ratio=ratio)
        for method, more in (("maml", (("learn2learn 0.2.0", 1.5),)), ("anil", ()))
        for way, ratio in (("loop", 1.0), ("long run", 3.0), *more)
    ]
    assert list(standing.lines(cell(*rows))) == [
        ("skills", "maml, long run", "3 x loop", "2 x learn2learn 0.2.0", "–"),
        ("skills", "anil, long run", "3 x loop", "–", "–"),
    ]


def test_words_choose_among_the_measured_rows() -> None:
    cells = [Cell.read(path) for path in standing.RESULTS.glob("speed-*.json")]
    every, some = standing.table(cells, []), standing.table(cells, ["W2"])
    assert every.row_count > some.row_count > 0
