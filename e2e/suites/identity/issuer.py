"""Command issuer PORT: an issuer whose key set can be changed and broken, and an echo backend.

`/jwks.json` is the key set; `POST /control/WORD` makes it hang, answer garbage and so on, or
changes its keys; `/tokens` has what to send; `/fetches` when the key set was asked for. Every
other path is the backend's: it tells what it received.
"""

import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import tokens


class Issuer:
    def __init__(self) -> None:
        self.keys = tokens.Keys()
        self.mode = "good"
        self.fetches: list[float] = []
        self._changed = threading.Condition()

    def control(self, word: str) -> None:
        """A mode, or a change of the keys: `turn` adds one, `drop` forgets all but the newest."""
        with self._changed:
            if word == "turn":
                name = f"turn-{int(self.keys.rotated[-1].key_id.partition('-')[2]) + 1}"
                new = tokens.jwk.JWK.generate(kty="RSA", size=2048, kid=name, alg="RS256")
                self.keys.rotated.append(new)
            elif word == "drop":
                del self.keys.rotated[:-1]
            else:
                self.mode = word
            self._changed.notify_all()

    def document(self) -> tuple[int, str, dict]:
        """What the key set is answered with now; waits while it hangs."""
        with self._changed:
            self.fetches.append(time.time())
            while self.mode == "hangs":
                self._changed.wait()
            mode = self.mode
        return {
            "good": lambda: (200, self.keys.document(), {}),
            "garbage": lambda: (200, "<html>Welcome!</html>", {"Content-Type": "text/html"}),
            "empty": lambda: (200, "", {}),
            "no-keys": lambda: (200, '{"keys": []}', {}),
            "fails": lambda: (500, "no", {}),
            "large": lambda: (200, json.dumps({"keys": [], "fill": "x" * 5_000_000}), {}),
            "elsewhere": lambda: (302, "", {"Location": "/moved.json"}),
        }[mode]()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    issuer: Issuer

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/jwks.json":
            self._answer(*self.issuer.document())
        elif path == "/moved.json":
            self._answer(200, self.issuer.keys.document(), {})
        elif path == "/tokens":
            keys = self.issuer.keys
            turns = {key.key_id: tokens.signed(key, "RS256") for key in keys.rotated}
            self._json({"valid": tokens.valid(keys), "hostile": tokens.hostile(keys),
                        "turns": turns, "unknown": [
                            tokens.signed(keys.stranger, "RS256", kid=f"unknown-{i}")
                            for i in range(100)]})
        elif path == "/fetches":
            self._json(self.issuer.fetches)
        else:
            self._json({"path": self.path, "headers": self.headers.items()})

    def do_POST(self) -> None:
        self.issuer.control(self.path.removeprefix("/control/"))
        self._json({})

    def _json(self, value) -> None:
        self._answer(200, json.dumps(value), {"Content-Type": "application/json"})

    def _answer(self, status: int, text: str, headers: dict) -> None:
        body = text.encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        try:
            self.wfile.write(body)
        except OSError:
            self.close_connection = True  # the other side did not wait

    def log_message(self, *_arguments) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


if __name__ == "__main__":
    Handler.issuer = Issuer()
    Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
