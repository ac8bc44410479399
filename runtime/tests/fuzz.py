"""Damages bundles, skills, demonstrations and messages at random, for as long as is asked.

    python runtime/tests/fuzz.py --seconds 600 [--bundle FILE] [--seed 0]

Half of the damage is done with hashes computed anew, so that it reaches what lies behind them. Each piece is read in a
process of its own batch, because a graph may break ONNX Runtime itself. What may come of it: it is refused in one
sentence of at most 300 characters, or every action is finite and within the limits. Anything else ends the run with the
piece that did it.
"""

import argparse
import hashlib
import io
import json
import multiprocessing
import sys
import tempfile
import time
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "src")]

import bundles  # noqa: E402
import quickstudy_runtime as runtime  # noqa: E402
from quickstudy_runtime import messages, server, tensors  # noqa: E402

ODD = [None, True, False, 0, -1, 1, 2**31, 2**63, 10**400, 1e308, -1e308, 1e-320, float("nan"), float("inf"), "", "x",
       "\ud800", "\n\x1b[31m", "é" * 5000, [], {}, [[]], [None], {"": None}, [1e300] * 3, "float32", "act"]  # fmt: skip


def scratched(data: bytes, rng: np.random.Generator) -> bytes:
    """Bytes with a few of them changed, cut out, doubled or cut off."""
    found = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        place, kind = int(rng.integers(0, len(found) + 1)), rng.integers(0, 5)
        if kind == 0 and place < len(found):
            found[place] ^= 1 << int(rng.integers(0, 8))
        elif kind == 1 and place < len(found):
            found[place] = int(rng.choice([0, 1, 127, 128, 255]))
        elif kind == 2:
            del found[place : place + int(rng.integers(1, 20))]
        elif kind == 3:
            found[place:place] = found[place : place + int(rng.integers(1, 20))]
        elif kind == 4 and rng.random() < 0.2:
            del found[place:]
    return bytes(found)


def bent(value: object, rng: np.random.Generator) -> object:
    """Plain data with one of its parts replaced by something odd, left out, or doubled."""
    if isinstance(value, dict) and value and rng.random() < 0.8:
        key = list(value)[rng.integers(len(value))]
        changed = dict(value)
        if rng.random() < 0.15:
            del changed[key]
        elif rng.random() < 0.1:
            changed[str(rng.choice(["a", "names", "\n", "observation"]))] = changed.pop(key)
        else:
            changed[key] = bent(value[key], rng)
        return changed
    if isinstance(value, list) and value and rng.random() < 0.8:
        changed, place = list(value), int(rng.integers(len(value)))
        if rng.random() < 0.2:
            changed.append(changed[place])
        elif rng.random() < 0.2:
            del changed[place]
        else:
            changed[place] = bent(value[place], rng)
        return changed
    return ODD[rng.integers(len(ODD))]


def packed(members: dict[str, bytes], kind: int = zipfile.ZIP_STORED) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", kind) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return held.getvalue()


def damaged_bundle(whole: bytes, rng: np.random.Generator) -> bytes:
    """A bundle whose bytes, manifest, tensors or graphs are not what was exported."""
    if rng.random() < 0.25:
        return scratched(whole, rng)
    with zipfile.ZipFile(io.BytesIO(whole)) as file:
        members = {name: file.read(name) for name in file.namelist()}
    manifest = json.loads(members["manifest.json"])
    if rng.random() < 0.6:
        for _ in range(rng.integers(1, 3)):
            manifest = bent(manifest, rng)
    else:
        name = str(rng.choice([name for name in members if not name.startswith("manifest")]))
        members[name] = scratched(members[name], rng)
    if isinstance(manifest, dict) and isinstance(manifest.get("files"), dict) and rng.random() < 0.8:
        for name, said in manifest["files"].items():
            if isinstance(said, dict) and name in members:
                said["sha256"] = hashlib.sha256(members[name]).hexdigest()
    text = json.dumps(manifest).encode()
    if rng.random() < 0.1:
        text = scratched(text, rng)
    members["manifest.json"], members["manifest.sha256"] = text, hashlib.sha256(text).hexdigest().encode()
    return packed(members)


