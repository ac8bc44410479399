"""The report is one whole file that fetches nothing, says everything in words too, and shows text as text."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from quickstudy import plots, rendering, report
from quickstudy.errors import QuickstudyError
from quickstudy.report import Figure, Report, Video, VideoGroup
from quickstudy.results import Cell, Row

EVIL = "<script>alert(1)</script> & \"quotes\" 'too'"
CELL = Cell(
    cell="grasping-sizes",
    metric="success",
    unit="fraction",
    protocol=f"Hidden: size. {EVIL}",
    command="quickstudy compare grasping",
    seconds=60,
    commit="abc",
    versions={"torch": "2.13.0"},
    machine="2 cores",
    rows=[Row("maml", 1, 0.934, (0.91, 0.955), 3, 100, 5), Row("replay", 1, 0.02, note=EVIL)],
)


class Page(HTMLParser):
    """Collects the elements of a page, and fails where they do not nest."""

    EMPTY = ("meta", "img", "br", "link", "input", "path", "use", "rect")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def full(tmp_path: Path) -> Report:
    clip, png = tmp_path / "clip.mp4", tmp_path / "a.png"
    picture = np.full((32, 48, 3), 90, np.uint8)
    rendering.write_video(clip, [picture] * 5, 10)
    rendering.write_png(png, picture)
    return Report(
        title=f"An arm {EVIL}",
        headline=f"`maml` grasps 93 % {EVIL}",
        paragraphs=["One.", f"Two `{EVIL}`."],
        cells=[CELL],
        figures=[
            Figure(plots.adaptation_curve(CELL), f"Curve {EVIL}", f"a rising line {EVIL}"),
            Figure(plots.bars(CELL), "Bars", "two bars"),
            Figure(png.read_bytes(), "Picture", "grey"),
        ],
        videos=[VideoGroup(f"A box {EVIL}", [Video(clip, "Before", "misses"), Video(clip, f"After {EVIL}", EVIL)])],
        settings={"family": EVIL, "training": {"steps": 3, "hidden": (128, 64)}},
        command=f"quickstudy demo {EVIL}",
        next_steps=[f"Try `quickstudy train` {EVIL}"],
    )


def test_the_page_is_whole_and_fetches_nothing(tmp_path: Path, full: Report) -> None:
    path = tmp_path / "run" / "report.html"
    report.write(path, full)
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]
    for _, attributes in page.elements:
        for name in ("src", "href", "poster", "xlink:href", "data", "action"):
            link = attributes.get(name)
            assert link is None or link.startswith(("data:", "#")), (name, link)
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    assert any("default-src 'none'" in str(meta.get("content")) for meta in page.all("meta"))


def test_text_is_text(full: Report) -> None:
    text = report.render(full)
    assert "<script>alert" not in text
    assert len(Page(text).all("script")) == 1, "our own"
    assert "<code>maml</code> grasps" in text


def test_everything_has_words(full: Report) -> None:
    page = Page(report.render(full))
    assert page.all("html") == [{"lang": "en"}]
    assert len(page.all("h1")) == 1
    assert len(page.all("caption")) == 1
    assert all(head.get("scope") in ("col", "row") for head in page.all("th"))
    assert all(image.get("alt") for image in page.all("img"))
    assert sum(div.get("role") == "img" and bool(div.get("aria-label")) for div in page.all("div")) == 2
    assert all(svg.get("aria-hidden") == "true" for svg in page.all("svg"))
    assert len(page.all("figcaption")) == 5
    for video in page.all("video"):
        assert {"controls", "muted", "playsinline", "aria-label", "poster"} <= video.keys()
        assert (video["width"], video["height"]) == ("48", "32")
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert all(name for name in ids)


def test_figures_and_settings_are_there(full: Report) -> None:
    text = report.render(full)
    assert '<td class="number">93.4 <span class="interval">[91.0, 95.5]</span></td>' in text
    assert '<tr class="baseline"><th scope="row">replay</th>' in text
    assert '<th scope="row">training.hidden</th><td>128, 64</td>' in text
    assert "measured in 60 s on 2 cores" in text


def test_what_is_not_there_leaves_no_heading() -> None:
    page = Page(report.render(Report("Title", "Headline")))
    assert page.all("h2") == []
    assert page.all("section") == []
    assert page.all("script") == []


def test_bad_parts(tmp_path: Path) -> None:
    page = Report("Title", "Headline")
    with pytest.raises(QuickstudyError, match="SVG or PNG; 'jpeg' is neither"):
        report.render(replace(page, figures=[Figure(b"\xff\xd8", "jpeg", "")]))
    for content in (None, b"", b"no video"):
        clip = tmp_path / "clip.mp4"
        if content is not None:
            clip.write_bytes(content)
        with pytest.raises(QuickstudyError, match=r"clip\.mp4' is not a readable video"):
            report.render(replace(page, videos=[VideoGroup("a", [Video(clip, "", "")])]))
    (tmp_path / "file").touch()
    with pytest.raises(QuickstudyError, match="Could not write"):
        report.write(tmp_path / "file" / "report.html", page)
