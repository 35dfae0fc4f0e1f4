"""Folders of reports, written by processes that are killed."""

from pathlib import Path

import numpy as np
import pytest
from outside import python

from hyperrl.adaptation.methods import Curve
from hyperrl.adaptation.studies import Line, Study
from hyperrl.report import plots, write_study

TESTS = Path(__file__).parents[1]
PROGRAM = """
import sys
from pathlib import Path
import numpy as np
from hyperrl.adaptation.studies import Study
from hyperrl.evaluation.report import Report, Split
from hyperrl.experiments.comparison import Comparison
from hyperrl.report import write_report, write_study
from killed import at_every_operation, in_child
from report.test_folders import STUDY

folder = Path(sys.argv[1])
folder.mkdir()
out = folder / "out"
split = Split(np.zeros((2, 2)), np.random.default_rng(0).normal(size=(2, 3)))
comparison = Comparison([Report("ode", {"train": split}, agent=agent, seed=0) for agent in "ab"])
reports = lambda: write_report(comparison, out)
reports()  # what is loaded at the first picture is loaded
whole = {path.name for path in out.iterdir()}

def clear():
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()

clear()
kills = 0
for k in at_every_operation(folder, reports, 7):
    kills += 1
    if not out.exists():
        assert in_child(reports) == 0, k
    assert {path.name for path in out.iterdir()} == whole, k
    clear()
clear()
for k in at_every_operation(folder, lambda: write_study(STUDY, out), 3):
    kills += 1
    if not out.exists():
        assert in_child(lambda: write_study(STUDY, out)) == 0, k
    assert Study.load(out / "adaptation.json").contexts.shape == (2, 1), k  # the numbers, which took the time
    clear()
print("kills", kills)
"""
CURVE = Curve("zero-shot", np.array([0, 1]), np.array([0, 9]), np.array([[1.0, 2.0]] * 2), None, np.ones(1), None)
STUDY = Study("x", np.zeros((2, 1)), np.array([0, 1]), (Line("a", "zero-shot", (((CURVE, CURVE),),)),))


def test_a_killed_process_leaves_a_whole_folder_or_none(tmp_path: Path) -> None:
    assert int(python(TESTS, "-c", PROGRAM, tmp_path / "folder").rpartition("kills ")[2]) > 7


def test_numbers_are_kept_where_the_picture_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no picture")

    monkeypatch.setattr(plots, "plot_adaptation", fail)
    with pytest.raises(RuntimeError, match="no picture"):
        write_study(STUDY, tmp_path / "out")
    assert Study.load(tmp_path / "out" / "adaptation.json").lines[0].label == "a, zero-shot"
