"""A server of files that misbehaves as it is told."""

import http.server
import re
import threading
from contextlib import contextmanager


class Server(http.server.ThreadingHTTPServer):
    """Serves one content under every name and keeps what was asked for.

    drops: after how many bytes each of the next replies breaks off.
    refusals: statuses of the next replies. etags: names of the versions of the next replies.
    always_part: answers every request with 206 and this Content-Range. length: False sends no
    Content-Length, a text sends that one.
    """

    def __init__(self, content):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.etag = content, '"1"'
        self.ranges, self.length, self.wrong_range = True, True, False
        self.drops, self.status, self.asked = [], 200, []
        self.refusals, self.etags, self.always_part = [], [], None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        wanted = self.headers.get("Range")
        server.asked.append(wanted)
        status = server.refusals.pop(0) if server.refusals else server.status
        if status != 200:
            self.send_error(status)
            return
        if server.always_part is not None:
            self.send_response(206)
            self.send_header("Content-Range", server.always_part)
            self.end_headers()
            self.wfile.write(server.content[:10])
            return
        start = int(re.match(r"bytes=(\d+)-", wanted)[1]) if wanted and server.ranges else 0
        total = len(server.content)
        if start >= total and wanted and server.ranges:
            self.send_error(416)
            return
        start = 0 if server.wrong_range else start
        self.send_response(206 if wanted and server.ranges else 200)
        if wanted and server.ranges:
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        if server.etags:
            server.etag = server.etags.pop(0)
        if server.etag:
            self.send_header("ETag", server.etag)
        if server.length:
            length = server.length if isinstance(server.length, str) else str(total - start)
            self.send_header("Content-Length", length)
        self.end_headers()
        end = start + server.drops.pop(0) if server.drops else total
        self.wfile.write(server.content[start:end])

    def log_message(self, *_):
        pass


@contextmanager
def serving(content):
    """A running server of this content."""
    server = Server(content)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
