"""Fields of all adapters that load models: where these run, and where their files come from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field, SecretStr, field_validator

from m3_core.adapters.assignment import Assignable
from m3_core.adapters.spellings import Text  # noqa: TC001 (pydantic reads it)
from m3_core.http_client import server_url


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
    base_url: str | None = Field(
        default=None,
        frozen=True,
        description="A server that holds the model, as m3-retrieval serve: http://host:port. It "
        "has loaded the model with options of its own; model_name= says which one it shall be.",
    )
    api_key: SecretStr | None = Field(
        default=None,
        frozen=True,
        exclude=True,
        repr=False,
        description="The server's key; by default that of the environment's M3_API_KEY.",
    )

    # Type checkers and editors shall see the fields by their names, as of any pydantic class.
    if not TYPE_CHECKING:

        def __init__(self, *args: Any, **options: Any) -> None:
            for name in ("api_key", "model_api_key"):
                field = type(self).model_fields.get(name)
                if field is not None and field.annotation == SecretStr | None:
                    options |= _hidden(name, options.get(name))
            if isinstance(options.get("base_url"), str):
                # Here, for an error of pydantic would show what the address holds.
                options["base_url"] = server_url(options["base_url"])
            super().__init__(*args, **options)

    @field_validator("base_url")
    @classmethod
    def _check_base_url(cls, url: str | None) -> str | None:
        return None if url is None else server_url(url)

    def _server(self) -> dict[str, Any]:
        """The server's address and key, as ``adapter_encoder`` takes them."""
        return {"base_url": self.base_url, "api_key": self._server_key()}

    def _server_key(self) -> Any:
        """The key of the server; another field's where ``api_key`` is somebody else's."""
        return self.api_key


def _hidden(name: str, key: Any) -> dict[str, Any]:
    """A key as nothing shows it, not even an error about another option, which shows them all."""
    return {name: SecretStr(key)} if isinstance(key, str) else {}
