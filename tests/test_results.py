"""The pages of results say what the files of results hold."""

import hidden_context
import pytest
import results

from hyperrl.experiments.comparison import Comparison
from hyperrl.experiments.sweeps import read_sweep

ROOT = results.ROOT


@pytest.fixture(scope="module")
def comparisons() -> dict[str, Comparison]:
    return results.load()


@pytest.fixture(scope="module")
def suite() -> dict[str, Comparison]:
    return results.load_suite()


def test_the_tables_of_the_pages_are_those_of_the_files(
    comparisons: dict[str, Comparison], suite: dict[str, Comparison]
) -> None:
    for page in results.PAGES:
        text = page.read_text(encoding="utf-8")
        assert results.BLOCK.search(text)
        assert results.filled(text, comparisons, suite) == text, "run scripts/results"


def test_the_tables_of_hidden_contexts_are_those_of_the_files() -> None:
    text = hidden_context.PAGE.read_text(encoding="utf-8")
    assert {match["name"] for match in results.BLOCK.finditer(text)} == hidden_context.TABLES.keys()
    assert hidden_context.filled(text) == text, "run scripts/hidden-context tables"


@pytest.mark.parametrize("sweep", ["results", "suite"])
def test_every_file_is_of_a_cell_of_the_sweep(
    sweep: str, comparisons: dict[str, Comparison], suite: dict[str, Comparison]
) -> None:
    cells = {cell.name: cell for cell in read_sweep(ROOT / "scripts" / "sweeps" / f"{sweep}.toml")}
    for name, comparison in (comparisons if sweep == "results" else suite).items():
        for label, reports in comparison.reports.items():
            for report in reports:
                assert report.training is not None
                assert not cells[f"{name}-{label}-{report.seed}"].training.differences(report.training)


@pytest.mark.parametrize("name", [name for name in results.TABLES if name != "headline" and "suite" not in name])
def test_a_row_is_renewed_and_one_without_files_stays(name: str, comparisons: dict[str, Comparison]) -> None:
    head, cells = results.TABLES[name]
    family = next(iter(comparisons))
    table = f"| head |\n| --- |\n| {family} | 1 | old |\n| elsewhere | 9 | 0.5 |"
    old = f"a\n<!-- results: {name} -->\n{table}\n<!-- end -->\nb"
    lines = results.filled(old, comparisons).splitlines()
    assert (lines[0], lines[-1]) == ("a", "b")
    assert lines[2].count("|") == len(head) + 3
    assert lines[4].removesuffix(" |").split(" | ")[2:] == cells(comparisons[family])
    assert "| elsewhere | 9 | 0.5 |" in lines
