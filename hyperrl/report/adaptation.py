"""The results of an adaptation study as a folder of numbers and a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hyperrl.adaptation.studies import Study
from hyperrl.report import plots
from hyperrl.utils.files import new_folder


def write_study(study: Study, out: str | Path) -> None:
    """Write ``adaptation.json`` and pictures to a new folder; the numbers first, which took the time.

    ``adaptation.png`` is by episodes, ``first-episode.png`` by the steps of the first one.

    :raises ValueError: where it exists.
    """
    out = Path(out)
    with new_folder(out) as folder:
        study.save(folder / "adaptation.json")
    curves = {
        label: (np.array(study.after, dtype=np.float64), np.array(curve).T) for label, curve in study.curves.items()
    }
    plots.save(plots.plot_adaptation(curves, study.is_scored), out / "adaptation.png")
    first = {line.label: line.first_episode for line in study.lines}
    if known := {label: curve for label, curve in first.items() if curve is not None}:
        plots.save(plots.plot_first_episode(known), out / "first-episode.png")
