"""Compiles graphs in a process of their own, while training goes on, and keeps what came of it for later trainings.

The process can be left alone or ended at any moment. What it makes is one file, which is loaded within milliseconds; a
later training finds it in `~/.cache/quickstudy/compiled` (`$XDG_CACHE_HOME`), under a name that holds all that it
depends on.
"""

import hashlib
import os
import pickle
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, cast

import torch
from torch import Tensor
from torch.fx import GraphModule

import quickstudy
from quickstudy.io.interrupts import abandonable

_KEPT = 100
"""Compiled graphs, of about 2 MB each; those that were not used for longest go first."""

_OPTIONS: dict[str, Any] = {"cpp.min_chunk_size": 32768}
"""Of the compiler: loops too short to be worth waking a second thread stay on one."""


class CompilationError(Exception):
    """A graph could not be compiled here; says why."""


class Compilation:
    """A graph that is being compiled, or was by an earlier training.

    Args:
        inputs: tensors as the graph will get them.
        threads: that one call of it may use.
    """

    def __init__(self, graph: GraphModule, inputs: Sequence[Tensor], threads: int) -> None:
        specs = [(tuple(t.shape), t.stride(), t.dtype, str(t.device)) for t in inputs]
        self._file = _folder() / f"{_name(graph, specs, threads)}.pt2"
        self._process: subprocess.Popen[bytes] | None = None
        self._loaded = self._load() if self._file.exists() else None
        if self._loaded is not None:
            self._file.touch()  # the clock that says which were not used for longest
            return
        self._scratch = Path(tempfile.mkdtemp(prefix="quickstudy-compile-"))
        job = {"graph": graph, "inputs": specs, "threads": threads, "options": _OPTIONS, "file": str(self._file)}
        home = str(Path(quickstudy.__file__).parents[1])
        paths = os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH"))))
        with (self._scratch / "said").open("wb") as said:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "quickstudy.compilation.process"],
                stdin=subprocess.PIPE,
                stdout=said,
                stderr=said,
                env={**os.environ, "PYTHONPATH": paths, "TORCHINDUCTOR_CACHE_DIR": str(self._scratch)},
                start_new_session=True,  # Ctrl-C is for the training, which ends this process
            )
        weakref.finalize(self, _end, self._process, self._scratch)
        assert self._process.stdin is not None
        _hand_over(self._process.stdin, job)

    @property
    def done(self) -> bool:
        """Whether `result` would not wait."""
        return self._process is None or self._process.poll() is not None

    def result(self) -> Callable[[list[Tensor]], list[Tensor]]:
        """What was compiled, from all inputs to all outputs. Waits for it; the first Ctrl-C ends the wait.

        Raises:
            CompilationError: it could not be.
        """
        with abandonable():
            while not self.done:
                time.sleep(0.02)
        if self._process is not None and self._process.returncode:
            lines = (self._scratch / "said").read_text(errors="replace").strip().splitlines()
            raise CompilationError(lines[-1] if lines else f"the compiler ended with status {self._process.returncode}")
        self._loaded = self._loaded or self._load()
        if self._loaded is None:
            raise CompilationError(f"'{self._file}' cannot be loaded")
        return self._loaded

    def _load(self) -> Callable[[list[Tensor]], list[Tensor]] | None:
        """What the file holds; None where it is damaged, and then there is no such file any more."""
        try:
            run = torch._C._aoti.AOTIModelPackageLoader(str(self._file), "model", False, 1, -1).boxed_run
        except RuntimeError:
            self._file.unlink(missing_ok=True)
            return None
        return cast("Callable[[list[Tensor]], list[Tensor]]", run)


def _hand_over(to: IO[bytes], job: dict[str, Any]) -> None:
    try:
        with to:
            pickle.dump(job, to)
    except BrokenPipeError:  # it ended already, and said why
        pass


def _end(process: "subprocess.Popen[bytes]", scratch: Path) -> None:
    """Ends a process with all that it started, and takes away what it left."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    shutil.rmtree(scratch, ignore_errors=True)


def _folder() -> Path:
    """Where compiled graphs are kept, without those that are too many; made if it is not there."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "quickstudy" / "compiled"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # what is in it is run
    for old in sorted(folder.glob("*.pt2"), key=lambda path: path.stat().st_mtime, reverse=True)[_KEPT:]:
        old.unlink(missing_ok=True)
    return folder


def _name(graph: GraphModule, specs: Sequence[Any], threads: int) -> str:
    """A digest of all that the outcome of compiling depends on."""
    constants = [(name, t.numpy(force=True).tobytes()) for name, t in sorted(graph.named_buffers())]
    place = platform.machine(), _processor(), torch.__version__, torch.backends.cpu.get_cpu_capability()
    everything = graph.code, constants, specs, threads, _OPTIONS, place
    return hashlib.sha256(repr(everything).encode()).hexdigest()[:32]


def _processor() -> str:
    """What kind of processor this is: its name and what it can do, where Linux says so."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        return platform.processor()
    return "".join(line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part")))
