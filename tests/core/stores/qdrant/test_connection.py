from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from qdrant_client import AsyncQdrantClient, QdrantClient

from m3_core.errors import StoreError
from m3_core.stores.qdrant import Connection, Layout, Names


@pytest.fixture(params=[b"<html>Log in</html>", b"\xff\xfe", b"[" * 100_000])
def page(request: pytest.FixtureRequest) -> Iterator[int]:
    """The port of what answers everything with a page."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(request.param)

        do_PUT = do_POST = do_GET  # noqa: N815 (names of the base class)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


async def test_what_is_not_qdrant_is_named(page: int) -> None:
    layout = Layout(4, None, "cosine", Names())
    where = {"url": f"http://127.0.0.1:{page}", "check_compatibility": False}
    with pytest.raises(StoreError, match="what answers there is not Qdrant"):
        Connection("c", layout, where, None, None)
    aclient = AsyncQdrantClient(**where)
    connection = Connection("c", layout, {}, None, aclient)
    with pytest.raises(StoreError, match="what answers there is not Qdrant"):
        await connection.acall("count")
    await aclient.close()


def test_an_answer_that_turns_into_a_page_is_named(page: int) -> None:
    layout = Layout(4, None, "cosine", Names())
    connection = Connection("c", layout, {}, QdrantClient(":memory:"), None)
    url = f"http://127.0.0.1:{page}"
    with QdrantClientAt(url) as client:
        connection.client = client
        with pytest.raises(StoreError, match="is no JSON"):
            connection.call("count")


class QdrantClientAt(QdrantClient):
    def __init__(self, url: str) -> None:
        super().__init__(url=url, check_compatibility=False)

    def __enter__(self) -> QdrantClientAt:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
