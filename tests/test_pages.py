"""The code of README and site, exactly as printed, their commands and their links.

The models that they name are looked up in the current folder first, as any local folder is. So
the tests run in a folder that has ``BAAI/bge-m3``, which is the table of ``tests/table.py``, and
a small random reranker. Nothing in a block is replaced. In the README each block runs alone; on a
page of the site blocks build on each other, those in tabs on those of the same tab. What cannot
run here says why in a comment before it, ``<!-- not run: … -->``.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import re
import shlex
import shutil
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tomllib
import typer
from markdown_it import MarkdownIt
from tests.table import CORPUS, table

from m3_core.cli import app
from m3_core.cli.main import main
from m3_core.testing.rerankers import tiny_reranker

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
NOT_RUN = re.compile(r"<!-- not run: \S.* -->")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    """Of its first line of code, from 1 on."""
    language: str
    tab: str
    code: str
    runs: bool

    def execute(self, names: dict[str, Any]) -> None:
        # Empty lines before it: tracebacks then show the page's own line numbers.
        source = "\n" * (self.line - 1) + self.code
        exec(compile(source, str(self.page), "exec"), names)


def blocks(page: Path, *languages: str) -> list[Block]:
    lines = page.read_text(encoding="utf-8").splitlines()
    return [one for one in _blocks(page, lines) if one.language in languages]


def _blocks(page: Path, lines: list[str]) -> Iterator[Block]:
    tab, start, fence = "", 0, None
    for number, line in enumerate(lines):
        opened = re.match(r'=== "(.+)"', line)
        mark = re.match(r"( *)```(\w*)", line)
        if opened:
            tab = opened[1]
        if fence is None and mark:
            fence, start = mark, number + 1
        elif fence is not None and line.strip() == "```":
            before = next((one for one in reversed(lines[: start - 1]) if one.strip()), "")
            code = textwrap.dedent("\n".join(lines[start:number])) + "\n"
            runs = not NOT_RUN.match(before.strip())
            yield Block(page, start + 1, fence[2], tab if fence[1] else "", code, runs)
            fence = None


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    shutil.copytree(table(), folder / "BAAI/bge-m3")
    tiny_reranker(folder / "BAAI/bge-reranker-v2-m3")
    return folder


@pytest.fixture
def here(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: models, and a test collection in FOLDER."""
    (tmp_path / "BAAI").symlink_to(models / "BAAI", target_is_directory=True)
    (tmp_path / "FOLDER" / "qrels").mkdir(parents=True)
    queries = {f"q{number}": one for number, one in enumerate(CORPUS["queries"])}
    documents = {one["id"]: one for one in CORPUS["documents"]}
    for name, rows in (("corpus", documents), ("queries", queries)):
        lines = [json.dumps({"_id": id_, "text": one["text"]}) for id_, one in rows.items()]
        (tmp_path / "FOLDER" / f"{name}.jsonl").write_text("\n".join(lines), "utf-8")
    relevant = [
        f"{query}\t{document}\t1\n"
        for query in queries
        for document in documents
        if documents[document]["topic"] == queries[query]["topic"]
    ]
    head = "query-id\tcorpus-id\tscore\n"
    (tmp_path / "FOLDER" / "qrels" / "test.tsv").write_text(head + "".join(relevant), "utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("block", blocks(README, "python"), ids=lambda one: f"line {one.line}")
def test_blocks_of_the_readme_run_alone(block: Block, here: Path) -> None:
    block.execute({"__name__": "readme"})


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: name_of(page)
)
def test_blocks_of_a_page_run(page: Path, here: Path) -> None:
    names: dict[str, dict[str, Any]] = {"": {"__name__": "page"}}
    ran = 0
    for block in blocks(page, "python"):
        if block.runs:
            block.execute(names.setdefault(block.tab, dict(names[""])))
            ran += 1
    assert ran or not any(block.runs for block in blocks(page, "python"))


