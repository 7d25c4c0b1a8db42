"""Small HTTP servers for tests of what asks them: of ours, of others, and hostile ones."""

from __future__ import annotations

import base64
import json
import threading
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import combinations

import numpy as np

from m3_core import wire
from m3_core.encoder.protocol import PARTS, flags_of
from m3_core.testing import FakeEncoder


class App:
    """What a server answers: a status, headers and a body for a method and a path.

    Attributes:
        asked: How often each path was asked for.
        bodies: What was sent, as (path, JSON).
        headers: Of the last request.
    """

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.bodies: list[tuple[str, dict]] = []
        self.headers = {}
        self.lock = threading.Lock()

    def handle(self, handler: BaseHTTPRequestHandler) -> None:
        path = handler.path
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        asked = json.loads(body) if body else None
        with self.lock:
            self.asked[path] += 1
            self.headers = dict(handler.headers)
            if asked is not None:
                self.bodies.append((path, asked))
        self.answer(handler, path, asked)

    def answer(self, handler, path: str, asked) -> None:
        answered = self.reply(path, asked, handler.headers)
        if isinstance(answered, bytes):
            send(handler, 200, answered, wire.MEDIA_TYPE)
        elif isinstance(answered, int):
            send(handler, answered, b'{"error": {"message": "so it is"}}')
        else:
            send(handler, 200, json.dumps(answered).encode())

    def reply(self, path: str, asked, headers):
        raise NotImplementedError


def send(handler, status: int, body: bytes, kind: str = "application/json", **headers) -> None:
    handler.send_response(status)
    handler.send_header("Content-Type", kind)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_) -> None:
        """Clients that leave are no error here."""


