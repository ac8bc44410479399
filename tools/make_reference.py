"""Writes docs/reference/command-line.md: what `quickstudy COMMAND --help` prints, for every command.

python tools/make_reference.py
"""

import os
import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs/reference/command-line.md"

COMMANDS = [
    *("demo", "studio", "families", "check", "record", "data", "train", "evaluate", "adapt", "match", "compare"),
    *("resume", "reproduce", "runs", "report", "export", "push", "pull", "profile"),
]
"""In the order of the page; a test compares them with the command line."""

EXAMPLES = {
    "train": ["train grasping --method maml", "train navigation --method rl2-dagger"],
    "data": ["data inspect", "data omniglot"],
    "profile": ["profile navigation --method maml-trpo"],
}
"""Of commands whose help depends on what is named, or that have commands of their own."""


def help_of(words: str) -> str:
    """What the command line prints for these words and --help, without colours and frames.

    Raises:
        RuntimeError: it did not print help.
    """
    command = [sys.executable, "-m", "quickstudy", *words.split(), "--help"]
    quiet = os.environ | {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}
    done = subprocess.run(command, capture_output=True, text=True, env=quiet)
    if done.returncode != 0:
        raise RuntimeError(f"'quickstudy {words} --help' ended with status {done.returncode}: {done.stderr.strip()}")
    plain = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)
    return "\n".join(line.rstrip() for line in plain.strip().splitlines())


def main() -> None:
    parts = [
        "# Reference: command line\n",
        "`quickstudy COMMAND --help` prints what stands here; that of `train` and `profile` shows the settings of the "
        "family and the method that are named, with their defaults.\n",
    ]
    for command in COMMANDS:
        parts.append(f"## {command}\n")
        parts += [
            f"```text\n$ quickstudy {words} --help\n{help_of(words)}\n```\n"
            for words in EXAMPLES.get(command, [command])
        ]
    PAGE.write_text("\n".join(parts), encoding="utf-8")
    print(f"{PAGE} written.")


if __name__ == "__main__":
    main()
