"""The site's pages against the code: the reference names everything, links lead somewhere."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

import m3_core

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"

# Every public name of these is on a page of the reference.
WHOLE = {
    *("m3_core", "langchain_m3", "llamaindex_m3"),
    *("m3_core.representations", "m3_core.scoring", "m3_core.converters", "m3_core.filters"),
    *("m3_core.errors", "m3_core.bulk", "m3_core.evaluation", "m3_core.explanations"),
    *("m3_core.flagembedding", "m3_core.folder_index", "m3_core.server", "m3_core.testing"),
    "m3_core.training",
}
# Of these some names are for users, and the others for other rooms.
PARTLY = {"m3_core.encoder", "m3_core.rerankers", "m3_core.collection"}
# The inside, and the command line, which has a guide.
INSIDE = {
    *("adapters", "arguments", "beside", "cli", "expressions", "extras", "files", "forks"),
    *("http_client", "json_text", "lazy", "lexical_index", "network", "ray_cluster"),
    *("request_thread", "saved_folders", "shared_clients", "stores", "texts", "values", "wire"),
}


def documented() -> list[str]:
    pages = sorted((DOCS / "api").glob("*.md"))
    return [
        name
        for page in pages
        for name in re.findall(r"^::: (\S+)$", page.read_text("utf-8"), re.MULTILINE)
    ]


def public_names(module: ModuleType) -> set[str]:
    if hasattr(module, "__all__"):
        return {name for name in module.__all__ if not name.startswith("_")}
    return {
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__ == module.__name__
    }


@pytest.mark.parametrize("name", sorted(WHOLE))
def test_every_public_name_is_in_the_reference(name: str) -> None:
    module = importlib.import_module(name)
    there = {one.rpartition(".")[2] for one in documented() if one.rpartition(".")[0] == name}
    # What is in the package itself too is not repeated.
    if name != "m3_core":
        there |= set(m3_core.__all__)
    assert not public_names(module) - there


def test_reference_names_what_is_there_once() -> None:
    names = documented()
    assert len(names) == len(set(names))
    for one in names:
        module, _, name = one.rpartition(".")
        assert hasattr(importlib.import_module(module), name), one
        assert module in WHOLE | PARTLY


def test_every_module_is_public_or_inside() -> None:
    modules = {one.name for one in pkgutil.iter_modules(m3_core.__path__)}
    public = {name.partition(".")[2] for name in WHOLE | PARTLY if name.startswith("m3_core.")}
    assert modules == public | INSIDE
    assert not public & INSIDE


def test_every_page_is_in_the_navigation() -> None:
    nav = yaml.safe_load(ROOT.joinpath("mkdocs.yml").read_text("utf-8"))["nav"]
    listed = set(re.findall(r"[\w/-]+\.md", str(nav)))
    pages = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}
    assert pages <= listed


def tool(name: str) -> ModuleType:
    """One of the site's own modules, which lie beside its pages."""
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[name]
    return module


def test_broken_links_and_foreign_scripts_are_found(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "index.html").write_text('<h1 id="x">A</h1><a href="..">up</a>', "utf-8")
    good = '<a href="a/#x">x</a><a href="https://example.org">e</a><img src="data:image/png;,">'
    (tmp_path / "index.html").write_text(good, "utf-8")
    check = tool("check_links")
    assert check.faults(tmp_path) == []
    bad = '<a href="b/">b</a><a href="a/#y">y</a><script src="https://example.org/x.js"></script>'
    (tmp_path / "index.html").write_text(good + bad, "utf-8")
    assert check.faults(tmp_path) == [
        "index.html links to b/, which is not there",
        "index.html links to a/#y: no such anchor",
        "index.html loads https://example.org/x.js",
    ]


def test_links_of_pages_that_lie_elsewhere_are_turned() -> None:
    site = tool("site_pages")
    told = "[a](docs/guides/explain.md#x) [b](pyproject.toml) `[c](none.md)` [d](https://e.org)"
    assert site.relinked(told, "contributing.md") == (
        "[a](guides/explain.md#x) b `[c](none.md)` [d](https://e.org)"
    )
    assert site.relinked("[a](../CHANGELOG.md)", "cookbook/index.md") == "[a](../changelog.md)"
    told = "[a](01_three_representations.ipynb)"
    assert site.relinked(told, "cookbook/index.md") == told
    with pytest.raises(site.PluginError, match=r"none\.md, which is not there"):
        site.relinked("[a](none.md)", "contributing.md")


def test_examples_of_docstrings_are_code() -> None:
    text = "Do it.\n\nExample:\n    .. code-block:: python\n\n        a = 1\n\n        b = 2\n"
    assert tool("docstrings").readable(text) == (
        "Do it.\n\nExamples:\n    ```python\n    a = 1\n\n    b = 2\n    ```\n"
    )


def test_contents_of_a_notebook_have_words_that_are_code() -> None:
    html = (
        '<h1 class="x" id="no">No</h1><h1 id="a">A &amp; <code>b</code></h1><h2 id="c">C'
        '<a class="anchor-link" href="#c">¶</a></h2><h3 id="d">D</h3><h2 id="e">E</h2>'
    )
    found = tool("site_pages").headings(html)
    assert [one["name"] for one in found] == ["A & b"]
    assert [(one["id"], len(one["children"])) for one in found[0]["children"]] == [
        ("c", 1),
        ("e", 0),
    ]
