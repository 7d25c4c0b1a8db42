"""Files that are written aside and put in their place when they are whole and on the disk.

Whoever writes holds a lock on the file beside, which the system lets go of when the process ends,
however it ends: what nobody holds was left by a writer that is gone, and the next one removes it.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Iterator

_TOKEN_BYTES, _ENDING = 8, ".tmp"
# What fsync of a folder says where the system has no such thing.
_NO_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF}


@contextmanager
def replacing_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Write a file that takes the place of another one whole, or not at all.

    Several threads and processes may do so at once: the last one to finish wins. Readers find the
    older file or the newer one. What killed writers of the same name left is removed.

    Args:
        path: The file; if it is a link, what it points to is replaced.

    Yields:
        The file to write into.

    Raises:
        IsADirectoryError: There is a folder of that name.
        OSError: Something could not be written; the older file is as it was.
    """
    target = Path(path).resolve()
    if target.is_dir():
        raise IsADirectoryError(
            errno.EISDIR, "a folder is in the place of the file: give the name of a file", str(path)
        )
    remove_leftovers(target)
    while True:
        token = secrets.token_hex(_TOKEN_BYTES)
        temporary = target.with_name(f".{target.name}.{token}{_ENDING}")
        with temporary.open("xb") as file:
            # Who removes leftovers may have come between opening and locking.
            if not _is_claimed(file, temporary):
                continue
            try:
                yield file
                file.flush()
                os.fsync(file.fileno())
                if sys.platform != "win32":
                    # Still locked, so that nobody takes it for a leftover.
                    temporary.replace(target)
            except BaseException as error:
                with suppress(OSError):
                    temporary.unlink(missing_ok=True)
                if isinstance(error, OSError) and error.errno and error.filename is None:
                    # A full disk does not say what it was too full for.
                    error.filename = os.fspath(path)
                raise
        break
    if sys.platform == "win32":
        # What is open cannot be renamed there.
        temporary.replace(target)
    _sync_folder(target.parent)


def remove_leftovers(path: str | os.PathLike[str]) -> None:
    """Remove what writers of a file that are gone have left beside it.

    Args:
        path: The file. What cannot be removed stays.
    """
    target = Path(path).resolve()
    pattern = re.compile(
        rf"\.{re.escape(target.name)}\.[0-9a-f]{{{2 * _TOKEN_BYTES}}}{re.escape(_ENDING)}"
    )
    # Who may not look, open or lock cannot know whether somebody writes.
    with suppress(OSError):
        for other in list(target.parent.iterdir()):
            if pattern.fullmatch(other.name):
                with suppress(OSError):
                    _remove_if_free(other)


if sys.platform == "win32":

    def _is_claimed(file: BinaryIO, temporary: Path) -> bool:
        return True

    def _remove_if_free(leftover: Path) -> None:
        # Files that are open cannot be removed here.
        leftover.unlink()

    def _sync_folder(folder: Path) -> None:
        pass

else:
    import fcntl

    def _is_claimed(file: BinaryIO, temporary: Path) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            # No locks on this file system: leftovers stay there.
            return True
        try:
            return os.path.samestat(os.fstat(file.fileno()), temporary.stat())
        except FileNotFoundError:
            return False

    def _remove_if_free(leftover: Path) -> None:
        # Neither through a link nor waiting, whatever lies there under this name.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with os.fdopen(os.open(leftover, flags), "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            leftover.unlink()

    def _sync_folder(folder: Path) -> None:
        """Make the renaming itself survive a power cut, where the system can."""
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        except OSError as error:
            if error.errno not in _NO_SYNC:
                raise
        finally:
            os.close(handle)