def check(action: np.ndarray, robot: runtime.Robot) -> None:
    limits = robot.bundle.action
    assert action.shape == (len(limits),), action
    assert np.isfinite(action).all(), action
    assert ((action >= limits.low) & (action <= limits.high)).all(), action


def sentence(fault: object) -> str:
    text = str(fault)
    assert 0 < len(text) <= 300, len(text)
    assert text.isprintable(), repr(text)
    assert "failed on this message" not in text, text
    return "refused"


def a_bundle(whole: bytes, rng: np.random.Generator, folder: Path) -> tuple[bytes, object]:
    data = damaged_bundle(whole, rng)

    def use() -> str:
        path = folder / "bundle"
        path.write_bytes(data)
        try:
            robot = runtime.load(path)
        except runtime.QuickstudyError as fault:
            return sentence(fault)
        done = "used"
        width, wide = len(robot.bundle.observation), len(robot.bundle.action)
        for make in (robot.begin, lambda: robot.adapt([(np.zeros((2, width)), np.zeros((2, wide)))])):
            try:
                skill = make()
                for _ in range(3):
                    check(skill.act(np.full(width, 0.1)), robot)
            except runtime.QuickstudyError as fault:
                done = sentence(fault)
        return done

    return data, use


def a_skill(whole: bytes, rng: np.random.Generator, folder: Path) -> tuple[bytes, object]:
    robot = _loaded(whole, folder)
    arrays = {name: array.copy() for name, array in robot.bundle.begin.items()}
    about = bent({"bundle": robot.bundle.hash, "run": "r"}, rng) if rng.random() < 0.3 else {
        "bundle": robot.bundle.hash}  # fmt: skip
    data = tensors.save(arrays, {"quickstudy": json.dumps(about)})
    if rng.random() < 0.5:
        length = int.from_bytes(data[:8], "little")
        head = json.dumps(bent(json.loads(data[8 : 8 + length]), rng)).encode()
        data = len(head).to_bytes(8, "little") + head + data[8 + length :]
    else:
        data = scratched(data, rng)

    def use() -> str:
        path = folder / "skill"
        path.write_bytes(data)
        try:
            check(robot.load_skill(path).act(np.full(len(robot.bundle.observation), 0.1)), robot)
        except runtime.QuickstudyError as fault:
            return sentence(fault)
        return "used"

    return data, use


def a_demonstration(whole: bytes, rng: np.random.Generator, folder: Path) -> tuple[bytes, object]:
    robot, held = _loaded(whole, folder), io.BytesIO()
    width, wide = len(robot.bundle.observation), len(robot.bundle.action)
    np.savez(held, observations=np.full((3, width), 0.1), actions=np.zeros((3, wide), "f4"),
             action_names=robot.bundle.action.names)  # fmt: skip
    data = held.getvalue()
    if rng.random() < 0.4:
        data = scratched(data, rng)
    else:  # behind the checksums
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            members = {name: file.read(name) for name in file.namelist()}
        name = list(members)[rng.integers(len(members))]
        data = packed({**members, name: scratched(members[name], rng)})

    def use() -> str:
        path = folder / "demonstration.npz"
        path.write_bytes(data)
        try:
            check(robot.adapt([path]).act(np.full(width, 0.1)), robot)
        except runtime.QuickstudyError as fault:
            return sentence(fault)
        return "used"

    return data, use


