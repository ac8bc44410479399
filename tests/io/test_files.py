"""Files that appear whole or not at all, and folders that one process at a time works in."""

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest

from quickstudy.errors import QuickstudyError
from quickstudy.io import files
from quickstudy.io.provenance import at_work, read_note
from quickstudy.results import runs


def test_a_file_that_is_being_written_is_found_by_no_pattern(tmp_path):
    with files.partial(tmp_path / "results" / "a.json") as temporary:
        temporary.write_text("{")
        assert list((tmp_path / "results").glob("*.json")) == []
        assert list(tmp_path.glob("results/*.json")) == []
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["a.json"]


def _killed_while_writing(folder: Path) -> None:
    with files.partial(folder / "a.json") as temporary:
        temporary.write_text("{")
        os._exit(9)


def test_what_a_killed_process_left_goes_when_the_next_one_writes(tmp_path):
    process = multiprocessing.get_context("spawn").Process(target=_killed_while_writing, args=(tmp_path,))
    process.start()
    process.join()
    assert list(tmp_path.glob("*.json")) == []
    assert len(list(tmp_path.iterdir())) == 1
    files.write(tmp_path / "b.json", "{}")
    assert [path.name for path in tmp_path.iterdir()] == ["b.json"]


def test_a_folder_is_whole_or_not_there(tmp_path):
    def stopped_halfway():
        with files.partial_folder(tmp_path / "set") as temporary:
            (temporary / "half").write_text("x")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        stopped_halfway()
    assert list(tmp_path.iterdir()) == []
    with files.partial_folder(tmp_path / "set") as temporary:
        (temporary / "whole").write_text("x")
    assert [path.name for path in (tmp_path / "set").iterdir()] == ["whole"]


WORK = """
import sys, time
from pathlib import Path
from quickstudy.io.provenance import at_work
with at_work(Path(sys.argv[1]), "training", "a command", {}):
    print("in", flush=True)
    time.sleep(60)
"""


def test_two_processes_do_not_work_in_one_folder_and_a_killed_one_locks_nobody_out(tmp_path):
    with subprocess.Popen([sys.executable, "-c", WORK, str(tmp_path)], stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "in\n"
        said = rf"Process {first.pid} on .* is at work in '{tmp_path}': wait for it or stop it"
        with pytest.raises(QuickstudyError, match=said), at_work(tmp_path, "training", "another", {}):
            pass
        assert read_note(tmp_path)["process"] == first.pid
        first.kill()
        first.wait()
    with at_work(tmp_path, "training", "another", {"more": 1}):
        assert read_note(tmp_path)["process"] == os.getpid()
    note = read_note(tmp_path)
    assert (note["command"], note["more"], note["process"]) == ("a command", 1, None)


def test_a_damaged_run_hides_no_other(tmp_path):
    with at_work(tmp_path / "good", "training", "quickstudy train", {"settings": {"family": "f", "method": "m"}}):
        pass
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/run.json").write_text("{")
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd/run.json").write_text('{"settings": 3, "process": "x"}')
    (tmp_path / "good/nowhere").symlink_to(tmp_path / "gone")
    found = {run.folder.name: run for run in runs.listed(tmp_path)}
    assert found["good"].state == "stopped"
    assert found["bad"].state == found["odd"].state == "damaged"
    assert "is not valid JSON" in found["bad"].headline
