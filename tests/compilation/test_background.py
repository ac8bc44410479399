"""Compiled graphs come from a process of their own, or from the cache; nothing is left of one that is not wanted."""

import time
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from quickstudy.compilation.background import Compilation, CompilationError

INPUTS = [torch.randn(3, 4, generator=torch.Generator().manual_seed(0)), torch.ones(4, 5)]
GRAPH = make_fx(lambda x, y: [(x @ y).relu(), x.sum()])(*INPUTS)


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "quickstudy" / "compiled"


def compilation(threads: int = 1) -> Compilation:
    return Compilation(GRAPH, INPUTS, threads)


def assert_right(results: list[Tensor]) -> None:
    torch.testing.assert_close(results, GRAPH(*INPUTS))


def test_what_was_compiled_is_found_by_a_later_training_and_anew_where_it_is_damaged(cache: Path) -> None:
    assert_right(compilation().result()(list(INPUTS)))
    (file,) = cache.iterdir()
    found = compilation()
    assert found.done
    assert found._process is None
    assert_right(found.result()(list(INPUTS)))
    assert not compilation(threads=2).done, "compiled for other threads"
    file.write_bytes(file.read_bytes()[:1000])
    assert_right(compilation().result()(list(INPUTS)))


def test_a_compilation_that_nobody_wants_any_more_is_ended_and_leaves_nothing(cache: Path) -> None:
    started = time.monotonic()
    one = compilation()
    process, scratch = one._process, one._scratch
    assert process is not None
    assert scratch.is_dir()
    del one
    assert process.returncode == -9
    assert not scratch.exists()
    assert not list(cache.iterdir())
    assert time.monotonic() - started < 2.0


def test_a_graph_that_cannot_be_compiled_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(CompilationError, match=r"InvalidCxxCompiler|no-such-compiler|compiler"):
        compilation().result()
