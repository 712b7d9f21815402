"""A local server that takes two seconds for its one file."""

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

CONTENT = b'{"question": "who", "answer": ["me"]}\n' * 5000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
CHUNKS = 20


class SlowHandler(BaseHTTPRequestHandler):
    """Answers every request with the file."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        size = len(CONTENT) // CHUNKS
        try:
            for start in range(0, len(CONTENT), size):
                self.wfile.write(CONTENT[start : start + size])
                time.sleep(2 / CHUNKS)
        except OSError:
            self.close_connection = True  # Whom it served was killed.

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def slow_server() -> Iterator[str]:
    """Run the server; gives its root."""
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), SlowHandler)
    Thread(target=httpd.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{httpd.server_port}"
    finally:
        httpd.shutdown()
        httpd.server_close()
