"""What the operator of a server chooses."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Annotated

from typing_extensions import Doc

MEBIBYTE = 1 << 20


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """Who may ask, and how much at a time.

    Raises:
        ValueError: A limit is below 1, or a key is empty or cannot be sent in a header.
        TypeError: The keys are one string.
    """

    api_keys: Annotated[
        tuple[str, ...],
        Doc("Keys of which every request but /health must name one; none: all may."),
    ] = field(default=(), repr=False)
    max_texts: Annotated[int, Doc("Texts, or pairs, a request at most.")] = 2048
    max_tokens: Annotated[int, Doc("Tokens a request at most, after cutting.")] = 1 << 20
    max_body_bytes: Annotated[int, Doc("Bytes of a request's body at most.")] = 32 * MEBIBYTE
    max_held_bytes: Annotated[int, Doc("Bytes of all requests' bodies at most.")] = 512 * MEBIBYTE
    max_requests: Annotated[int, Doc("Requests at a time; further ones get 429.")] = 512
    max_waiting_tokens: Annotated[
        int, Doc("While more tokens wait for a model, requests beyond a few texts get 429.")
    ] = 1 << 18
    body_seconds: Annotated[float, Doc("Time for a client to send its body.")] = 30.0
    send_seconds: Annotated[float, Doc("Time for a client to take each MiB of a reply.")] = 60.0

    def __post_init__(self) -> None:
        if isinstance(self.api_keys, str):
            # Each of its characters would be a key.
            raise TypeError("api_keys must be several strings; got one: api_keys=(key,)")
        if not all(key.strip() for key in self.api_keys):
            raise ValueError("an API key is empty: leave it out, or set one")
        if not all(key.isascii() and key.isprintable() for key in self.api_keys) or any(
            key != key.strip() for key in self.api_keys
        ):
            # Not shown.
            raise ValueError(
                "an API key begins or ends with a space, or holds characters that no HTTP header "
                "can: nobody could send it"
            )
        for one in fields(self):
            value = getattr(self, one.name)
            if one.name != "api_keys" and not value > 0:
                raise ValueError(f"{one.name} is {value}; it must be above 0")
