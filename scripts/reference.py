"""The reference of the documentation site: a page for each package of hyperrl, with every name that it offers."""

import importlib
import inspect
import re
from typing import Any

import griffe
from mkdocs.structure.files import File, Files

DOCTEST = re.compile(r"^>>> .*?(?=\n\n|\Z)", re.MULTILINE | re.DOTALL)
ROLE = re.compile(r":\w+:`~?(?:[\w.]+ <)?([^`>]+)>?`")


def rooms() -> list[str]:
    """Return the packages of hyperrl that offer names, hyperrl itself first."""
    import pkgutil

    import hyperrl

    inside = [f"hyperrl.{module.name}" for module in pkgutil.iter_modules(hyperrl.__path__) if module.ispkg]
    return ["hyperrl", *(room for room in sorted(inside) if offered(room))]


def offered(room: str) -> list[str]:
    """Return the public names that a package offers, without its modules."""
    module = importlib.import_module(room)
    names = [name for name in dir(module) if not name.startswith("_") and name not in ("TYPE_CHECKING", "attach")]
    mine = [name for name in names if not inspect.ismodule(getattr(module, name))]
    return [name for name in mine if f"import {name} as {name}" in inspect.getsource(module)]


def page_of(room: str) -> str:
    """Return the page of a package, in Markdown."""
    about = inspect.getdoc(importlib.import_module(room)) or ""
    return "\n\n".join([f"# {room}", readable(about), *(f"::: {room}.{name}" for name in offered(room))]) + "\n"


def readable(docstring: str) -> str:
    """Turn a docstring's reStructuredText into Markdown: roles into code, doctests into blocks of code.

    >>> readable("See :class:`~hyperrl.Run`.\\n\\n>>> 1 + 1\\n2")
    'See `hyperrl.Run`.\\n\\n```python\\n>>> 1 + 1\\n2\\n```'
    """
    return DOCTEST.sub(lambda block: f"```python\n{block[0].rstrip()}\n```", ROLE.sub(r"`\1`", docstring))


class Docstrings(griffe.Extension):
    """Make docstrings readable before they are parsed."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of a module, class, function or attribute."""
        if obj.docstring is not None:
            obj.docstring.value = readable(obj.docstring.value)


def on_config(config: Any) -> Any:
    """Put the pages into the navigation."""
    config.nav = [*config.nav, {"Reference": [f"reference/{room}.md" for room in rooms()]}]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages."""
    for room in rooms():
        files.append(File.generated(config, f"reference/{room}.md", content=page_of(room)))
    return files
