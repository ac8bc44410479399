"""One process of the fuzzer, see `checks.fuzz.__main__`, which starts it."""

import contextlib
import hashlib
import io
import json
import os
import resource
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path
from types import ModuleType

import numpy as np
from checks.fuzz import mutation
from checks.fuzz.packing import packed, spread, unpacked

from quickstudy import errors

LONGEST, LARGEST = 10, 1 << 30
"""Seconds and bytes that reading one input may take."""

atheris: ModuleType | None
try:
    import atheris
except ImportError:
    atheris = None


def outcome(data: bytes, name: str, scratch: Path) -> str:
    """'read', 'refused', or what was wrong with how one input was read."""
    from checks.fuzz.readers import READERS, refusals

    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    spread(unpacked(data), scratch)
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    found, heard = "read", io.StringIO()
    try:
        with contextlib.redirect_stdout(heard), contextlib.redirect_stderr(heard):
            READERS[name].use(scratch)
    except refusals() as error:
        said, found = str(error).replace(str(scratch), "."), "refused"
        if not 0 < len(said) <= getattr(error, "most", errors.MOST):
            found = f"a sentence that is too long from {_place(error)}"
        elif not said.isprintable():
            found = f"a sentence that is not printable from {_place(error)}"
        elif _ran_out(error):
            found = f"more than 1 GB in {_place(error)}"
    except AssertionError as error:
        found = f"garbage taken: {str(error)[:60]!r} {_place(error)}"
    except BaseException as error:
        found = f"{type(error).__name__} in {_place(error)}"
    took = time.process_time() - started
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    if took > LONGEST:
        found = f"longer than {LONGEST} s ({found})"
    if grown > LARGEST:
        found = "more than 1 GB"
    if "\x1b" in heard.getvalue():
        found = f"a raw escape sequence was printed ({found})"
    return found


def _ran_out(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, MemoryError):
            last = traceback.extract_tb(error.__traceback__)[-1].filename
            return "rosbags" not in last  # it asks the file for bytes that it does not have, which takes no memory
        error = error.__cause__ or error.__context__
    return False


def _place(error: BaseException) -> str:
    """The last place of the error's way that is our own, and the last of all."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if "quickstudy" in f.filename.split("/src/")[-1]] or list(frames[-1:])
    where = {f"{Path(f.filename).name}:{f.name}:{f.lineno}": None for f in (*ours[-1:], *frames[-1:])}
    return " > ".join(where)


def main() -> None:
    name, seconds, seed, corpus, count, output = sys.argv[1:7]
    warnings.simplefilter("ignore")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    scratch = Path(tempfile.mkdtemp(prefix="fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None)) / "input"
    os.environ["QUICKSTUDY_CACHE"] = str(scratch.parent / "cache")
    from checks.fuzz.readers import READERS

    reader, found, until = READERS[name], Counter[str](), time.monotonic() + float(seconds)

    def tell() -> None:
        Path(count).write_text(json.dumps(found))

    def one(data: bytes) -> None:
        made = outcome(data, name, scratch)
        if found[made] == 0 and made not in ("read", "refused"):
            key = hashlib.sha256(made.encode()).hexdigest()[:12]
            (Path(output) / key).write_bytes(data)
            (Path(output) / f"{key}.txt").write_text(made + "\n")
        found[made] += 1
        if sum(found.values()) % 50 == 0 or time.monotonic() > until - 2:
            tell()

    def damage(data: bytes, rng: np.random.Generator, plain: mutation.Bytes) -> bytes:
        files = unpacked(data)
        for _ in range(int(rng.integers(1, 3))):
            files = mutation.damaged(files, rng, plain)
        return packed(reader.repaired(files) if rng.random() < 0.9 else files)

    def mutate(data: bytes, most: int, number: int) -> bytes:
        return damage(data, np.random.default_rng(number), lambda some, _: atheris.Mutate(some, most))[:most]

    starts = [path.read_bytes() for path in sorted(Path(corpus).iterdir())]
    if atheris is not None:
        with atheris.instrument_imports(include=["quickstudy", "quickstudy_runtime", *reader.modules]):
            for data in starts:
                one(data)
    for data in starts:
        one(data)
    tell()
    page = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (page + LARGEST + (256 << 20),) * 2)
    if atheris is None:
        rng = np.random.default_rng(int(seed))
        while time.monotonic() < until:
            one(damage(starts[rng.integers(len(starts))], rng, mutation.scratched))
        tell()
        return
    options = [f"-max_total_time={max(1, int(float(seconds)))}", f"-seed={int(seed) + 1}", "-max_len=400000",
               f"-timeout={3 * LONGEST}", "-rss_limit_mb=0", f"-artifact_prefix={output}/process-",
               "-len_control=0", "-print_final_stats=1"]  # fmt: skip
    atheris.Setup([sys.argv[0], *options, corpus], one, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