def a_message(whole: bytes, rng: np.random.Generator, folder: Path) -> tuple[bytes, object]:
    robot = _loaded(whole, folder)
    x, y = [0.1] * len(robot.bundle.observation), [0.0] * len(robot.bundle.action)
    plain = [
        {"observation": x, "stamp": 1.5, "sequence": 3, "reward": 0.0, "done": False}, {"reset": True, "last": y},
        {"adapt": [{"observations": [x, x], "actions": [y, y]}]}, dict.fromkeys(robot.bundle.observation.names, 0.1),
    ][rng.integers(4)]  # fmt: skip
    array = np.array(x, str(rng.choice(["f8", "f4", "i8", "?", "f2", "u1"])))
    if rng.random() < 0.3:
        plain = {"state": array}
    data = b""
    while not data:
        try:
            data = messages.pack(bent(plain, rng) if rng.random() < 0.6 else plain)
        except (TypeError, ValueError, OverflowError):  # not every odd thing can be sent
            continue
    if rng.random() < 0.6:
        data = scratched(data, rng)

    def use() -> str:
        session = server._Session(robot, robot.begin(), int(rng.integers(1, 4)))
        answer = session.answer(data)
        if isinstance(answer, str):
            return sentence(answer)
        for action in messages.unpack(answer).get("actions", ()):
            check(action, robot)
        return "used"

    return data, use


KINDS = {"bundle": a_bundle, "skill": a_skill, "demonstration": a_demonstration, "message": a_message}
_LOADED: dict[bytes, runtime.Robot] = {}


def _loaded(whole: bytes, folder: Path) -> runtime.Robot:
    if whole not in _LOADED:
        (folder / "whole").write_bytes(whole)
        _LOADED[whole] = runtime.load(folder / "whole")
    return _LOADED[whole]


def batch(whole: bytes, seed: int, count: int, pipe: object) -> None:
    """Some pieces of damage; what is in work is told before it is used, should the process not live to tell it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for i in range(count):
            kind = list(KINDS)[i % len(KINDS)]
            data, use = KINDS[kind](whole, np.random.default_rng([seed, i]), folder)
            pipe.send((kind, data, None))
            try:
                pipe.send((kind, None, use()))
            except BaseException as error:
                pipe.send((kind, data, repr(error)))
                raise
    pipe.close()


def fuzz(
    whole: bytes, seconds: float, seed: int, count: int = 400
) -> tuple[Counter[str], tuple[str, bytes, str] | None]:
    """What came of each kind of damage, and the first piece that did what none may do."""
    found: Counter[str] = Counter()
    context, until = multiprocessing.get_context("fork"), time.monotonic() + seconds
    while time.monotonic() < until:
        ours, theirs = context.Pipe(False)
        process = context.Process(target=batch, args=(whole, seed, count, theirs))
        process.start()
        theirs.close()
        last, seed = ("", b""), seed + 1
        while time.monotonic() < until + 60:
            if not ours.poll(30):
                process.kill()
                return found, (*last, "it takes longer than 30 seconds")
            try:
                kind, data, outcome = ours.recv()
            except EOFError:
                break
            if data is None:
                found[f"{kind} {outcome}"] += 1
            elif outcome is None:
                last = kind, data
            else:
                process.join()
                return found, (kind, data, outcome)
        process.join()
        if process.exitcode:
            return found, (*last, f"the process ended with {process.exitcode}")
    return found, None


def main() -> int:
    parser = argparse.ArgumentParser(description="Damages bundles, skills, demonstrations and messages at random.")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--bundle", type=Path, help="by default a small one that is made up")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        whole = (given.bundle or bundles.write(Path(name) / "small")).read_bytes()
    found, broken = fuzz(whole, given.seconds, given.seed)
    print(", ".join(f"{name} {count:,}" for name, count in sorted(found.items())))
    if broken is None:
        print(f"{sum(found.values()):,} pieces, none of which did what it must not.")
        return 0
    Path("fuzz-found.bin").write_bytes(broken[1])
    print(f"Found: a {broken[0]} that ends in {broken[2]}; it is in fuzz-found.bin.")
    return 1


if __name__ == "__main__":
    sys.exit(main())
