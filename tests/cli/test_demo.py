"""The quick demo: no meta-training, a table that says what it should, a film, and a next command that there is."""

import re
import shlex

import av
import pytest

from commands import quickstudy
from quickstudy import cli, demo
from quickstudy.results.evidence import Cell
from quickstudy.simulation import rendering


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """Its folder."""
    folder = tmp_path_factory.mktemp("demo")
    quickstudy("demo", "--quick", "--output-dir", folder)
    return folder / "quick"


def test_one_demonstration_of_a_persons_helps_the_packaged_learner_and_no_other(shown):
    cell = Cell.read(shown / f"results/grasping-{demo.QUICK_SPLIT}.json")
    success = {row.method: row.value for row in cell.rows}
    assert list(success) == ["matching", "transfer", "no-adaptation"]
    assert success["matching"] >= 0.7
    assert success["matching"] > max(success["transfer"], success["no-adaptation"]) + 0.1
    assert all(row.ci95 is not None and row.tasks == demo.QUICK_TASKS for row in cell.rows)


@pytest.mark.skipif(not rendering.available(), reason="nothing here can draw")
def test_its_film_has_both_episodes_side_by_side(shown):
    with av.open(str(shown / "before-and-after.mp4")) as film:
        frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    assert len(frames) > 20
    assert frames[0].shape == (360, 960, 3)
    apart = [float(abs(frame[:, :480].astype(int) - frame[:, 480:]).mean()) for frame in frames]
    assert apart[0] < 1  # they begin alike
    assert max(apart) > 3


def test_it_takes_seconds_and_trains_nothing(shown, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(demo, "QUICK_TASKS", 3)
    quickstudy("demo", "--quick", "--no-video", "--output-dir", tmp_path)
    printed = capsys.readouterr().out
    assert "matching" in printed
    assert re.search(r"^\d+ s\.", printed, re.MULTILINE)
    assert not list(tmp_path.rglob("checkpoints"))
    assert not list(tmp_path.rglob("*.mp4"))
    for command in demo.NEXT:
        assert f"  {command}" in printed


@pytest.mark.parametrize("command", demo.NEXT)
def test_what_it_says_comes_next_is_a_command(command):
    program, *words = shlex.split(command)
    assert program == "quickstudy"
    assert cli._parsed(words) is not None
