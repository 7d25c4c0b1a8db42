"""Fields that all adapters have: which model, and what changes its vectors."""

from __future__ import annotations

from pydantic import ConfigDict

from m3_core import adapters


class EncoderFields(adapters.EncoderFields):
    """The options of a model."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())
