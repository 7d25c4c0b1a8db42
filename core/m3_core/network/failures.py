"""Errors on their way from the engine's thread to the callers whose texts raised them."""

from __future__ import annotations

import copy
import traceback


def freed(error: BaseException) -> BaseException:
    """Let an error go of what the frames that raised it hold: tensors, and others' texts.

    Args:
        error: An error that was caught in the frame which calls this.

    Returns:
        The same error, with its traceback from where it was raised.
    """
    linked: list[BaseException | None] = [error]
    # An error may be its own cause, as ``raise error from error`` makes it.
    seen: set[int] = set()
    while linked:
        one = linked.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            traceback.clear_frames(one.__traceback__)
            linked += [one.__cause__, one.__context__]
    # Without the engine's own frame, which is not over yet.
    at = error.__traceback__
    return error.with_traceback(at.tb_next if at is not None else None)


def another(error: BaseException) -> BaseException:
    """Make an error for one of several callers: each raises its own, with its own traceback.

    Args:
        error: The error of them all.

    Returns:
        A copy without traceback; the error itself where it cannot be copied.
    """
    try:
        own = copy.copy(error)
    except Exception:  # noqa: BLE001 (its constructor wants something else)
        return error
    return own.with_traceback(None)
