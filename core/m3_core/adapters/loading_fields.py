"""Fields of all adapters that load models: where these run, and where their files come from."""

from __future__ import annotations

from pydantic import Field

from m3_core.adapters.assignment import Assignable
from m3_core.adapters.spellings import Text  # noqa: TC001 (pydantic reads it)


class LoadingFields(Assignable):
    """Where models run and their files come from: of this machine, and so not dumped."""

    device: Text | None = Field(
        default=None,
        frozen=True,
        exclude=True,
        description="'cpu', 'cuda', 'mps'; by default the best there is.",
    )
    cache_folder: Text | None = Field(
        default=None, frozen=True, exclude=True, description="Where downloads are kept."
    )
    token: str | None = Field(
        default=None, frozen=True, exclude=True, repr=False, description="Access token of the hub."
    )
    local_files_only: bool = Field(
        default=False, frozen=True, exclude=True, description="Ask no server."
    )
