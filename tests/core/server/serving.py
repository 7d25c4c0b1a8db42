"""A real uvicorn server in a thread, at an address of its own."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from dataclasses import dataclass
from typing import Any

import uvicorn

from m3_core.server import ServerOptions, create_app


@dataclass
class Running:
    """A server that listens."""

    url: str
    app: Any
    server: uvicorn.Server

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def service(self):
        return self.app.state.service


@contextlib.contextmanager
def running(models, *, wait: bool = True, **options):
    """Serve models until the block ends."""
    app = create_app(models, ServerOptions(**options))
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listening:
        config = uvicorn.Config(
            app,
            access_log=False,
            log_config=None,
            lifespan="on",
            ws="none",
            timeout_graceful_shutdown=20,
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        host, port = listening.getsockname()
        found = Running(f"http://{host}:{port}", app, server)
        try:
            ready = (
                (lambda: app.state.service.models.state != "loading")
                if wait
                else (lambda: server.started)
            )
            while not (server.started and ready()):
                assert thread.is_alive()
                time.sleep(0.01)
            yield found
        finally:
            server.should_exit = True
            thread.join()
