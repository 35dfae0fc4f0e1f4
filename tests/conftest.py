import os
from importlib.util import find_spec

os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the tests run in several processes, and start others

import pytest
import torch
from hypothesis import settings

from hyperrl.families import registration

torch.set_num_threads(1)  # whatever the variable was
settings.register_profile("hyperrl", deadline=None, max_examples=50, derandomize=True)
settings.load_profile("hyperrl")

SUITE = {f"{domain}_{task}" for domain, tasks in registration.SUITE.items() for task in tasks}
"""The families that need dm_control."""
if find_spec("dm_control") is None:  # it has no wheels for the newest Python; the tests take families from this list
    from hyperrl.utils import definitions

    every = definitions.names
    definitions.names = lambda kind: [name for name in every(kind) if name not in SUITE]


@pytest.fixture
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an estimator of the context learn as little as shows that it works."""
    for name, value in dict(ENVS=6, LONGEST=8, UPDATES=1, SHORT_UPDATES=2, SEQUENCES=4).items():
        monkeypatch.setattr(f"hyperrl.inference.learning.{name}", value)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of the tests of every family, those of the suite, of a thousand steps, are slow; test_suite.py is fast."""
    for item in items:
        params = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        of_suite = any(isinstance(v, str) and v.split("/")[0] in SUITE for v in params.values())
        if item.path.name != "test_suite.py" and of_suite:
            item.add_marker(pytest.mark.slow)
