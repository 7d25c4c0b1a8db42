"""Getting packages from Debian and PyPI, without installing them."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
import tarfile
import zipfile
from typing import TYPE_CHECKING
from urllib.parse import unquote

from cleaning import LANGUAGES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

log = logging.getLogger("collect")


_TRANSLATIONS = {"zh_CN": "zh", "pt_BR": "pt"}


_WANTED = re.compile(
    r"(\.mo|\.pak|/i18n/.*\.json|\.html?|\.page|/man/.*\.gz|\.dict(\.dz)?|\.index|\.bz[svz]|data\.(noun|verb|adj|adv)"
    r"|/games/fortunes/.*|/skycultures/.*\.utf8|/descript/.*\.txt|/dat/database/.*\.txt|/endless-sky/.*\.txt|/copyright)$"
)


class Apt:
    """apt with state and cache folders of its own, so that the machine's are left alone."""

    def __init__(self, work: Path) -> None:
        self.debs = work / "debs"
        for folder in (
            work / "apt/state/lists/partial",
            work / "apt/cache/archives/partial",
            self.debs,
        ):
            folder.mkdir(parents=True, exist_ok=True)
        self.lists = work / "apt/state/lists"
        self.options = [
            f"-oDir::State={work}/apt/state", f"-oDir::Cache={work}/apt/cache",
            "-oDir::State::status=/var/lib/dpkg/status", "-oAPT::Sandbox::User=root",
            "-oAcquire::Languages=" + ",".join([*LANGUAGES, *_TRANSLATIONS]),
        ]  # fmt: skip

    def update(self) -> None:
        """Fetch the package lists and the translated descriptions."""
        subprocess.run(
            ["apt-get", *self.options, "-q", "update"], check=True, stdout=subprocess.DEVNULL
        )

    def package(self, name: str) -> Path | None:
        """Path of the package file, downloaded when need be; None when it cannot be had."""
        found = sorted(self.debs.glob(f"{name}_*.deb"))
        if not found:
            subprocess.run(
                ["apt-get", *self.options, "-q", "download", name],
                cwd=self.debs,
                stdout=subprocess.DEVNULL,
            )
            found = sorted(self.debs.glob(f"{name}_*.deb"))
        if not found:
            log.warning("no package %s", name)
        return found[-1] if found else None

    def descriptions(self) -> dict[str, str]:
        """Text of the Translation files by our language code."""
        tables: dict[str, str] = {}
        for path in sorted(self.lists.glob("*_i18n_Translation-*")):
            code = unquote(path.name.rpartition("Translation-")[2]).split(".")[0]
            lang = _TRANSLATIONS.get(code, code)
            if lang in LANGUAGES and code != "zh":
                shown = subprocess.run(
                    ["/usr/lib/apt/apt-helper", "cat-file", str(path)],
                    check=True,
                    capture_output=True,
                )
                tables[lang] = (
                    tables.get(lang, "") + "\n\n" + shown.stdout.decode("utf-8", "replace")
                )
        return tables


def deb_files(deb: Path) -> Iterator[tuple[str, bytes]]:
    """The wanted regular files of a Debian package."""
    process = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
        for member in archive:
            if member.isfile() and member.size < 40_000_000 and _WANTED.search(member.name):
                handle = archive.extractfile(member)
                if handle is not None:
                    yield member.name, handle.read()
    process.wait()


def wheel_files(work: Path, name: str) -> tuple[str, list[tuple[str, bytes]]]:
    """File name and files of a wheel, downloaded when it is not there yet."""
    folder = work / "wheels"
    folder.mkdir(exist_ok=True)
    pattern = re.sub(r"[-_.]+", "_", name).lower() + "-*.whl"
    if not list(folder.glob(pattern)):
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "-q",
            "--no-deps",
            "-d",
            str(folder),
            name,
        ]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    path = sorted(folder.glob(pattern))[-1]
    with zipfile.ZipFile(path) as archive:
        return path.name, [
            (entry, archive.read(entry)) for entry in archive.namelist() if not entry.endswith("/")
        ]
