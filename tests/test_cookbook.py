"""The cookbook's notebooks as they are stored; ``make notebooks`` runs them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "cookbook"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def links(markdown: str) -> set[str]:
    found = (link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", markdown))
    return {link for link in found if link and "://" not in link}


def test_the_index_names_every_notebook() -> None:
    assert links((FOLDER / "README.md").read_text("utf-8")) == {one.name for one in NOTEBOOKS}
    assert [one.name[:3] for one in NOTEBOOKS] == [f"{n:02}_" for n in range(1, len(NOTEBOOKS) + 1)]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_with_what_it_shows(path: Path) -> None:
    notebook = json.loads(path.read_text("utf-8"))
    assert notebook["metadata"]["language_info"] == {"name": "python"}
    cells = notebook["cells"]
    assert "".join(cells[0]["source"]).startswith("# ")
    prose = "\n".join("".join(one["source"]) for one in cells if one["cell_type"] == "markdown")
    assert not [link for link in links(prose) if not (FOLDER / link).exists()]

    code = [one for one in cells if one["cell_type"] == "code"]
    # In order, and all of them: run from top to bottom in one go.
    assert [one["execution_count"] for one in code] == list(range(1, len(code) + 1))
    assert any("assert " in "".join(one["source"]) for one in code)
    outputs = [output for one in code for output in one["outputs"]]
    assert outputs
    # Nothing went wrong, and nothing of the machine that ran it is shown.
    assert not [
        one for one in outputs if one["output_type"] == "error" or one.get("name") == "stderr"
    ]
    assert not re.search(r"/(tmp|home|root|work|Users)/| at 0x", json.dumps(outputs))
    assert path.stat().st_size < 400_000
