"""Logs as one JSON object a line, without anything that a client sent."""

from __future__ import annotations

import json
import logging
import sys
import time
import traceback
from typing import Any

# What every record has; what else there is was given as ``extra``.
_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}


class JsonLines(logging.Formatter):
    """Writes a record as a line: time, level, logger, event, and what was given as ``extra``.

    Of an error it writes the type and the places, and not its text, which may hold a client's.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Write a record.

        Args:
            record: The record.

        Returns:
            One line.
        """
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{seconds}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        line |= {key: value for key, value in vars(record).items() if key not in _PLAIN}
        if record.exc_info and record.exc_info[0] is not None:
            frames = traceback.extract_tb(record.exc_info[2])
            line["error"] = record.exc_info[0].__name__
            line["where"] = [f"{one.filename}:{one.lineno} {one.name}" for one in frames]
        return json.dumps(line, ensure_ascii=False, default=str)


def log_as_json(level: str = "info") -> None:
    """Send the logs of the whole process to standard error, a JSON object a line.

    Args:
        level: The lowest level that is written.

    Raises:
        ValueError: There is no such level.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.captureWarnings(capture=True)
    # Of libraries only what somebody should look at.
    for name in ("httpx", "httpcore", "urllib3", "huggingface_hub", "asyncio"):
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
