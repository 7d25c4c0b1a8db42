"""Checks the built site: links lead to pages and anchors, and nothing is loaded from elsewhere.

mkdocs checks the links of Markdown; those of notebooks and docstrings only show in the result.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# What browsers load by themselves, and what readers follow.
LOADED = {("img", "src"), ("script", "src"), ("link", "href"), ("iframe", "src")}
FOLLOWED = {("a", "href")}


@dataclass
class Contents:
    """What a page holds."""

    anchors: set[str] = field(default_factory=set)
    links: list[tuple[str, bool]] = field(default_factory=list)
    """Targets, and whether browsers load them by themselves."""


class Reader(HTMLParser):
    """Collects anchors and links."""

    def __init__(self) -> None:
        super().__init__()
        self.found = Contents()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take one tag.

        Args:
            tag: Its name.
            attrs: Its attributes.
        """
        for name, value in attrs:
            if value is None:
                continue
            if name in ("id", "name"):
                self.found.anchors.add(value)
            if (tag, name) in LOADED | FOLLOWED and ("rel", "canonical") not in attrs:
                self.found.links.append((value, (tag, name) in LOADED))


def read(page: Path) -> Contents:
    """Read a page."""
    reader = Reader()
    reader.feed(page.read_text(encoding="utf-8"))
    return reader.found


def faults(site: Path) -> list[str]:
    """Find the links that lead nowhere, and what would be loaded from elsewhere.

    Args:
        site: The folder that mkdocs has written.

    Returns:
        A line for each.
    """
    pages = {page: read(page) for page in sorted(site.rglob("*.html"))}
    found = []
    for page, contents in pages.items():
        # Served for any address, so its links begin at the root.
        if page.name == "404.html":
            continue
        for link, is_loaded in contents.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                if is_loaded and parts.scheme != "data":
                    found.append(f"{page.relative_to(site)} loads {link}")
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            target = target / "index.html" if target.is_dir() else target
            anchor = unquote(parts.fragment)
            if not target.exists():
                found.append(f"{page.relative_to(site)} links to {link}, which is not there")
            elif anchor and target in pages and anchor not in pages[target].anchors:
                found.append(f"{page.relative_to(site)} links to {link}: no such anchor")
    return found


if __name__ == "__main__":
    wrong = faults(Path(sys.argv[1]).resolve())
    sys.exit("\n".join(wrong) if wrong else 0)
