"""Getting packages from Debian and PyPI, without installing them."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Of Debian's packages; fact book and quiz are in wheels, which are read whole.
_WANTED = re.compile(r"(\.mo|\.html?|\.page|/copyright)$")


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
        self.options = [
            f"-oDir::State={work}/apt/state", f"-oDir::Cache={work}/apt/cache",
            "-oDir::State::status=/var/lib/dpkg/status", "-oAPT::Sandbox::User=root",
            "-oAcquire::Languages=none",
        ]  # fmt: skip

    def update(self) -> None:
        """Fetch the package lists."""
        subprocess.run(
            ["apt-get", *self.options, "-q", "update"], check=True, stdout=subprocess.DEVNULL
        )

    def package(self, name: str) -> Path:
        """Path of the package file, downloaded when need be."""
        if not any(self.debs.glob(f"{name}_*.deb")):
            command = ["apt-get", *self.options, "-q", "download", name]
            subprocess.run(command, cwd=self.debs, check=True, stdout=subprocess.DEVNULL)
        return sorted(self.debs.glob(f"{name}_*.deb"))[-1]


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
