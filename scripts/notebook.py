"""Make a notebook of a page: its Python becomes cells of code, all else cells of Markdown."""

import json
import re
from pathlib import Path
from typing import Any

import tyro

CODE = re.compile(r"^```python\n(.*?)^```\n", re.MULTILINE | re.DOTALL)


def notebook(page: str) -> str:
    """Return the notebook of a page in Markdown, as JSON text.

    :param page: the page; its links to other pages stay, since the notebook lies beside them.
    """
    cells: list[dict[str, Any]] = []

    def add(kind: str, text: str, **more: Any) -> None:
        if text.strip():
            lines = text.strip("\n").splitlines(keepends=True)
            cells.append({"cell_type": kind, "id": f"cell-{len(cells)}", "metadata": {}, **more, "source": lines})

    end = 0
    for block in CODE.finditer(page):
        add("markdown", page[end : block.start()])
        add("code", block[1], execution_count=None, outputs=[])
        end = block.end()
    add("markdown", page[end:])
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    whole = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def main(page: Path = Path("docs/tutorial.md")) -> None:
    """Write the notebook of a page beside it.

    Args:
        page: The page, in Markdown.
    """
    page.with_suffix(".ipynb").write_text(notebook(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    tyro.cli(main)
