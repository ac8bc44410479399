"""Runs `quickstudy data doctor` on two good and five spoilt data sets, and shows in the docs what it said.

    python tools/fill_doctor.py FOLDER      about ten minutes; a set whose doctor.json is there already is not run again

A block of docs/guides/doctor.md stands between the comments `<!-- doctor: NAME -->` and `<!-- /doctor -->`.
"""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks import doctor_sets

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/guides/doctor.md"
PLOT, PLOTTED = ROOT / "docs/images/doctor.png", "good-point"
_BLOCK = re.compile(r"(<!-- doctor: (\S+) -->\n).*?(<!-- /doctor -->)", re.DOTALL)
_VERDICTS = {"good": "good", "note": "look", "bad": "**bad**"}


def told(folder: Path, name: str) -> dict[str, Any]:
    """What the doctor says of a set, made and looked at in `folder`."""
    written = folder / f"{name}-doctor/doctor.json"
    if not written.exists():
        if not (folder / name).exists():
            doctor_sets.SETS[name](folder / name)
        command = [sys.executable, "-m", "quickstudy", "data", "doctor", name, "--output", str(written.parent)]
        subprocess.run(command, cwd=folder, check=False)
    found: dict[str, Any] = json.loads(written.read_text(encoding="utf-8"))
    return found


def shown(found: dict[str, Any]) -> str:
    """A table of what is not good, or of everything where nothing is bad."""
    rows = found["findings"]
    bad = sum(one["verdict"] == "bad" for one in rows)
    kept = [one for one in rows if not bad or one["verdict"] != "good"]
    lines = ["", "| | about | what was found, and what to do |", "| :-- | :-- | :-- |"]
    for one in kept:
        text = f"{one['said']} *{one['remedy']}*" if one["remedy"] else one["said"]
        lines.append(f"| {_VERDICTS[one['verdict']]} | {one['about']} | {text.replace('|', chr(92) + '|')} |")
    if len(rows) > len(kept):
        lines.append(f"\nAnd {len(rows) - len(kept)} points that are good.")
    return "\n".join([*lines, f"\nExit status {int(found['useless'])}.", ""])


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    text = PAGE.read_text(encoding="utf-8")
    text = _BLOCK.sub(lambda m: f"{m[1]}{shown(told(folder, m[2]))}\n{m[3]}", text)
    PAGE.write_text(text, encoding="utf-8")
    shutil.copyfile(folder / f"{PLOTTED}-doctor/doctor.png", PLOT)


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
