"""Names and texts of others, wherever they are shown: they are shown, and nothing obeys them."""

import json
from dataclasses import replace

import pytest

from commands import DEMONSTRATIONS, quickstudy
from quickstudy.errors import QuickstudyError
from quickstudy.io import checkpoint
from quickstudy.io.progress import SafeConsole, progress
from quickstudy.results import hub, runs, tables
from quickstudy.results.evidence import Cell, Row

BAD = "=1+1\x1b]0;owned\x07\x1b[2J[red]x[/y] <script>alert(1)</script> [a](javascript:b) | `"
PLAIN = "".join(letter for letter in BAD if letter.isprintable())
CELL = Cell(
    cell="bad", metric="success", unit="fraction", protocol=PLAIN, command=PLAIN, seconds=1.0, commit="", versions={},
    machine=PLAIN, rows=[Row(PLAIN, shots=1, value=0.5, note=PLAIN)],
)  # fmt: skip


@pytest.fixture(scope="module")
def odd_run(tmp_path_factory):
    """A training in a folder whose name is markup, evaluated."""
    run = tmp_path_factory.mktemp("odd") / "my[red]data\x1b[2J" / "run[/x]"
    quickstudy("train", *DEMONSTRATIONS, "--output-dir", run)
    quickstudy("evaluate", run, "--tasks", 2, "--episodes", 1)
    return run


def test_a_training_in_a_folder_whose_name_is_markup(odd_run, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    assert runs.is_finished(odd_run)
    quickstudy("runs", odd_run.parent)
    said = capsys.readouterr().out
    assert "\x1b[2J" not in said
    whole = "".join(said.split())
    assert "my[red]data" in whole
    assert "run[/x]" in whole


def test_an_error_shows_and_does_not_obey():
    assert str(QuickstudyError(BAD)).isprintable()
    assert "\\x1b[2J[red]x[/y]" in str(QuickstudyError(BAD))
    assert len(str(QuickstudyError("x" * 10_000 + BAD))) <= 300


def test_the_terminal(capsys):
    console = SafeConsole(width=200, force_terminal=True)
    console.print(BAD, markup=False, highlight=False)
    tables.print_table(CELL, console)
    said = capsys.readouterr().out
    assert "owned" in said
    assert "[red]x[/y]" in said
    for bad in ("\x1b]", "\x1b[2J", "\x07"):
        assert bad not in said
    with progress(BAD, 1) as advance:
        advance(1, BAD)
    assert "\x1b]" not in capsys.readouterr().out


def test_markdown_has_no_html_and_csv_no_formula():
    made = tables.to_markdown(CELL)
    assert "<script>" not in made
    assert "](" not in made.replace("\\](", "")
    assert "\x1b" not in made
    text = tables.to_csv([replace(CELL, cell="bad-test")])
    assert ",=1" not in text
    assert "'=1+1" in text
    assert "\x1b" not in text


def test_a_tampered_result_leaves_the_model_card_safe(odd_run, tmp_path):
    path = next((odd_run / "results").glob("*.json"))
    whole = path.read_text()
    said = json.loads(whole) | {"protocol": PLAIN, "machine": PLAIN}
    said["rows"][0] |= {"note": PLAIN}
    path.write_text(json.dumps(said))
    try:
        hub.push(odd_run, str(tmp_path / "pushed"))
        quickstudy("report", odd_run, "--no-video")
    finally:
        path.write_text(whole)
    for text in ((tmp_path / "pushed/README.md").read_text(), (odd_run / "report.html").read_text()):
        assert "<script>alert" not in text
        assert "&lt;script" in text
        assert "\x1b" not in text


def test_a_result_with_control_characters_is_refused():
    with pytest.raises(QuickstudyError, match="without control characters"):
        replace(CELL, protocol=BAD)


def test_a_tampered_family_leaves_the_model_card_safe(odd_run, tmp_path):
    found = checkpoint.load(odd_run / "checkpoints/best")
    settings = dict(found.config["settings"]) | {"family": "./gone.npz"}
    about = dict(found.config) | {"settings": settings}
    about["interface"] = dict(about["interface"]) | {"protocol": BAD, "name": BAD}
    checkpoint.save(tmp_path / "run/checkpoints/best", found.tensors, about)
    hub.push(tmp_path / "run", str(tmp_path / "pushed"))
    made = (tmp_path / "pushed/README.md").read_text()
    assert "<script>" not in made
    assert "\x1b" not in made
