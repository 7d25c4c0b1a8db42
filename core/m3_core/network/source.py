"""How a checkpoint is loaded: what adapters can say without loading one, and without torch."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, ClassVar

from m3_core.network.checkpoint import locate

if TYPE_CHECKING:
    from pathlib import Path

    import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """How a checkpoint is loaded.

    Attributes:
        name: A folder, or a hub repository.
        revision: Branch, tag or commit of the repository.
        device: Where the network shall run; the best there is if ``None``.
        dtype: In what data type.
        cache_folder: Where downloads are kept.
        token: Access token of the hub.
        local_files_only: Ask no server.
        trust_remote_code: Run model code that the checkpoint brings.
        token_budget: Tokens a batch at most; chosen from the device if ``None``.
    """

    name: str | Path
    revision: str | None = None
    device: str | torch.device | None = None
    dtype: str | torch.dtype = "auto"
    cache_folder: str | Path | None = None
    token: str | bool | None = None
    local_files_only: bool = False
    trust_remote_code: bool = False
    token_budget: int | None = None

    OPTIONS: ClassVar[frozenset[str]]
    """The names of all but ``name``."""

    def locate(self) -> Path:
        """Find the folder with the files, downloading it if need be."""
        return locate(
            self.name,
            revision=self.revision,
            cache_folder=self.cache_folder,
            token=self.token,
            local_files_only=self.local_files_only,
        )


Source.OPTIONS = frozenset(field.name for field in fields(Source)) - {"name"}
