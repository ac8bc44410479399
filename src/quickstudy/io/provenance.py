"""Where a figure or a checkpoint comes from: versions, commit and machine, as plain data for JSON."""

import importlib.metadata
import os
import platform
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from quickstudy.errors import QuickstudyError, shown
from quickstudy.io import files

NOTE = "run.json"
"""File of a run's or a comparison's folder, see `at_work`."""

LOCK = ".lock"
_PACKAGES = ("quickstudy", "torch", "numpy", "mujoco")


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that decide a result; one that is not installed is left out."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """The commit that this package runs from, with '+' where its tree was changed; empty outside a repository."""
    here = Path(__file__).parent
    try:
        # A copy installed inside somebody else's repository must not claim that one's commit.
        if _git(here, "ls-files", "--", Path(__file__).name) == "":
            return ""
        changed = _git(here, "status", "--porcelain", "--untracked-files=no", "--", ":/src")
        return _git(here, "rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return ""


def machine() -> str:
    """One line on the processor, and the accelerator if torch sees one."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    accelerator = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return f"{usable} cores, {torch.get_num_threads()} threads, {platform.machine()}, {accelerator}"


@contextmanager
def at_work(folder: Path, kind: str, command: str, about: Mapping[str, Any]) -> Iterator[None]:
    """Keeps a run's or a comparison's folder for this process while it is at work there.

    Writes run.json: all that it takes to go on or to repeat it, and who is at work. The command and the versions that a
    run began with stay; `process` and `host` are those of now, and `process` is None once it is over. The lock is the
    system's, so that a process that was killed holds none.

    Raises:
        QuickstudyError: another process is at work there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        note = read_note(folder) if (folder / NOTE).exists() else {}
        who = f"process {note.get('process')} on {note.get('host')}" if note.get("process") else "another process"
        raise QuickstudyError(
            f"{who.capitalize()} is at work in '{folder}': wait for it or stop it, or name another folder."
        ) from None
    try:
        began = {
            "kind": kind,
            "command": command,
            "started": datetime.now().astimezone().isoformat(timespec="seconds"),
            "commit": commit(),
            "versions": versions(),
            "machine": machine(),
        }
        then = read_note(folder) if (folder / NOTE).exists() else {}
        now = {"process": os.getpid(), "host": socket.gethostname()}
        files.write_json(folder / NOTE, {**began, **then, **about, **now}, indent=1)
        yield
    finally:
        if (folder / NOTE).exists():
            files.write_json(folder / NOTE, read_note(folder) | {"process": None}, indent=1)
        lock.release()


def read_note(folder: Path) -> dict[str, Any]:
    """What `at_work` wrote.

    Raises:
        QuickstudyError: there is none, or it is damaged.
    """
    path = Path(folder) / NOTE
    if not path.exists():
        raise QuickstudyError(f"'{folder}' does not say how it was made: it has no {NOTE}.")
    found = files.read_json(path)
    if not isinstance(found, dict):
        raise QuickstudyError(f"'{path}' must hold a JSON object; got {shown(found)}.")
    return found


def _git(folder: Path, *words: str) -> str:
    result = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, timeout=10, check=True)
    return result.stdout.strip()
