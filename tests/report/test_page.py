"""The report is one whole file that fetches nothing, says everything in words too, and shows text as text."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from quickstudy.errors import QuickstudyError
from quickstudy.evaluate import Evaluation
from quickstudy.report import charts, plots
from quickstudy.report import page as report
from quickstudy.report.charts import Chart, Series
from quickstudy.report.page import Failures, Figure, Replay, Report, Video, VideoGroup
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
    scene = tmp_path / "a.viser"
    scene.write_bytes(b"recorded")
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
    assert all(image.get("alt") for image in page.all("img"))
    assert sum(div.get("role") == "img" and bool(div.get("aria-label")) for div in page.all("div")) == 2
    assert all(svg.get("aria-hidden") == "true" for svg in page.all("svg"))
    assert len(page.all("figcaption")) == 7
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


def test_the_page_is_small_and_its_policy_lets_nothing_out(full: Report) -> None:
    text = report.render(full)
    assert len(text) < 15_000_000
    policy = next(str(meta["content"]) for meta in Page(text).all("meta") if "http-equiv" in meta)
    assert not re.search(r"https?:|\*", policy), "no host is allowed"
    assert text.count('id="viewer"') == text.count('id="scene-1"') == 1


def test_a_missing_replay_is_told(tmp_path: Path) -> None:
    group = VideoGroup("a", [], [Replay(tmp_path / "no.viser", "a")])
    with pytest.raises(QuickstudyError, match=r"no\.viser' is not a readable replay"):
        report.render(Report("Title", "Headline", videos=[group]))


# ---- what charts show


def outcomes(success: list[float], lifted: list[float], slipped: list[float]) -> Evaluation:
    metrics = {"success": success, "lifted": lifted, "slipped": slipped}
    return Evaluation("test", ["a", "b"], [1], {n: np.array(v).reshape(1, 2, 2) for n, v in metrics.items()}, [1.0])


def test_failures_are_sorted_by_how_by_hand() -> None:
    one = outcomes([1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 0, 0])
    assert charts.failures(one) == {"never lifted it": [(1, 0), (1, 1)], "lifted it, then lost it": [(0, 1)]}
    assert charts.failure_of({"success": 0.0, "steps": 9.0}) == charts.OTHERWISE
    assert charts.failure_of({"success": 0.0, "collisions": 2.0}) == "ran into something"
    assert charts.failure_of({"success": 1.0, "collisions": 2.0}) == ""
    chart = charts.failure_chart({"maml": [one, outcomes([1, 1, 1, 1], [1] * 4, [0] * 4)]}, "t")
    assert chart is not None
    assert {s.name: s.y for s in chart.series} == {
        "succeeded": [0.625], "never lifted it": [0.25], "lifted it, then lost it": [0.125],
    }  # fmt: skip
    assert charts.failures(Evaluation("test", ["a"], [1], {"mse": np.ones((1, 1, 1))}, [1.0])) == {}


def test_a_performance_profile_falls_in_steps() -> None:
    chart = charts.performance_profile({"maml": [outcomes([1, 0, 1, 1], [1] * 4, [0] * 4)]}, "success", "t", True)
    assert chart is not None
    assert list(zip(chart.series[0].x, chart.series[0].y, strict=True)) == [(0.5, 0.5), (1.0, 0.5), (1.0, 0.0)]


def test_charts_of_a_cell() -> None:
    cell = replace(CELL, rows=[
        Row("maml", 0, 0.1), Row("maml", 5, 0.9, ms=4.0), Row("replay", 1, 0.2, ms=0.0), Row("mann", 5, 0.8, ms=2.0),
    ])  # fmt: skip
    bars = charts.after_demonstrations(cell, "t")
    assert [(s.name, s.y, s.baseline) for s in bars.series] == [
        ("maml", [0.9], False), ("replay", [0.2], True), ("mann", [0.8], False),
    ]  # fmt: skip
    curve = charts.adaptation(cell, "t")
    assert curve is not None
    assert curve.series[0].x == [0.0, 5.0]
    points = charts.against(cell, "ms", "ms", "t", "c")
    assert points is not None
    assert (points.kind, [s.name for s in points.series]) == ("points", ["maml", "mann"]), "zero has no logarithm"
    varied = replace(cell, against="tasks", rows=[Row("maml", 1, 0.1 * n, at=float(n)) for n in (3, 0, 1)])
    line = charts.against(varied, "at", "tasks", "t", "c", log=False)
    assert line is not None
    assert (line.kind, line.series[0].x) == ("lines", [0.0, 1.0, 3.0])
    assert charts.probabilities(cell, "t") is None
