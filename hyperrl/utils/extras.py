"""Libraries that only some of the package needs."""

from __future__ import annotations

from importlib.util import find_spec


def require(what: str, extra: str, *packages: str) -> None:
    """Refuse to begin what needs libraries that are not installed.

    :param what: what needs them.
    :param extra: the extra of hyperrl's that brings them.
    :param packages: their names, to import and to install.
    :raises ValueError: where one is missing, with how to install it.

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
