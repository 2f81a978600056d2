"""A receiver as a process, to be killed: `python -I -S receiver_process.py PORT FILE`.

Writes each request that came whole to FILE, one line of JSON, before it answers. Only the standard library, so that
it starts in a few milliseconds.
"""

import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        body = self.rfile.read(length)
        if len(body) < length:
            return  # its sender was killed in the middle
        headers = {name.lower(): value for name, value in self.headers.items()}
        line = json.dumps({"path": self.path, "headers": headers, "body": body.decode()}) + "\n"
        os.write(file, line.encode())  # one write to a file that is appended to: whole lines, whoever is killed
        time.sleep(0.05)  # so that some are killed in between
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        pass


file = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
