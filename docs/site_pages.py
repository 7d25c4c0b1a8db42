"""Pages of the site that lie elsewhere in the repository: the notebooks, benchmarks, changes.

A hook of mkdocs. The files stay where those who read the repository look for them; their links
to each other are turned into links between pages.
"""

from __future__ import annotations

import html as markup
import json
import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mkdocs.exceptions import PluginError
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File
from mkdocs.structure.toc import get_toc

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
            return found[1].replace("`", "").strip()
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
        if source not in page_of and not source.startswith("docs/"):
            return words[1:-1]
        name = page_of.get(source, source.removeprefix("docs/"))
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


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn the links of notebooks, and make their table of contents of what they became.

    mkdocs-jupyter leaves links as they are, and its table and titles have no words that are code.
    """
    if page.file.src_uri not in {f"cookbook/{one.name}" for one in notebooks()}:
        return html
    page.toc = get_toc(headings(html))
    page.title = title(ROOT / page.file.src_uri)
    page_of = {source: name for name, source in pages().items()}

    def replace(found: re.Match[str]) -> str:
        path, mark, anchor = found[1].partition("#")
        source = posixpath.normpath(posixpath.join("cookbook", path))
        target = files.get_file_from_path(page_of.get(source, source.removeprefix("docs/")))
        if target is None:
            raise PluginError(f"{page.file.src_uri} links to {found[1]}, which is no page")
        return f'href="{target.url_relative_to(page.file)}{mark}{anchor}"'

    return re.sub(r'href="((?![a-z]+:|#|/)[^"]+)"', replace, html)


def headings(html: str) -> list[dict[str, Any]]:
    """List a page's headings down to the third level, each under the one above it."""
    top: list[dict[str, Any]] = []
    above: list[dict[str, Any]] = []
    for found in re.finditer(r'<h([1-3]) id="([^"]+)".*?>(.*?)</h\1>', html, re.DOTALL):
        words = re.sub(r'<a class="anchor-link".*?</a>|<[^>]+>', "", found[3], flags=re.DOTALL)
        name = markup.unescape(words).strip()
        one = {"level": int(found[1]), "id": found[2], "name": name, "children": []}
        while above and above[-1]["level"] >= one["level"]:
            above.pop()
        (above[-1]["children"] if above else top).append(one)
        above.append(one)
    return top