@contextmanager
def serving(app: App, port: int = 0):
    """Serve an app on a port of this machine; yields its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Headers and body in one packet, which is not held back for an acknowledgement.
        wbufsize = 1 << 16

        def do_GET(self) -> None:
            app.handle(self)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_) -> None:
            pass

    server = _Server(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class M3App(App):
    """``/v1/encode``, ``/v1/models`` and ``/v1/score`` over an encoder, and a fake reranker.

    Args:
        encoder: The encoder.
        key: What clients must send.
        limits: How much a request may hold.
        as_json: Never send the binary body.
    """

    def __init__(self, encoder=None, *, key=None, limits=None, as_json=False) -> None:
        super().__init__()
        self.encoder = encoder or FakeEncoder()
        self.key = key
        self.limits = limits
        self.as_json = as_json

    def models(self) -> list[dict]:
        encoder = self.encoder
        ordered = [part for part in PARTS if part in encoder.representations]
        sets = [s for n in range(1, len(ordered) + 1) for s in combinations(ordered, n)]
        described = {
            "id": encoder.name,
            "object": "model",
            "owned_by": "m3-retrieval",
            "kind": "encoder",
            "representations": ordered,
            "dimension": encoder.dimension,
            "colbert_dimension": encoder.colbert_dimension,
            "max_length": encoder.max_length,
            "query_instruction": encoder.query_instruction,
            "document_instruction": encoder.document_instruction,
            "vocabulary_size": 250_004,
            "limits": self.limits,
            "fingerprints": {
                role: {
                    "+".join(one): encoder.fingerprint(one, queries=role == "query") for one in sets
                }
                for role in ("document", "query")
            },
        }
        return [described, {"id": "judge", "owned_by": "m3-retrieval", "kind": "reranker"}]

    def reply(self, path: str, asked, headers):
        if self.key and headers.get("Authorization") != f"Bearer {self.key}":
            return 401
        if path == "/v1/models":
            return {"object": "list", "data": self.models()}
        if path == "/v1/encode":
            return self.encode(asked, headers)
        if path == "/v1/score":
            return self.score(asked)
        return 404

    def encode(self, asked, headers):
        if self.limits and len(asked["texts"]) > self.limits.get("really", 10**9):
            return 413
        encoder, parts = self.encoder, asked["representations"]
        query = asked["role"] == "query"
        encode = encoder.encode_queries if query else encoder.encode_documents
        reps = encode(asked["texts"], **flags_of(parts), max_length=asked["max_length"])
        encoded = wire.Encoded(
            reps, encoder.name, encoder.fingerprint(parts, queries=query), asked["role"], 7
        )
        if self.as_json or not wire.wants_binary(headers.get("Accept")):
            return wire.to_json(encoded)
        return wire.to_body(encoded)

    def score(self, asked):
        pairs = asked["pairs"]
        if asked["model"] == "judge":
            raw = np.array([judged(query, text) for query, text in pairs])
            scores = 1 / (1 + np.exp(-raw)) if asked.get("normalize") else raw
            return {"model": "judge", "scores": scores.tolist()}
        from m3_core.scoring import pair_scores

        rows = np.arange(len(pairs))
        everything = flags_of(PARTS)
        scores = pair_scores(
            self.encoder.encode_queries([query for query, _ in pairs], **everything),
            self.encoder.encode_documents([text for _, text in pairs], **everything),
            rows,
            rows,
            asked["weights"],
        )
        return {"model": self.encoder.name, "scores": {k: v.tolist() for k, v in scores.items()}}


def judged(query: str, text: str) -> float:
    """A score of a pair: how many words they share, against how many they do not."""
    ours, theirs = set(query.lower().split()), set(text.lower().split())
    return len(ours & theirs) - len(ours ^ theirs) / 8


class TeiApp(App):
    """Text-embeddings-inference, with a dense model, a sparse one, or a reranker."""

    def __init__(self, kind: str = "dense", name: str = "tei-model", most: int = 4) -> None:
        super().__init__()
        self.kind, self.name, self.most = kind, name, most
        self.sha = "1"
        self.encoder = FakeEncoder()

    def reply(self, path: str, asked, headers):
        if path == "/info":
            return {
                "model_id": self.name,
                "model_sha": self.sha,
                "model_dtype": "float16",
                "model_type": {"reranker" if self.kind == "rerank" else "embedding": {}},
                "max_input_length": 512,
                "max_client_batch_size": self.most,
            }
        if path == "/rerank" and self.kind == "rerank":
            if len(asked["texts"]) > self.most:
                return 413
            raw = [judged(asked["query"], text) for text in asked["texts"]]
            found = [
                {"index": i, "score": s if asked["raw_scores"] else float(1 / (1 + np.exp(-s)))}
                for i, s in enumerate(raw)
            ]
            return sorted(found, key=lambda one: -one["score"])
        if path in ("/embed", "/embed_sparse") and len(asked["inputs"]) > self.most:
            return 413
        if path == "/embed" and "dense" in self.kind:
            return self.encoder.encode_documents(asked["inputs"]).dense_lists()
        if path == "/embed_sparse" and "sparse" in self.kind:
            reps = self.encoder.encode_documents(asked["inputs"], False, True)
            # Twice, and beside special tokens: as a server that does not merge.
            return [
                [{"index": 0, "value": 1.0}]
                + [{"index": t, "value": w * f} for t, w in row.items() for f in (1, 0.5)]
                for row in reps.lexical_weights
            ]
        return 424


class OpenAIApp(App):
    """OpenAI's protocol: plain, as infinity has it, or with vLLM's weights of tokens."""

    def __init__(self, owner: str = "openai", prefix: str = "/v1", base64s: bool = True) -> None:
        super().__init__()
        self.owner, self.prefix, self.base64s = owner, prefix, base64s
        self.names = ["embedder"]
        self.encoder = FakeEncoder()

    def reply(self, path: str, asked, headers):
        if path == f"{self.prefix}/models":
            return {"data": [{"id": name, "owned_by": self.owner} for name in self.names]}
        if path == f"{self.prefix}/embeddings":
            vectors = self.encoder.encode_documents(asked["input"]).dense_vecs
            written = [
                base64.b64encode(vector.astype("<f4").tobytes()).decode()
                if self.base64s
                else vector.tolist()
                for vector in vectors
            ]
            data = [{"index": i, "embedding": one} for i, one in enumerate(written)]
            return {"data": data[::-1], "model": asked["model"]}
        if path == f"{self.prefix}/rerank":
            scores = [judged(asked["query"], text) for text in asked["documents"]]
            results = [
                {"index": i, "relevance_score": float(1 / (1 + np.exp(-s)))}
                for i, s in enumerate(scores)
            ]
            return {"results": sorted(results, key=lambda one: -one["relevance_score"])}
        if self.owner == "vllm" and path == "/tokenize":
            return {"tokens": [vllm_token(word) for word in asked["prompt"].split()]}
        if self.owner == "vllm" and path == "/pooling":
            rows = [[[vllm_weight(w)] for w in text.split()] for text in asked["input"]]
            return {"data": [{"index": i, "data": row} for i, row in enumerate(rows)]}
        return 404


def vllm_token(word: str) -> int:
    return 3 if word == "?" else 10 + sum(word.lower().encode())


def vllm_weight(word: str) -> float:
    return 0.0 if word == "the" else len(word) / 8
