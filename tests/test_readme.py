"""The README's code blocks, each run alone and exactly as printed.

The models that it names are looked up in the current folder first, as any local folder is. So the
test runs in a folder that has ``BAAI/bge-m3``, which is the table of ``tests/table.py``, and for
each reranker that it names a small random one. Nothing in a block is replaced.
"""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
from pathlib import Path

import pytest
import tomllib
from markdown_it import MarkdownIt
from markdown_it.token import Token
from tests.table import table

from m3_core.cli.main import main
from m3_core.testing.rerankers import tiny_reranker

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
TEXT = README.read_text(encoding="utf-8")


def blocks(language: str) -> list[Token]:
    tokens = MarkdownIt().parse(TEXT)
    return [token for token in tokens if token.type == "fence" and token.info.strip() == language]


def first_line(block: Token) -> int:
    return block.map[0] + 2


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(table(), folder / "BAAI/bge-m3")
    tiny_reranker(folder / "BAAI/bge-reranker-v2-m3")
    return folder


@pytest.fixture
def here(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "BAAI").symlink_to(models / "BAAI", target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("block", blocks("python"), ids=lambda one: f"line {first_line(one)}")
def test_python_blocks_run_as_printed(block: Token, here: Path) -> None:
    # Empty lines before it: tracebacks then show the README's own line numbers.
    source = "\n" * (first_line(block) - 1) + block.content
    exec(compile(source, str(README), "exec"), {"__name__": "readme"})


def test_commands_run_as_printed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "docs").mkdir()
    (here / "docs" / "files.md").write_text("# Files\n\nThey are kept whole.\n", "utf-8")
    lines = [line for block in blocks("sh") for line in block.content.splitlines()]
    commands = [shlex.split(line, comments=True) for line in lines]
    ours = [command[1:] for command in commands if command[:1] == ["m3-retrieval"]]
    assert ours
    for arguments in ours:
        with pytest.raises(SystemExit) as end:
            main(arguments)
        assert end.value.code == 0, capsys.readouterr().err
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    assert {command[1] for command in commands if command[:1] == ["make"]} <= targets


def test_links_lead_to_files() -> None:
    tokens = (child for token in MarkdownIt().parse(TEXT) for child in token.children or ())
    links = [token.attrs["href"] for token in tokens if token.type == "link_open"]
    local = [link.partition("#")[0] for link in links if "://" not in link]
    assert "cookbook/README.md" in local
    assert not [link for link in local if not (ROOT / link).exists()]


def test_packages_of_the_blocks_are_in_the_extras_that_are_named() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = extras["optional-dependencies"]
    imported = {
        name
        for block in blocks("python")
        for name in re.findall(r"^(?:from|import) (\w+)", block.content, re.MULTILINE)
    }
    ours = {"m3_core", "langchain_m3", "llamaindex_m3"}
    homes = {"llama_index": "llama-index-core"}
    for name in sorted(imported - ours):
        assert importlib.util.find_spec(name) is not None
        package = homes.get(name, name.replace("_", "-"))
        holding = {
            extra
            for extra, needs in extras.items()
            if extra not in ("all", "dev") and any(re.match(rf"{package}\b", n) for n in needs)
        }
        assert holding, f"{package} is in no extra"
        named = [extra for extra in holding if f"`{extra}`" in TEXT or f"[{extra}]" in TEXT]
        assert named, f"the README does not name the extra of {package}: {sorted(holding)}"