def test_first_page_prints_what_it_says(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = DOCS / "index.md"
    said = blocks(page, "text")[0].code
    first: dict[str, Block] = {}
    for block in blocks(page, "python"):
        first.setdefault(block.tab, block)
    assert len(first) == 3
    for block in first.values():
        block.execute({"__name__": "page"})
        assert capsys.readouterr().out == said


def commands(page: Path) -> list[list[str]]:
    """The commands in its blocks, words of each; what is piped into another is cut off."""
    found = []
    for block in blocks(page, "sh", "bash", ""):
        for line in block.code.replace("\\\n", " ").splitlines():
            for part in re.split(r" \| ", line):
                if part.startswith(("m3-retrieval ", "make ")):
                    found.append(shlex.split(part.partition(" < ")[0], comments=True))
    return found


def test_commands_of_the_readme_run(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "docs").mkdir()
    (here / "docs" / "files.md").write_text("# Files\n\nThey are kept whole.\n", "utf-8")
    ours = [command[1:] for command in commands(README) if command[0] == "m3-retrieval"]
    assert ours
    for arguments in ours:
        with pytest.raises(SystemExit) as end:
            main(arguments)
        assert end.value.code == 0, capsys.readouterr().err


@pytest.mark.parametrize(
    "page", [page for page in (README, *PAGES) if commands(page)], ids=lambda page: name_of(page)
)
def test_commands_have_the_options_that_are_named(page: Path) -> None:
    root: Any = typer.main.get_command(app)
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    for program, name, *rest in commands(page):
        if program == "make":
            assert name in targets
            continue
        command = root if name.startswith("-") else root.commands[name]
        known = {word for one in command.params for word in (*one.opts, *one.secondary_opts)}
        known |= {"--help"}
        words = [name, *rest] if name.startswith("-") else rest
        for word in words:
            if re.match(r"--?[a-z]", word):
                assert word.partition("=")[0] in known, f"{name} has no {word}"


def links(page: Path) -> list[str]:
    tokens = MarkdownIt().parse(page.read_text(encoding="utf-8"))
    children = (child for token in tokens for child in token.children or ())
    return [child.attrs["href"] for child in children if child.type == "link_open"]


def anchors(page: Path) -> set[str]:
    """The anchors of its headings, as GitHub and mkdocs make them of simple ones."""
    tokens = MarkdownIt().parse(page.read_text(encoding="utf-8"))
    heads = [two.content for one, two in itertools.pairwise(tokens) if one.type == "heading_open"]
    plain = [re.sub(r"[^\w\s-]", "", head).strip().lower() for head in heads]
    return {re.sub(r"[\s-]+", "-", head) for head in plain}


# mkdocs checks links between pages of the site.
def test_links_of_the_readme_lead_somewhere() -> None:
    local = [link.partition("#") for link in links(README) if "://" not in link]
    assert any(path == "docs/index.md" for path, _, _ in local)
    for path, _, anchor in local:
        assert (ROOT / path).exists(), path
        assert not anchor or anchor in anchors(ROOT / path), f"{path}#{anchor}"


def test_packages_of_the_blocks_are_in_the_extras_that_are_named() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = extras["optional-dependencies"]
    for page in (README, *PAGES):
        text = page.read_text("utf-8") + (DOCS / "guides/install.md").read_text("utf-8")
        imported = {
            name
            for block in blocks(page, "python")
            for name in re.findall(r"^(?:from|import) (\w+)", block.code, re.MULTILINE)
        }
        homes = {"llama_index": "llama-index-core"}
        for name in sorted(imported - {"m3_core", "langchain_m3", "llamaindex_m3"}):
            assert importlib.util.find_spec(name) is not None
            package = homes.get(name, name.replace("_", "-"))
            holding = {
                extra
                for extra, needs in extras.items()
                if extra not in ("all", "dev") and any(re.match(rf"{package}\b", n) for n in needs)
            }
            assert holding, f"{name_of(page)}: {package} is in no extra"
            named = [extra for extra in holding if f"`{extra}`" in text or f"[{extra}]" in text]
            assert named, f"{name_of(page)} does not name the extra of {package}: {holding}"
