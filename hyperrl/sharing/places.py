"""Where shared agents are: folders, those that come along with hyperrl, repositories of the Hugging Face Hub."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from hyperrl.training.record import ENCODER, ESTIMATOR, RECORD, WEIGHTS
from hyperrl.utils.definitions import folder
from hyperrl.utils.errors import nearest
from hyperrl.utils.extras import require

CONFIG: Final = "config.json"
"""What tells the folder of a shared agent."""
TRAINED: Final = "trained"
"""The folder of the agents that come along."""
HUB: Final = "hf:"
"""How the name of an agent on the Hub begins."""


def names() -> list[str]:
    """Return the names of the agents that come along, ``"family/agent"``.

    >>> "pendulum/hyper-ppo" in names()
    True
    """
    return sorted("/".join(file.parts[-3:-1]) for file in folder(TRAINED).glob(f"*/*/{CONFIG}"))


def is_shared(name: str | Path) -> bool:
    """Say whether a name is that of a shared agent: of one that comes along, a folder, or a repository of the Hub."""
    return str(name).startswith(HUB) or (Path(name) / CONFIG).is_file() or str(name) in names()


def find(name: str | Path) -> Path:
    """Find the folder of a shared agent. One on the Hub is downloaded, once.

    :raises ValueError: where there is none; where the Hub cannot be reached, or huggingface_hub is not installed.
    """
    if str(name).startswith(HUB):
        return _fetch(str(name).removeprefix(HUB))
    path, known = Path(name), names()
    if (path / CONFIG).is_file():
        return path
    if str(name) in known:
        return folder(TRAINED) / name
    if (path / RECORD).is_file():
        raise ValueError(f"{path} is a run folder: open it with hyperrl.Run.open, or share it: hyperrl share {path}")
    if path.is_dir():
        raise ValueError(f"{path} is no shared agent: it has no {CONFIG}")
    raise ValueError(
        f"unknown agent {str(name)!r}: {known} come along; or give a folder that hyperrl share wrote, or hf:user/repo."
        f"{nearest(str(name), known)}"
    )


def _fetch(repository: str) -> Path:
    """Download an agent's files from the Hub, and nothing else of its repository.

    :param repository: ``"user/repo"``, perhaps with ``"@revision"``.
    """
    require(f"the agent {HUB}{repository}", "hub", "huggingface_hub")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    name, _, revision = repository.partition("@")
    endpoint = os.environ.get("HF_ENDPOINT")

    def download(file: str, commit: str | None) -> Path:
        return Path(hf_hub_download(name, file, revision=commit, endpoint=endpoint))

    try:
        found = download(CONFIG, revision or None).parent
        download(WEIGHTS, found.name)  # of the same commit
        for file in (ENCODER, ESTIMATOR):
            try:
                download(file, found.name)
            except LocalEntryNotFoundError:
                raise
            except EntryNotFoundError:
                continue
    except (HfHubHTTPError, EntryNotFoundError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{HUB}{repository} cannot be had from the Hugging Face Hub: {reason}") from None
    return found
