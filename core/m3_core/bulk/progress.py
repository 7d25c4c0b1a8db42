"""How far a bulk job has come, for who looks at a terminal."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress bars on standard error.

    Attributes:
        show: ``None``: where that is a terminal.
    """

    show: bool | None = None

    @contextmanager
    def bar(
        self, doing: str, total: int | None, unit: str, done: int = 0
    ) -> Iterator[Callable[[int], object]]:
        """Show a bar.

        Args:
            doing: What is done.
            total: How much there is to do, if that is known.
            unit: Of what.
            done: How much is done already.

        Yields:
            What is to be told of each further piece.
        """
        if self.show is False:
            yield lambda number: None
            return
        from tqdm.auto import tqdm

        # tqdm itself looks for a terminal where disable is None.
        disable = None if self.show is None else False
        with tqdm(
            total=total,
            desc=doing,
            unit=unit,
            unit_scale=unit == "B",
            initial=done,
            disable=disable,
            dynamic_ncols=True,
        ) as shown:
            yield shown.update
