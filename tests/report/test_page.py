"""The report is one whole file that fetches nothing, says everything in words too, and shows text as text."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from quickstudy.errors import QuickstudyError
from quickstudy.report import page as report
from quickstudy.report.charts import Chart, Series
from quickstudy.report.page import Failures, Replay, Report, Video, VideoGroup
from quickstudy.results.evidence import Cell, Row
from quickstudy.simulation import rendering

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
    rows=[
        Row("maml", 1, 0.934, (0.91, 0.955), 3, 100, 5, role="meta-learner"),
        Row("replay", 1, 0.02, note=EVIL, role="floor"),
    ],
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
    clip = tmp_path / "clip.mp4"
    rendering.write_video(clip, [np.full((32, 48, 3), 90, np.uint8)] * 5, 10)
    scene = tmp_path / "a.viser"
    scene.write_bytes(b"recorded")
    return Report(
        title=f"An arm {EVIL}",
        headline=f"`maml` grasps 93 % {EVIL}",
        paragraphs=["One.", f"Two `{EVIL}`."],
        cells=[CELL],
        facts={"family": f"`grasping` {EVIL}"},
        charts={"Results": [Chart(f"Chart {EVIL}", EVIL, "lines", EVIL, EVIL, [Series(EVIL, [0, 1], [0.2, 0.9])])]},
        videos=[
            VideoGroup(
                f"A box {EVIL}",
                [Video(clip, "Before", "misses"), Video(clip, f"After {EVIL}", EVIL)],
                [Replay(scene, f"After {EVIL}")],
            )
        ],
        failures=[Failures(f"maml {EVIL}", [(EVIL, 3, [EVIL, "a box"])])],
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
    scripts = Page(text).all("script")
    assert [script.get("type") for script in scripts] == ["application/json", "text/plain", "text/plain", None], (
        "our own"
    )
    data = re.search(r'<script type="application/json">(.*?)</script>', text)
    assert data is not None
    assert json.loads(data[1])["series"][0]["name"] == EVIL, "a chart's data survives its own escape"
    assert "<code>maml</code> grasps" in text


def test_everything_has_words(full: Report) -> None:
    page = Page(report.render(full))
    assert page.all("html") == [{"lang": "en"}]
    assert len(page.all("h1")) == 1
    assert len(page.all("caption")) == 2
    assert [figure["data-alt"] for figure in page.all("figure") if figure.get("class") == "chart"] == [
        f"Chart {EVIL}. Arrow keys go from point to point. {EVIL} 0.9"
    ]
    assert all(head.get("scope") in ("col", "row") for head in page.all("th"))
    assert page.all("img") == page.all("svg") == [], "charts are drawn by the script, films have words of their own"
    assert len(page.all("figcaption")) == 4
    for video in page.all("video"):
        assert {"controls", "muted", "playsinline", "aria-label", "poster"} <= video.keys()
        assert (video["width"], video["height"]) == ("48", "32")
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert all(name for name in ids)


def test_results_and_settings_are_there(full: Report) -> None:
    text = report.render(full)
    assert '<td class="number">93.4 <span class="interval">[91.0, 95.5]</span></td>' in text
    assert re.search(r'<tr class="baseline">\s*<th scope="row">replay</th>', text)
    assert '<th scope="row">training.hidden</th><td>128, 64</td>' in text
    assert "measured in 60 s on 2 cores" in text


def test_what_is_not_there_leaves_no_heading() -> None:
    page = Page(report.render(Report("Title", "Headline")))
    assert page.all("h2") == []
    assert page.all("section") == []
    assert page.all("script") == []


def test_bad_parts(tmp_path: Path) -> None:
    page = Report("Title", "Headline")
    for content in (None, b"", b"no video"):
        clip = tmp_path / "clip.mp4"
        if content is not None:
            clip.write_bytes(content)
        with pytest.raises(QuickstudyError, match=r"clip\.mp4' is not a readable video"):
            report.render(replace(page, videos=[VideoGroup("a", [Video(clip, "", "")])]))
    (tmp_path / "file").touch()
    with pytest.raises(QuickstudyError, match="Could not write"):
        report.write(tmp_path / "file" / "report.html", page)


def test_the_page_is_small_and_its_policy_lets_nothing_out(full: Report) -> None:
    text = report.render(full)
    assert len(text) < 15_000_000
    policy = next(str(meta["content"]) for meta in Page(text).all("meta") if "http-equiv" in meta)
    assert not re.search(r"https?:|\*", policy), "no host is allowed"
    assert text.count('id="viewer"') == text.count('id="scene-1"') == 1


def test_a_missing_replay_is_an_error(tmp_path: Path) -> None:
    group = VideoGroup("a", [], [Replay(tmp_path / "no.viser", "a")])
    with pytest.raises(QuickstudyError, match=r"no\.viser' is not a readable replay"):
        report.render(Report("Title", "Headline", videos=[group]))


def test_colours_have_contrast() -> None:
    def luminance(colour: str) -> float:
        digits = colour.removeprefix("#")
        digits = digits if len(digits) == 6 else "".join(2 * digit for digit in digits)
        parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    style = (Path(report.__file__).parent / "report.css").read_text(encoding="utf-8")
    schemes = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    assert len(schemes) == 2, "light and dark"
    for scheme in schemes:
        colours = dict(re.findall(r"--([a-z0-9]+): (#[0-9a-f]+)", scheme))
        for name in ("ink", "grey", "good", *(f"c{i}" for i in range(6))):
            low, high = sorted((luminance(colours[name]), luminance(colours["page"])))
            assert (high + 0.05) / (low + 0.05) >= 3, (name, colours[name])
