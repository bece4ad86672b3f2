"""A client on one kept connection, cheap enough that its own time is not what is measured."""

import socket
import threading
import time
from dataclasses import dataclass

from e2e.lib.http import Address


@dataclass
class Answer:
    status: int
    headers: dict[str, str]  # lower-case names; of several, the last
    body: bytes
    ended: float  # Unix time
    seconds: float


class Client:
    """Asks one after the other; a connection that the server has ended is opened anew."""

    def __init__(self, address: Address, host: str, timeout: float = 5):
        self._address = address
        self._host = host
        self._timeout = timeout
        self._socket: socket.socket | None = None

    def get(self, path: str, headers: dict | None = None) -> Answer:
        fields = {"Host": self._host, **(headers or {})}
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        request = f"GET {path} HTTP/1.1\r\n{head}\r\n".encode()
        began = time.perf_counter()
        try:
            status, found, body = self._exchange(request)
        except ConnectionError:  # it had ended: asked once more on a new one
            self.close()
            status, found, body = self._exchange(request)
        answer = Answer(status, found, body, time.time(), time.perf_counter() - began)
        if found.get("connection", "").lower() == "close":
            self.close()
        return answer

    def close(self) -> None:
        if self._socket:
            self._socket.close()
            self._socket = None

    def _exchange(self, request: bytes) -> tuple[int, dict[str, str], bytes]:
        if self._socket is None:
            self._socket = socket.create_connection(self._address, self._timeout)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(request)
        received = b""
        while b"\r\n\r\n" not in received:
            received += self._more()
        head, _, body = received.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip()
                   for name, _, value in (line.partition(":") for line in lines)}
        while len(body) < int(headers.get("content-length", 0)):
            body += self._more()
        return int(first.split()[1]), headers, body

    def _more(self) -> bytes:
        chunk = self._socket.recv(65536)
        if not chunk:
            raise ConnectionResetError("the server ended the connection")
        return chunk


class Stream(threading.Thread):
    """A client that asks for `path` so many times a second until it is told to end.

    Each request is sent when its time has come or, if the one before took longer, at once.
    """

    def __init__(self, address: Address, host: str, path: str, rate: float,
                 headers: dict | None = None):
        super().__init__(daemon=True)
        self.answers: list[Answer] = []
        self.broken = 0  # requests that got no answer
        self._client = Client(address, host)
        self._path, self._headers, self._rate = path, headers, rate
        self._over = threading.Event()

    def run(self) -> None:
        began, sent = time.monotonic(), 0
        while not self._over.wait(max(0, began + sent / self._rate - time.monotonic())):
            sent += 1
            try:
                self.answers.append(self._client.get(self._path, self._headers))
            except OSError:
                self.broken += 1
                self._client.close()
        self._client.close()

    def end(self) -> None:
        self._over.set()
        self.join()


class Streams:
    """Several streams that run while the `with` block does."""

    def __init__(self, streams: list[Stream]):
        self._streams = streams

    def __enter__(self) -> "Streams":
        for stream in self._streams:
            stream.start()
        return self

    def __exit__(self, *_error) -> None:
        for stream in self._streams:
            stream.end()

    @property
    def answers(self) -> list[Answer]:
        return [answer for stream in self._streams for answer in stream.answers]

    @property
    def broken(self) -> int:
        return sum(stream.broken for stream in self._streams)
