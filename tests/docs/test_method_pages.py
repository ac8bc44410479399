"""The pages of methods by demonstration: all code that they point to exists, and nothing of a method is missing."""

import ast
import re
from dataclasses import fields
from functools import cache
from pathlib import Path

import pytest
import torch
from documents import ROOT, shown
from torch.utils._pytree import tree_map

from quickstudy import methods
from quickstudy.data import DemonstrationSet
from quickstudy.experiment import Experiment
from quickstudy.families.classic import PointNavigation
from quickstudy.method import Method

RECORDS = [methods.get(name) for name in methods.names("demonstrations")]
PAGES = [page for page in sorted((ROOT / "docs/methods").glob("*.md")) if "methods/demonstrations/" in page.read_text()]


@cache
def sources(page: Path) -> dict[str, str]:
    """The files of the package that a page names, and what stands in them."""
    paths = sorted(set(re.findall(r"`(src/quickstudy/[^`]*\.py)`", page.read_text(encoding="utf-8"))))
    return {path: (ROOT / path).read_text(encoding="utf-8") for path in paths}


@cache
def defined(page: Path) -> dict[str, str]:
    """Functions, classes and methods of these files, as `name` or `Class.name`, and their code."""
    found = {}
    for text in sources(page).values():
        for node in ast.parse(text).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found[node.name] = ast.get_source_segment(text, node) or ""
            for part in node.body if isinstance(node, ast.ClassDef) else []:
                if isinstance(part, ast.FunctionDef):
                    found[f"{node.name}.{part.name}"] = ast.get_source_segment(text, part) or ""
    return found


def code_cells(page: Path) -> list[str]:
    """The cells of tables' columns that are called 'code'."""
    cells, column = [], None
    for line in page.read_text(encoding="utf-8").splitlines():
        row = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if not line.startswith("|"):
            column = None
        elif column is None:
            column = row.index("code") if "code" in row else -1
        elif column >= 0 and not line.startswith("| :--"):
            cells.append(row[column])
    return cells


def own_page(record: Method) -> Path:
    """The page of the file that holds the record."""
    (page,) = (page for page in PAGES if any(f'"{record.name}",' in text for text in sources(page).values()))
    return page


def test_there_are_pages():
    assert len(PAGES) >= 11
    assert sum(len(code_cells(page)) for page in PAGES) > 60


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_all_files_exist(page):
    named = re.findall(r"`((?:src|tests|benchmarks|tools|examples)/[^`\s]*)`", page.read_text(encoding="utf-8"))
    missing = [path for path in named if not (ROOT / path).exists()]
    assert not missing
    assert sources(page)


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_all_code_in_tables_exists(page):
    """A name is defined in the page's files; a comment stands in the function that is named after it."""
    missing = []
    for cell in code_cells(page):
        code = re.findall(r"`([^`]+)`", cell)
        names = [part for part in code if re.fullmatch(r"[A-Za-z_]\w*(\.\w+)?", part) and part not in known_words()]
        missing += [name for name in names if name not in defined(page)]
        for comment in (part for part in code if part.startswith("#")):
            if not names or all(comment not in defined(page).get(name, "") for name in names):
                missing.append(comment)
    assert not missing


@cache
def known_words() -> set[str]:
    """Names of settings, which cells may speak of too."""
    return {field.name for record in RECORDS for field in fields(record.settings)}


@pytest.mark.parametrize("record", RECORDS, ids=lambda r: r.name)
def test_a_method_has_its_command_its_settings_and_its_figures(record):
    text = own_page(record).read_text(encoding="utf-8")
    assert "## Measured" in text
    assert re.search(rf"^quickstudy (train|compare) .*(?<![\w-]){record.name}(?![\w-])", text, re.MULTILINE)
    missing = [field.name for field in fields(record.settings) if f"`{field.name}`" not in text]
    assert not missing
    if fields(record.settings):
        assert f"`{record.settings.__name__}`" in text


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_every_comment_with_an_equation_is_on_the_page(page):
    """Of the code's comments that name an equation of a paper, each stands in a table."""
    comments = {
        line.strip()
        for text in sources(page).values()
        for line in text.splitlines()
        if re.match(r"\s*# .*\bEqs?\. ", line)
    }
    quoted = [part for cell in code_cells(page) for part in re.findall(r"`(#[^`]+)`", cell)]
    missing = [comment for comment in comments if not any(part in comment for part in quoted)]
    assert not missing


@pytest.mark.parametrize("record", [r for r in RECORDS if r.uses == "all"], ids=lambda r: r.name)
def test_all_that_is_logged_is_on_the_page(record):
    family = PointNavigation()
    text = own_page(record).read_text(encoding="utf-8")
    for name in ("train/loss", "train/gradient-norm", "train/rate", "validation/"):
        assert f"`{name}`" in text
    if record.why_not(family):
        return
    experiment = Experiment.of(family, record, changes={"network": {"hidden": (4,), "embedding": 4}})
    source = DemonstrationSet.record(family, family.tasks("train", 2), 2, 0)
    task = tree_map(lambda t: t[0], source.sample(torch.Generator().manual_seed(0), 1, 1, 1))
    _, metrics = experiment.build().loss(task)
    missing = [name for name in metrics if f"`train/{name}`" not in text]
    assert not missing
