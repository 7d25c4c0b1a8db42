"""Run notebooks and store what they show in them: ``python cookbook/store.py [NOTEBOOK ...]``.

``make notebooks`` runs them without writing anything.
"""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent


def store(path: Path) -> None:
    """Run a notebook in its folder and write it with its outputs.

    Args:
        path: The notebook.
    """
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook,
        timeout=600,
        coalesce_streams=True,
        record_timing=False,
        resources={"metadata": {"path": str(FOLDER)}},
    ).execute()
    # Which Python ran it would be a change in every notebook at every run.
    notebook.metadata["language_info"] = {"name": "python"}
    nbformat.write(notebook, path)


if __name__ == "__main__":
    for chosen in map(Path, sys.argv[1:] or sorted(map(str, FOLDER.glob("*.ipynb")))):
        print(chosen.name, flush=True)
        store(chosen)
