"""A WSGI app on a free loopback port, in threads that never outlive the tests."""

from __future__ import annotations

import threading
from typing import Any

from werkzeug.serving import WSGIRequestHandler, make_server


class _Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"  # clients keep connections alive, as they do in real life
    disable_nagle_algorithm = True  # headers and body are sent apart: 40 ms per reply otherwise
    timeout = 60  # idle connections don't pile up over a long test run

    def log(self, type: str, message: str, *args: Any) -> None:
        """Nothing: thousands of lines would hide what a failed test has to say."""


class Server:
    """Serves `app` at `.url` from start() to stop(); a thread for every connection."""

    def __init__(self, app: Any) -> None:
        self._server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=_Handler)
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"

    def start(self) -> Server:
        self._thread.start()
        return self

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join(5)
