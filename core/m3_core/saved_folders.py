"""Folders that are saved whole or not at all, whatever becomes of the process that saves them.

A folder is written beside its place, under a hidden name, and then exchanged for what is there. A
process that is killed leaves the hidden folder behind; whoever saves or loads the folder next
removes it, or puts back what had been set aside. Whether its writer still lives is told by a lock
on it, which the system takes back with the process.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import secrets
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

try:
    import fcntl
except ImportError:  # Windows: there, what killed processes leave behind stays.
    fcntl = None  # type: ignore[assignment]  # the module is absent

if TYPE_CHECKING:
    from collections.abc import Iterator

# Half written, or to be deleted; and whole, to be put back if nothing is in its place.
_PARTIAL, _OLD = "partial", "old"
# A whole state whose files belong one level higher.
_READY = ".finished"
_EXCHANGE, _HERE = 2, -100


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Fill a hidden sibling of a folder, which takes the folder's place when all went well.

    Args:
        folder: Where the files shall be; it may exist.

    Yields:
        The sibling, empty.

    Raises:
        OSError: Something could not be written; the folder is as it was.
    """
    folder = _absolute(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    tidy(folder)
    with _hidden(folder) as partial:
        yield partial
        exchange(partial, folder)


def exchange(new: Path, folder: Path) -> None:
    """Put a complete folder into the place of another one, which is deleted.

    Args:
        new: On the same file system.
        folder: It may exist.
    """
    _sync(new)
    if not _moved(new, folder):
        if _swapped(new, folder):
            remove(new)
        else:
            _set_aside_for(new, folder)
    _sync_names(folder.parent)


def remove(folder: Path) -> None:
    """Delete a folder, of which no one shall see half.

    Args:
        folder: The folder; it need not exist.
    """
    hidden = _sibling(folder, _PARTIAL)
    with contextlib.suppress(FileNotFoundError):
        folder.rename(hidden)
    shutil.rmtree(hidden, ignore_errors=True)


def tidy(folder: Path) -> None:
    """End what processes that are gone have begun in a folder's place.

    What was set aside comes back if nothing is there; all else that they left is deleted.

    Args:
        folder: It need not exist.
    """
    folder = _absolute(folder)
    # Where nothing may be written, nothing is left to be done.
    with contextlib.suppress(OSError):
        for left in _leftovers(folder):
            with _held(left, wait=False) as is_ours:
                if not is_ours:
                    continue
                if f".{_OLD}-" in left.name and not folder.exists():
                    left.rename(folder)
                else:
                    remove(left)
        finish(folder)


def tidy_all(folder: Path) -> None:
    """Do ``tidy`` for all that is or was in a folder.

    Args:
        folder: Where folders were saved; it need not exist.
    """
    if not folder.is_dir():
        return
    hidden = re.compile(rf"\.(.+)\.({_PARTIAL}|{_OLD})-[0-9a-f]+")
    names = {match[1] for one in folder.iterdir() if (match := hidden.fullmatch(one.name))}
    for name in sorted(names):
        tidy(folder / name)


def ready(folder: Path) -> Path:
    """Where to save what ``finish`` shall move into a folder that holds other things too.

    Args:
        folder: The folder.

    Returns:
        A folder in it, to be saved by ``replacing``.
    """
    return folder / _READY


def finish(folder: Path) -> None:
    """Move the files that lie ready in a folder to their places; ended whenever it is begun anew.

    ``config.json`` goes first and comes last: without it no one takes the folder for a checkpoint
    while its files are of two.

    Args:
        folder: The folder.
    """
    source = ready(folder)
    if not source.is_dir():
        return
    with _held(source):
        files = [path for path in sorted(source.rglob("*")) if path.is_file()]
        last = source / "config.json"
        if last in files:
            (folder / last.name).unlink(missing_ok=True)
            files.remove(last)
            files.append(last)
        for path in files:
            target = folder / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                path.replace(target)
        _sync_names(folder)
        remove(source)


@contextmanager
def locked(folder: Path, *, wait: bool = True) -> Iterator[bool]:
    """Take turns with all who do this with the same folder, in whatever process or thread.

    Args:
        folder: An existing folder.
        wait: Wait until it is free.

    Yields:
        Whether the others are kept out; not so where folders have no locks.

    Raises:
        BlockingIOError: Another one has it, and ``wait`` is off.
    """
    with _open_folder(folder) as handle:
        if handle is None:
            yield False
            return
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise BlockingIOError(
                error.errno, "another process is at work in it", str(folder)
            ) from error
        except OSError:
            # Some network file systems have no locks.
            yield False
            return
        try:
            yield True
        finally:
            # A child that was forked meanwhile has the lock too, and keeps what is only closed.
            fcntl.flock(handle, fcntl.LOCK_UN)


@contextmanager
def _open_folder(folder: Path) -> Iterator[int | None]:
    if fcntl is None:
        yield None
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        yield handle
    finally:
        os.close(handle)


@contextmanager
def _hidden(folder: Path) -> Iterator[Path]:
    """A hidden sibling, deleted at the end if it is still there."""
    while True:
        partial = _sibling(folder, _PARTIAL)
        partial.mkdir()
        with _held(partial) as is_there:
            # Another process may have taken it for one that was left behind.
            if not is_there:
                continue
            try:
                yield partial
            finally:
                shutil.rmtree(partial, ignore_errors=True)
            return


@contextmanager
def _held(folder: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold a folder's lock; whether that is still the folder of this name, and was to be had."""
    if fcntl is None:
        yield wait
        return
    try:
        handle = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        yield False
        return
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        except OSError:
            # Some network file systems have no locks.
            yield wait
            return
        try:
            is_same = os.path.samestat(os.fstat(handle), folder.stat())
        except FileNotFoundError:
            is_same = False
        yield is_same
    finally:
        os.close(handle)


def _moved(new: Path, folder: Path) -> bool:
    """Rename a folder, unless there is one of the new name already."""
    try:
        if not folder.exists():
            new.rename(folder)
            return True
    except OSError:
        # Another process may have made it meanwhile.
        if not folder.exists():
            raise
    return False


def _set_aside_for(new: Path, folder: Path) -> None:
    """Exchange two folders in two steps, of which ``tidy`` takes the first one back."""
    with _held(folder):
        old = _sibling(folder, _OLD)
        folder.rename(old)
        try:
            new.rename(folder)
        except BaseException:
            old.rename(folder)
            raise
        remove(old)


def _swapped(one: Path, other: Path) -> bool:
    """Exchange two names in one step, where the system can."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    return bool(rename(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0)


def _leftovers(folder: Path) -> list[Path]:
    marks = tuple(f".{folder.name}.{kind}-" for kind in (_PARTIAL, _OLD))
    return [one for one in folder.parent.iterdir() if one.name.startswith(marks) and one.is_dir()]


def _sibling(folder: Path, kind: str) -> Path:
    name = folder.name
    for mark in (_PARTIAL, _OLD):
        # What is hidden already keeps the name of its folder.
        if name.startswith(".") and f".{mark}-" in name:
            name = name[1:].rpartition(f".{mark}-")[0]
    return folder.with_name(f".{name}.{kind}-{secrets.token_hex(8)}")


def _absolute(folder: Path) -> Path:
    return Path(os.path.abspath(folder))  # noqa: PTH100 (resolve would follow links)


def _sync(folder: Path) -> None:
    """Have a folder's files safe on the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb+") as file:
                os.fsync(file.fileno())
    _sync_names(folder)


def _sync_names(folder: Path) -> None:
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        # Some file systems sync no folders.
        with contextlib.suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)
