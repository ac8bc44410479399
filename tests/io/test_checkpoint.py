"""Checkpoints come back bit for bit, are there whole or not at all, and say in one sentence what is wrong."""

import errno
import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from quickstudy.errors import QuickstudyError
from quickstudy.io import checkpoint

SIMPLE = {"w": torch.arange(6.0).reshape(2, 3)}


def equal(a: Any, b: Any) -> bool:
    """The same tree: types, keys, order, and tensors bit for bit."""
    if type(a) is not type(b):
        return False
    if isinstance(a, Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and bits(a) == bits(b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return repr(a) == repr(b)


def bits(tensor: Tensor) -> bytes:
    return bytes(tensor.detach().reshape(-1).contiguous().view(torch.uint8).tolist())


def folders(parent: Path) -> list[str]:
    return sorted(path.name for path in parent.iterdir())


# ---- round trips


def test_tensors_of_every_kind_come_back_bit_for_bit(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(4, 5, generator=generator)
    tensors = {
        "float": base,
        "transposed": base.T,
        "view of the same memory": base[1:3],
        "bfloat16": base.bfloat16(),
        "half": base.half(),
        "double": base.double(),
        "int64": torch.tensor([-(2**62), 2**62]),
        "uint8": generator.get_state(),
        "bool": base > 0,
        "scalar": torch.tensor(-0.0),
        "empty": torch.empty(0, 3),
        "parameter": nn.Parameter(base),
    }
    checkpoint.save(tmp_path / "c", tensors, {})
    loaded = checkpoint.load(tmp_path / "c").tensors
    assert set(loaded) == set(tensors)
    for name, tensor in tensors.items():
        assert equal(tensor.detach(), loaded[name]), name


def test_config_comes_back_as_strict_json(tmp_path: Path) -> None:
    config = {"method": "maml", "rates": (0.1, 0.2), "folder": Path("runs/a"), "best": float("nan"), "step": 3}
    checkpoint.save(tmp_path / "c", SIMPLE, config)
    loaded = checkpoint.load(tmp_path / "c")
    assert loaded.config["versions"]["torch"] == importlib.metadata.version("torch")
    rest = {key: value for key, value in loaded.config.items() if key != "versions"}
    assert rest == {"method": "maml", "rates": [0.1, 0.2], "folder": "runs/a", "best": None, "step": 3}
    assert loaded.training is None


def test_optimiser_schedule_and_generators_resume_exactly(tmp_path: Path) -> None:
    def start() -> tuple[nn.Module, torch.optim.Optimizer, Any, torch.Generator]:
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
        optimiser = torch.optim.Adam(module.parameters(), amsgrad=True)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 10)
        return module, optimiser, schedule, torch.Generator().manual_seed(1)

    def steps(run: tuple[nn.Module, torch.optim.Optimizer, Any, torch.Generator], count: int) -> None:
        module, optimiser, schedule, generator = run
        for _ in range(count):
            optimiser.zero_grad()
            module(torch.randn(8, 3, generator=generator)).square().mean().backward()
            optimiser.step()
            schedule.step()

    whole, first, second = start(), start(), start()
    steps(whole, 6)
    steps(first, 3)
    module, optimiser, schedule, generator = first
    state = {"optimiser": optimiser.state_dict(), "schedule": schedule.state_dict(), "rng": generator.get_state()}
    checkpoint.save(tmp_path / "c", module.state_dict(), {"step": 3}, state)

    loaded = checkpoint.load(tmp_path / "c")
    assert equal(state, loaded.training)
    module, optimiser, schedule, generator = second
    checkpoint.load_into(module, loaded.tensors, "c")
    optimiser.load_state_dict(loaded.training["optimiser"])
    schedule.load_state_dict(loaded.training["schedule"])
    generator.set_state(loaded.training["rng"])
    steps(second, 3)
    assert equal(dict(whole[0].state_dict()), dict(module.state_dict()))


LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.integers(0, 5).map(torch.arange),
)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner),
        st.lists(inner).map(tuple),
        st.dictionaries(st.one_of(st.integers(), st.text("ab/0123", max_size=3), st.just("tensor")), inner),
    ),
    max_leaves=8,
)


@settings(max_examples=50, deadline=None)
@given(tree=TREES)
def test_any_tree_comes_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, tree: Any) -> None:
    folder = tmp_path_factory.mktemp("tree") / "c"
    checkpoint.save(folder, SIMPLE, {}, {"tree": tree})
    assert equal(checkpoint.load(folder).training, {"tree": tree})


def test_keys_1_and_string_1_do_not_share_a_tensor(tmp_path: Path) -> None:
    tree = {1: torch.tensor(1), "1": torch.tensor(2), "a/b": torch.tensor(3), "a": {"b": torch.tensor(4)}}
    checkpoint.save(tmp_path / "c", SIMPLE, {}, tree)
    assert equal(checkpoint.load(tmp_path / "c").training, tree)


