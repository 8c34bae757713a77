# SPDX-License-Identifier: Apache-2.0
"""A guest reaches a server on the host's loopback."""

import contextlib
import socketserver
import threading

from vmtest.spec import Case, Guest

SCRIPT = r"""
dd if=/dev/urandom of=/tmp/sent bs=64k count=32 2>/dev/null
# The far end closes when it has echoed everything that was announced.
(wc -c </tmp/sent; cat /tmp/sent) | nc -w 60 10.0.2.2 "$ECHO_PORT" >/tmp/received
cmp /tmp/sent /tmp/received || fail "the echo differs"
"""


class Echo(socketserver.StreamRequestHandler):
    """Reads a length line, then echoes that many bytes."""

    def handle(self) -> None:
        left = int(self.rfile.readline())
        while left > 0:
            data = self.rfile.read(min(left, 65536))
            if not data:
                return
            self.wfile.write(data)
            left -= len(data)


@contextlib.contextmanager
def services(_context):
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield {"ECHO_PORT": str(server.server_address[1])}
        server.shutdown()


CASE = Case("TCP from a guest to the host's loopback and back", Guest(script=SCRIPT, network=True, timeout=180),
            services=services)
