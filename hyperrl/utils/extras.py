"""Libraries that only some of the package needs."""

from __future__ import annotations

from importlib.util import find_spec


def require(what: str, extra: str, *packages: str) -> None:
    """Raise an error if libraries that a command needs are not installed.

    :param what: the name of what needs them, for the message.
    :param extra: the extra of hyperrl that installs them.
    :param packages: their names, for import and for pip.
    :raises ValueError: if one is missing, with the command that installs it.

    >>> require("the search", "tune", "json", "not_there")
    Traceback (most recent call last):
    ...
    ValueError: the search needs not_there: pip install not_there, or in hyperrl's checkout pip install '.[tune]'
    """
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise ValueError(
            f"{what} needs {', '.join(missing)}: pip install {' '.join(missing)}, or in hyperrl's checkout "
            f"pip install '.[{extra}]'"
        )