# ---- what must never be written


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_refused_by_name(tmp_path: Path, value: float) -> None:
    checkpoint.save(tmp_path / "c", SIMPLE, {"step": 1})
    broken = {"fine": torch.zeros(2), "net.0.weight": torch.tensor([1.0, value])}
    with pytest.raises(QuickstudyError, match=r"'net\.0\.weight' has 1 of 2 values that are not finite"):
        checkpoint.save(tmp_path / "c", broken, {"step": 2})
    training = {"optimiser": {"state": {0: {"exp_avg": torch.tensor(value)}}}}
    with pytest.raises(QuickstudyError, match=r"'training/optimiser/state/0/exp_avg'"):
        checkpoint.save(tmp_path / "c", SIMPLE, {"step": 2}, training)
    assert checkpoint.load(tmp_path / "c").config["step"] == 1
    assert folders(tmp_path) == ["c"]


@pytest.mark.parametrize(
    ("training", "named"),
    [({"a": [0, object()]}, "training/a/1"), ({(1, 2): 0}, r"key \(1, 2\)"), ({True: 0}, "key True")],
)
def test_what_has_no_place_is_named(tmp_path: Path, training: Any, named: str) -> None:
    with pytest.raises(QuickstudyError, match=named):
        checkpoint.save(tmp_path / "c", SIMPLE, {}, training)
    with pytest.raises(QuickstudyError, match="'config/f', a function"):
        checkpoint.save(tmp_path / "c", SIMPLE, {"f": equal})
    assert folders(tmp_path) == []


# ---- a full disk, a kill, a file in the way


def no_space(*_: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.save(tmp_path / "c", SIMPLE, {"step": 1})
    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(
        QuickstudyError, match=r"the disk is full; the checkpoint that was there before is untouched\.$"
    ):
        checkpoint.save(tmp_path / "c", SIMPLE, {"step": 2})
    with pytest.raises(QuickstudyError, match=r"'.*new': the disk is full\.$"):
        checkpoint.save(tmp_path / "new", SIMPLE, {"step": 2})
    assert checkpoint.load(tmp_path / "c").config["step"] == 1
    assert folders(tmp_path) == ["c"]


def test_a_failed_rename_brings_the_old_checkpoint_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.save(tmp_path / "c", SIMPLE, {"step": 1})
    rename = Path.rename

    def fail_on_partial(self: Path, target: Path) -> Path:
        if self.name.endswith(".partial"):
            no_space()
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_on_partial)
    with pytest.raises(QuickstudyError, match="the disk is full"):
        checkpoint.save(tmp_path / "c", SIMPLE, {"step": 2})
    assert checkpoint.load(tmp_path / "c").config["step"] == 1
    assert folders(tmp_path) == ["c"]


class Killed(BaseException):
    """Ends a save where it stands, as no handler of it expects."""


@pytest.mark.parametrize(
    ("owner", "call", "count", "step"),
    [(os, "fsync", 1, 1), (os, "fsync", 4, 1), (Path, "rename", 1, 1), (Path, "rename", 2, 1), (os, "fsync", 6, 2)],
)
def test_an_end_at_any_moment_leaves_a_whole_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, call: str, count: int, step: int
) -> None:
    folder = tmp_path / "c"
    checkpoint.save(folder, SIMPLE, {"step": 1})
    real, calls = getattr(owner, call), []

    def dying(*words: Any) -> Any:
        calls.append(words)
        if len(calls) == count:
            raise Killed
        return real(*words)

    with monkeypatch.context() as patch:
        patch.setattr(owner, call, dying)
        with pytest.raises(Killed):
            checkpoint.save(folder, SIMPLE, {"step": 2}, {"x": torch.ones(3)})
    assert checkpoint.exists(folder)
    assert checkpoint.load(folder).config["step"] == step
    checkpoint.save(folder, SIMPLE, {"step": 3})
    assert checkpoint.load(folder).config["step"] == 3
    assert folders(tmp_path) == ["c"], "leftovers are cleaned by the next save"


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL there")
def test_a_kill_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    program = f"""
import os, pathlib, signal, torch
from quickstudy.io import checkpoint
folder = pathlib.Path({str(folder)!r})
checkpoint.save(folder, {{"w": torch.ones(3)}}, {{"step": 1}})
rename = pathlib.Path.rename
def dying(self, target):
    rename(self, target)
    os.kill(os.getpid(), signal.SIGKILL)
pathlib.Path.rename = dying
checkpoint.save(folder, {{"w": torch.ones(3)}}, {{"step": 2}})
"""
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=120).returncode == -9
    assert not folder.exists(), "the kill came between the two renames"
    assert checkpoint.exists(folder)
    assert checkpoint.load(folder).config["step"] == 1


