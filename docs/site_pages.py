"""Pages of the site that lie elsewhere in the repository: the notebooks, benchmarks, changes.

A hook of mkdocs. The files stay where those who read the repository look for them; their links
to each other are turned into links between pages.
"""

from __future__ import annotations

import json
import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.exceptions import PluginError
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
# Page of the site: file of the repository.
ELSEWHERE = {
    "benchmarks.md": "benchmarks/README.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "m3-small.md": "core/m3_core/models/m3-small/README.md",
    "m3-small-recipe.md": "recipes/m3_small/README.md",
    "cookbook/index.md": "cookbook/README.md",
}
_LINK = re.compile(r"(\[[^\]]*\])\(([^)\s]+)\)")


def notebooks() -> list[Path]:
    """Find the notebooks, in the order of their names."""
    return sorted((ROOT / "cookbook").glob("*.ipynb"))


def pages() -> dict[str, str]:
    """List the pages that lie elsewhere, with their files in the repository."""
    return ELSEWHERE | {f"cookbook/{one.name}": f"cookbook/{one.name}" for one in notebooks()}


def title(notebook: Path) -> str:
    """Read a notebook's first heading."""
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        found = re.search(r"^# (.+)$", "".join(cell["source"]), re.MULTILINE)
        if cell["cell_type"] == "markdown" and found:
            return found[1].strip()
    raise PluginError(f"{notebook} has no heading: its first cell must begin with '# '")


def relinked(text: str, page: str) -> str:
    """Turn links to files of the repository into links to the site's pages.

    Args:
        text: Markdown.
        page: The page it stands on, with slashes.

    Returns:
        The text. A link to a file that is no page is left out, its words stay.

    Raises:
        PluginError: A link leads to no file.
    """
    folder = posixpath.dirname(pages().get(page, f"docs/{page}"))
    page_of = {source: name for name, source in pages().items()}

    def replace(found: re.Match[str]) -> str:
        words, target = found.groups()
        path, mark, anchor = target.partition("#")
        if not path or "://" in target:
            return found[0]
        source = posixpath.normpath(posixpath.join(folder, path))
        if not (ROOT / source).exists():
            raise PluginError(f"{pages().get(page, page)} links to {target}, which is not there")
        name = page_of.get(source, source.removeprefix("docs/"))
        if name == source:
            return words[1:-1]
        return f"{words}({posixpath.relpath(name, posixpath.dirname(page) or '.')}{mark}{anchor})"

    # Not in code: what looks like a link there is none.
    pieces = re.split(r"(^```.*?^```|`[^`\n]*`(?!\]))", text, flags=re.MULTILINE | re.DOTALL)
    return "".join(p if p.startswith("`") else _LINK.sub(replace, p) for p in pieces)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the notebooks into the navigation."""
    for entry in config.nav or ():
        if "Cookbook" in entry:
            entry["Cookbook"] = [
                "cookbook/index.md",
                *({title(one): f"cookbook/{one.name}"} for one in notebooks()),
            ]
    return config


# Before mkdocs-jupyter, which looks for notebooks among the files.
@event_priority(100)
def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie elsewhere."""
    for page, source in ELSEWHERE.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    for one in notebooks():
        # mkdocs-jupyter knows files by the folder that they lie in.
        page = f"cookbook/{one.name}"
        files.append(File(page, str(ROOT), config.site_dir, config.use_directory_urls))
    return files


def on_page_markdown(
    markdown: str,
    page: Page,
    config: MkDocsConfig,
    files: Files,
) -> str:
    """Turn the links of pages that lie elsewhere."""
    name = page.file.src_uri
    return relinked(markdown, name) if name in ELSEWHERE else markdown
