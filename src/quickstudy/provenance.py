"""Where a figure or a checkpoint comes from: versions, commit and machine, as plain data for JSON."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

import torch

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


def _git(folder: Path, *words: str) -> str:
    result = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, timeout=10, check=True)
    return result.stdout.strip()
