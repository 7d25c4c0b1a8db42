"""The site's pages against the code: the reference names everything, links lead somewhere."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
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
    *("request_thread", "saved_folders", "stores", "texts", "values", "wire"),
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
