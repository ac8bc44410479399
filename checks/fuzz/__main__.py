"""Feeds every reader with damaged input, guided by which of its branches an input takes (atheris, that is libFuzzer).

    python -m checks.fuzz [READER ...] [--seconds 600] [--seed 0] [--output fuzz-found]

What may come of an input: it is read, and what is read are finite numbers; or it is refused in one printable sentence
of at most 300 characters (1,000 where it lists what there is). All else is a fault: another exception, garbage that is
taken, more than 10 seconds, more than 1 GB, or the end of the process. Each kind of fault is kept once, in
`--output`/READER. Without atheris, which has wheels for Linux and macOS alone, the damage is done without guidance.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from checks.fuzz.packing import gathered, packed
from checks.fuzz.readers import READERS, ROOT


def fuzz(name: str, seconds: float, seed: int, output: Path) -> Counter[str]:
    """Runs one reader in processes of its own, one after the other where one does not live to the end."""
    found = Counter[str]()
    shutil.rmtree(output / name, ignore_errors=True)
    (output / name).mkdir(parents=True)
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus"
        corpus.mkdir()
        seeds = Path(folder) / "seeds"
        seeds.mkdir()
        for i, place in enumerate(READERS[name].seeds(seeds)):
            (corpus / f"seed{i}").write_bytes(packed(gathered(place)))
        for path in sorted((Path(__file__).parent / "cases" / name).glob("*")):
            shutil.copy(path, corpus)
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 1:
            count = Path(folder) / "count.json"
            count.unlink(missing_ok=True)
            words = [sys.executable, "-m", "checks.fuzz.engine", name, str(left), str(seed), str(corpus)]
            with (output / name / "log").open("a") as log:
                ended = subprocess.run(
                    [*words, str(count), str(output / name)], cwd=ROOT, stdout=log, stderr=log, check=False
                )
            if count.exists():
                found.update(json.loads(count.read_text()))
            seed += 1
            if time.monotonic() < until - 2:
                found[f"process ended with {ended.returncode}"] += 1
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="Feeds every reader with damaged input.")
    parser.add_argument("readers", nargs="*", metavar="READER", help=f"of {', '.join(READERS)}; all by default")
    parser.add_argument("--seconds", type=float, default=600, help="for each reader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("fuzz-found"))
    given = parser.parse_args()
    if unknown := set(given.readers) - READERS.keys():
        parser.error(f"no reader {', '.join(sorted(unknown))}; known are {', '.join(READERS)}")
    bad = 0
    for name in given.readers or READERS:
        found = fuzz(name, given.seconds, given.seed, given.output.absolute())
        fine = found["read"] + found["refused"]
        faults = {kind: count for kind, count in found.items() if kind not in ("read", "refused")}
        bad += len(faults)
        print(f"{name}: {fine + sum(faults.values()):,} inputs, {found['read']:,} read, {found['refused']:,} refused, "
              f"{sum(faults.values()):,} faults of {len(faults)} kinds", flush=True)  # fmt: skip
        for kind, count in sorted(faults.items(), key=lambda pair: -pair[1]):
            print(f"  {count:>8,} x {kind}", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
