"""The results of an adaptation study as a folder of numbers and a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hyperrl.adaptation.studies import Study
from hyperrl.report import plots
from hyperrl.utils.files import refuse_existing


def write_study(study: Study, out: str | Path) -> None:
    """Write ``adaptation.json`` and ``adaptation.png`` to a new folder.

    :raises ValueError: where it exists.
    """
    out = Path(out)
    refuse_existing(out)
    out.mkdir(parents=True)
    study.save(out / "adaptation.json")
    curves = {label: (np.array(study.after), np.array(curve).T) for label, curve in study.curves.items()}
    plots.save(plots.plot_adaptation(curves, study.is_scored), out / "adaptation.png")
