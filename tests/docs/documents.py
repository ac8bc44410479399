"""The project's Markdown: which pages there are, and what stands in them."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
READMES = [ROOT / "README.md", ROOT / "README.zh-CN.md"]
GENERATED = ROOT / "docs/reference/command-line.md"
"""Made by tools/make_reference.py when the site is built; it may be missing."""


def pages() -> list[Path]:
    """The pages of the docs site."""
    return [page for page in sorted((ROOT / "docs").rglob("*.md")) if page != GENERATED]


def documents() -> list[Path]:
    """Every Markdown file that a reader sees."""
    return [*READMES, *(ROOT / f"{name}.md" for name in ("CONTRIBUTING", "CHANGELOG")), *pages()]


def shown(page: Path) -> str:
    """Where a page is, for messages."""
    return str(page.relative_to(ROOT))


def fences(text: str, language: str) -> list[str]:
    """The code blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def python_of(page: str) -> list[str]:
    """The Python blocks of a page, by its path from the root."""
    return fences((ROOT / page).read_text(encoding="utf-8"), "python")


def prose(text: str) -> str:
    """The text without code blocks, where nothing is a link or a heading."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


def commands(text: str) -> list[str]:
    """Every `quickstudy ...` of code blocks and of inline code, without its comment."""
    blocks = "\n".join(body for kind in ("sh", "bash") for body in fences(text, kind))
    indented = "\n".join(re.findall(r"^    (quickstudy .*)$", prose(text), re.MULTILINE))
    inline = "\n".join(re.sub(r"\s+", " ", code) for code in re.findall(r"`(quickstudy [^`]+)`", prose(text)))
    lines = [line.strip() for line in f"{blocks}\n{indented}\n{inline}".splitlines()]
    return [re.split(r"\s+#", line)[0].strip() for line in lines if line.startswith("quickstudy ")]