@pytest.mark.skipif(sys.platform == "win32", reason="no file size limits there")
def test_a_real_write_error_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    checkpoint.save(folder, SIMPLE, {"step": 1})
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(QuickstudyError, match="File too large"):
            checkpoint.save(folder, {"w": torch.ones(10_000)}, {"step": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert checkpoint.load(folder).config["step"] == 1
    assert folders(tmp_path) == ["c"]


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "c").write_text("precious")
    with pytest.raises(QuickstudyError, match="a file of that name is in the way"):
        checkpoint.save(tmp_path / "c", SIMPLE, {})
    assert (tmp_path / "c").read_text() == "precious"
    with pytest.raises(QuickstudyError, match="Could not write checkpoint"):
        checkpoint.save(tmp_path / "c" / "below", SIMPLE, {})


# ---- wrong and damaged folders


def rewrite(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        (folder / name).write_bytes(change((folder / name).read_bytes()))

    return apply


def flip(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


def change_config(**changes: Any) -> Callable[[bytes], bytes]:
    return lambda content: json.dumps({**json.loads(content), **changes}).encode()


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "truncated model": (rewrite("model.safetensors", lambda b: b[:-4]), r"model\.safetensors' is damaged"),
    "empty model": (rewrite("model.safetensors", lambda b: b""), r"model\.safetensors' is damaged"),
    "flipped bit": (rewrite("model.safetensors", flip), r"model\.safetensors' is damaged"),
    "missing model": (lambda f: (f / "model.safetensors").unlink(), r"incomplete: model\.safetensors is missing"),
    "missing state": (lambda f: (f / "training.json").unlink(), r"incomplete: training\.json is missing"),
    "damaged state": (rewrite("training.safetensors", flip), r"training\.safetensors' is damaged"),
    "broken JSON": (rewrite("config.json", lambda b: b[:-9]), r"config\.json' is damaged: it is not valid JSON"),
    "not text": (rewrite("config.json", lambda b: b"\xff\xfe\x00"), r"config\.json' is damaged: it is not valid JSON"),
    "JSON of another kind": (rewrite("config.json", lambda b: b"[1]"), "no checkpoint of ours"),
    "another format": (rewrite("config.json", change_config(format="x")), "no checkpoint of ours"),
    "no checksums": (rewrite("config.json", change_config(sha256={})), r"lacks the checksum of model\.safetensors"),
    "missing config": (lambda f: (f / "config.json").unlink(), r"not a checkpoint: it holds no config\.json"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_gets_one_sentence(tmp_path: Path, kind: str) -> None:
    damage, sentence = DAMAGE[kind]
    checkpoint.save(tmp_path / "c", SIMPLE, {}, {"x": torch.ones(2)})
    damage(tmp_path / "c")
    with pytest.raises(QuickstudyError, match=sentence) as caught:
        checkpoint.load(tmp_path / "c")
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_not_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(QuickstudyError, match="There is no checkpoint folder"):
        checkpoint.load(tmp_path / "none")
    (tmp_path / "file").touch()
    with pytest.raises(QuickstudyError, match="is a file; a checkpoint is a folder"):
        checkpoint.load(tmp_path / "file")
    assert not checkpoint.exists(tmp_path / "none")


class Boom:
    def __reduce__(self) -> Any:
        return os._exit, (13,)


def test_loading_never_unpickles(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "c", SIMPLE, {})
    torch.save({"w": Boom()}, tmp_path / "c" / "model.safetensors")
    with pytest.raises(QuickstudyError, match="is damaged"):
        checkpoint.load(tmp_path / "c")


# ---- into a module


def test_load_into_names_what_does_not_fit() -> None:
    module = nn.Linear(3, 2)
    before = module.weight.detach().clone()
    tensors = {"weight": torch.zeros(2, 4), "scale": torch.zeros(1)}
    sentence = (
        r"'runs/a' does not fit this Linear \(missing: bias; unexpected: scale; of another shape: "
        r"weight is \[2, 4\] where \[2, 3\] is wanted\)\.$"
    )
    with pytest.raises(QuickstudyError, match=sentence):
        checkpoint.load_into(module, tensors, "runs/a")
    assert torch.equal(module.weight, before)
    many = {f"layer{n}": torch.zeros(1) for n in range(9)}
    with pytest.raises(QuickstudyError, match="layer4 and 4 more"):
        checkpoint.load_into(nn.Identity(), many, "runs/a")


def test_load_into_copies() -> None:
    module, other = nn.Linear(3, 2), nn.Linear(3, 2)
    checkpoint.load_into(module, other.state_dict(), "memory")
    assert torch.equal(module.weight, other.weight)
    assert module.weight.data_ptr() != other.weight.data_ptr()
