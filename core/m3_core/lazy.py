"""Names of a package that load on first use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def lazy_names(
    package: str, homes: Mapping[str, str], extras: Mapping[str, str] | None = None
) -> Callable[[str], Any]:
    """Make the ``__getattr__`` of a package.

    Args:
        package: Its ``__name__``.
        homes: Its public names, and the module within it that holds each.
        extras: Modules of others, and the extra that installs each; the first that fits counts.

    Returns:
        The function. A module that is absent is an ``ImportError`` that names the extra.

    Example:
        >>> get = lazy_names("m3_core", {"Encoder": "encoder.encoder"})
        >>> get("Encoder").__name__
        'Encoder'
    """

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            return getattr(importlib.import_module(f"{package}.{homes[name]}"), name)
        except ModuleNotFoundError as error:
            missing = f"{error.name}."
            extra = next(
                (e for m, e in (extras or {}).items() if missing.startswith(f"{m}.")), None
            )
            if extra is None:
                raise
            raise ImportError(
                f"{name} needs {error.name}: pip install 'm3-retrieval[{extra}]'", name=error.name
            ) from error

    return get
