"""OpenAI's embeddings, which infinity's clients ask for too."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from m3_core.server.computing import (
    TOKEN_IDS,
    encode,
    json_answer,
    json_rows,
    resized,
    role_of,
)
from m3_core.server.failures import RequestError
from m3_core.server.service import Body

if TYPE_CHECKING:
    from starlette.responses import Response

    from m3_core.server.service import Call


class EmbeddingsBody(Body):
    """The body of ``/v1/embeddings``, with the fields by which others choose the instruction."""

    input: str | list[str] | list[int] | list[list[int]]
    model: str | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None
    user: str | None = None
    input_type: str | None = None
    prompt_name: str | None = None
    task: str | None = None


async def embeddings(call: Call, body: EmbeddingsBody) -> Response:
    """Answer ``POST /v1/embeddings``."""
    texts = [body.input] if isinstance(body.input, str) else body.input
    if not texts:
        raise RequestError(400, "input is empty: send at least one text", "empty_input")
    if not isinstance(texts[0], str):
        raise RequestError(400, TOKEN_IDS, "token_ids")
    served = call.encoder(body.model)
    role = role_of(body.input_type, body.prompt_name, body.task)
    encoder = resized(served, body.dimensions)
    reps = await encode(call, encoder, texts, role, ("dense",))
    dense: Any = reps.dense_vecs
    vectors: list[Any]
    if body.encoding_format == "base64":
        vectors = [base64.b64encode(row).decode() for row in np.ascontiguousarray(dense, "<f4")]
    else:
        vectors = await json_rows(dense)
    tokens = call.meter.tokens
    return json_answer(
        {
            "object": "list",
            "model": served.name,
            "data": [
                {"object": "embedding", "index": index, "embedding": vector}
                for index, vector in enumerate(vectors)
            ],
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
    )
