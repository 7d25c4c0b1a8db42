"""Packages that come with an extra, where the code that needs them runs."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from m3_core.errors import MissingPackageError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def needs_extra(what: str, extra: str, *packages: str) -> Iterator[None]:
    """Say what to install where a package is absent.

    Args:
        what: What needs the package, as the error's text begins.
        extra: The extra that brings it.
        *packages: The packages in question; the absence of others is not the extra's.

    Yields:
        To the code that imports them.

    Raises:
        MissingPackageError: One of them is absent.

    Example:
        >>> with needs_extra("flying", "wings", "feathers"):
        ...     import feathers
        Traceback (most recent call last):
        m3_core.errors.MissingPackageError: flying needs feathers: pip install 'm3-retrieval[wings]'
    """
    try:
        yield
    except ModuleNotFoundError as error:
        absent = (error.name or "").partition(".")[0]
        if absent not in packages:
            raise
        raise MissingPackageError(
            f"{what} needs {absent}: pip install 'm3-retrieval[{extra}]'", name=absent
        ) from error
