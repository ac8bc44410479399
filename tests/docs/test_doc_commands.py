"""Every command that README and docs show is one that the command line takes."""

import importlib.util
import re
import shlex
from functools import cache

import pytest
from documents import ROOT, commands, documents

from quickstudy import cli

NEEDS_MORE = re.compile(
    r"omniglot-\d+way"  # data that is fetched
    r"|\.npz|\.csv|\bPATH\b|my_|my-"  # files and modules of the reader's own
    r"|COMMAND|FAMILY\b|\.\.\."  # patterns
)


@cache
def shown() -> list[str]:
    texts = (
        page.read_text(encoding="utf-8") for page in documents() if page.name not in ("CHANGELOG.md", "glossary.md")
    )
    return sorted({command for text in texts for command in commands(text)})


def whole(command: str) -> bool:
    """Whether it is a command and not its name alone, and needs nothing that is not here."""
    words = command.split()
    needs_data = words[1] in ("train", "profile") and NEEDS_MORE.search(command)
    return len(words) > 2 and not needs_data and not re.search(r"COMMAND|\.\.\.", command)


def test_there_are_commands_to_check():
    assert len(shown()) > 60
    assert sum(map(whole, shown())) > 50


@pytest.mark.parametrize("command", [c for c in shown() if whole(c)])
def test_a_command_of_the_docs_is_taken(command, monkeypatch):
    monkeypatch.chdir(ROOT / "examples")
    assert cli._parsed(shlex.split(command)[1:]) is not None


def test_the_reference_has_every_command():
    spec = importlib.util.spec_from_file_location("make_reference", ROOT / "tools/make_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert sorted(module.COMMANDS) == sorted(cli._COMMANDS)


def test_the_package_runs_as_a_module(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["quickstudy", "--help"])
    with pytest.raises(SystemExit) as ended:
        importlib.import_module("runpy").run_module("quickstudy", run_name="__main__")
    assert ended.value.code == 0
    assert "train" in capsys.readouterr().out
