"""What ``hyperrl explore`` says where it cannot show agents; the page itself is in ``tests/explorer``."""

import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fixtures.make import HERE

from hyperrl.cli.explore import _family_of, _named
from hyperrl.families.family import load_family

from .conftest import Command


def test_agents_of_two_families_are_refused() -> None:
    agents: list[Any] = [SimpleNamespace(path=Path(name), family=load_family(name)) for name in ("pendulum", "ode")]
    with pytest.raises(ValueError, match="expected agents of one family: ode is of 'ode', pendulum of 'pendulum'"):
        _family_of(agents)


def test_agents_of_one_name_are_told_apart_by_their_folders() -> None:
    agents: list[Any] = [SimpleNamespace(path=Path(f"runs/{i}"), name=name) for i, name in enumerate("aab")]
    assert list(_named(agents)) == ["a, runs/0", "a, runs/1", "b"]


def test_a_port_that_is_taken_and_a_library_that_is_missing_are_named(
    hyperrl: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        text = hyperrl("explore", HERE / "run", "--port", port, "--no-browser", expect=2)
        assert text.startswith(f"error: port {port} cannot be used")
    monkeypatch.setattr("hyperrl.utils.extras.find_spec", lambda package: None)
    text = hyperrl("explore", "--no-browser", expect=2)
    assert text.startswith("error: the live page needs nicegui: pip install nicegui")
