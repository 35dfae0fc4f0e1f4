"""Which errors are the user's to mend, and how they are said in one sentence. All others are ours: tracebacks."""

from __future__ import annotations

import traceback
from pathlib import Path

import gymnasium

PACKAGE = Path(__file__).parents[1]


def in_words(error: BaseException) -> str | None:
    """Say what the user can mend, in one sentence; ``None`` for what they cannot.

    That is what this package refuses (its own ``ValueError``), what the system does of files (``OSError``: a full
    disk, a folder that is not there or not to be written), and environments that Gymnasium does not find. A
    ``ValueError`` that comes from elsewhere, numpy for instance, is a defect of this package.

    >>> in_words(FileNotFoundError(2, "No such file or directory", "runs/x"))
    'runs/x: No such file or directory'
    >>> in_words(ValueError("array must not contain infs"))
    """
    if isinstance(error, OSError):
        reason = error.strerror or str(error)
        return f"{error.filename}: {reason}" if error.filename else reason
    if isinstance(error, gymnasium.error.Error):
        return str(error)
    if isinstance(error, ValueError):
        frames = traceback.extract_tb(error.__traceback__)
        if frames and Path(frames[-1].filename).is_relative_to(PACKAGE):
            return str(error)
    return None
