"""Every page is in the navigation, no link is dead, no page speaks of what was renamed."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from documents import GENERATED, READMES, ROOT, documents, pages, prose, shown

RENAMED = {
    r"quickstudy rl-(train|evaluate|profile)": "train, evaluate and profile are for both kinds of experience",
    r"--lanes": "--episodes",
    r"--rounds": "--shots",
    r"\bBY_FAMILY\b|skills/|src/quickstudy/rl/|quickstudy\.learners": "folders of the package were renamed",
    r"held-out (tasks of half-cheetah|directions?)": "training has both directions",
}
HISTORY = ("CHANGELOG.md", "glossary.md")
"""Pages that speak of old names on purpose."""


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub and the site make it."""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower().strip()
    return re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", plain))


def anchors(page: Path) -> set[str]:
    return {slug(h) for h in re.findall(r"^#+ +(.*)$", prose(page.read_text(encoding="utf-8")), re.MULTILINE)}


def leads_somewhere(target: Path, anchor: str) -> bool:
    """Whether a page has this heading, or a file of source this line, as `L30`."""
    if target.suffix == ".md":
        return anchor in anchors(target)
    line = re.fullmatch(r"L(\d+)", anchor)
    return line is not None and int(line[1]) <= len(target.read_text(encoding="utf-8").splitlines())


@pytest.mark.parametrize("page", documents(), ids=shown)
def test_no_link_is_dead(page):
    text = re.sub(r"`[^`]*`", "", prose(page.read_text(encoding="utf-8")))
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith(("http:", "https:", "mailto:")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and not leads_somewhere(target, anchor)):
            dead.append(link)
    assert not dead


@pytest.mark.parametrize("page", pages(), ids=shown)
def test_no_page_leads_out_of_the_site_but_to_source(page):
    links = re.findall(r"\]\(([^)\s]+)\)", prose(page.read_text(encoding="utf-8")))
    inside = ROOT / "docs"
    outside = [
        link
        for link in links
        if not link.startswith(("http", "#", "mailto:"))
        and not link.partition("#")[0].endswith(".py")
        and not (page.parent / link.partition("#")[0]).resolve().is_relative_to(inside)
    ]
    assert not outside


def test_the_navigation_has_every_page_once():
    nav = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]["nav"]

    def leaves(part: Any) -> Iterator[str]:
        if isinstance(part, str):
            yield part
            return
        for one in part.values() if isinstance(part, dict) else part:
            yield from leaves(one)

    listed = list(leaves(nav))
    wanted = [str(page.relative_to(ROOT / "docs")) for page in [*pages(), GENERATED]]
    assert sorted(listed) == sorted(wanted)


def test_every_table_of_evidence_has_its_page():
    shown_cells = "\n".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs/results").glob("*.md"))
    cells = {path.stem for path in (ROOT / "benchmarks/results").glob("*.json")}
    missing = {cell for cell in cells if cell not in shown_cells}
    assert cells
    assert not missing


@pytest.mark.parametrize("page", [p for p in documents() if p.name not in HISTORY], ids=shown)
@pytest.mark.parametrize("old", RENAMED)
def test_no_page_speaks_of_what_was_renamed(page, old):
    own = re.sub(r"<!-- results:.*?<!-- /results -->", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert not re.search(old, own), RENAMED[old]


def test_the_version_is_the_same_everywhere():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert f'__version__ = "{version}"' in (ROOT / "src/quickstudy/__init__.py").read_text(encoding="utf-8")
    assert f"version: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_chinese_readme_is_chinese():
    words = prose(READMES[1].read_text(encoding="utf-8"))
    assert len(re.findall(r"[\u4e00-\u9fff]", words)) > 600
