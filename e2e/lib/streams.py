"""TCP and UDP clients of the peer's echo servers, as tests need them."""

import socket
import threading
import time

from e2e.lib.http import Address, connect
from e2e.lib.wait import wait_for


class Stream:
    """A TCP connection to an echo server that has said its name; a context manager."""

    def __init__(self, address: Address, sni: str | None = None, ca: str | None = None,
                 timeout: float = 5):
        self.socket = connect(address, sni, ca, timeout=timeout)
        try:
            self.service, self.pod = self._line().split()
        except BaseException:
            self.socket.close()
            raise

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_error) -> None:
        self.socket.close()

    def exchange(self, data: bytes) -> None:
        """Sends data and waits until all of it is back."""
        self.socket.sendall(data)
        back = self.exactly(len(data))
        assert back == data, f"{len(back)} other bytes came back"

    def finish(self) -> bytes:
        """Ends our half; returns what still comes until the other ends its own."""
        self.socket.shutdown(socket.SHUT_WR)
        rest = b""
        while chunk := self.socket.recv(65536):
            rest += chunk
        return rest

    def exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            chunk = self.socket.recv(count - len(data))
            if not chunk:
                raise ConnectionError(f"closed after {len(data)} of {count} bytes")
            data += chunk
        return data

    def _line(self) -> str:
        line = b""
        while not line.endswith(b"\n"):
            line += self.exactly(1)
        return line.decode()


def stream_when(address: Address, service: str, timeout: float = 15, **options) -> None:
    """Waits until connections arrive at the service, ten in a row: each pod learns by itself."""

    def arrives():
        for _ in range(10):
            try:
                with Stream(address, **options) as stream:
                    assert stream.service == service, f"arrived at {stream.service}"
            except OSError as error:
                raise AssertionError(f"no stream: {error!r}") from error
        return True

    wait_for(arrives, timeout, f"connections to {address[0]}:{address[1]} arrive at {service}")


class Datagrams:
    """A UDP socket whose datagrams come from one port; a context manager."""

    def __init__(self, address: Address, timeout: float = 2):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.settimeout(timeout)
        self.socket.connect(address)

    def __enter__(self) -> "Datagrams":
        return self

    def __exit__(self, *_error) -> None:
        self.socket.close()

    def ask(self, payload: bytes) -> tuple[str, str]:
        """Sends one datagram; the service and pod that sent it back."""
        self.socket.send(payload)
        name, _, back = self.socket.recv(65536).partition(b"\n")
        assert back == payload, f"{back[:100]!r} came back"
        service, pod = name.decode().split()
        return service, pod


def datagram_when(address: Address, service: str, timeout: float = 15) -> None:
    """Waits until datagrams arrive at the service, ten in a row, each from a port of its own."""

    def arrives():
        for _ in range(10):
            try:
                with Datagrams(address, 0.5) as one:
                    found, _ = one.ask(b"ping")
            except OSError as error:
                raise AssertionError(f"no answer: {error!r}") from error
            assert found == service, f"arrived at {found}"
        return True

    wait_for(arrives, timeout, f"datagrams to {address[0]}:{address[1]} arrive at {service}")


class OpenStreams:
    """Streams that are open and in use while the `with` block runs.

    Each exchanges messages for `seconds`, ends both halves properly, and is followed by a
    new one. What breaks is counted, with the error.
    """

    def __init__(self, address: Address, count: int = 20, seconds: float = 4):
        self._address, self._seconds = address, seconds
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(i,)) for i in range(count)]
        self.finished, self.failures = 0, []

    def __enter__(self) -> "OpenStreams":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        while not self._over.is_set():
            try:
                self._one(number)
                self.finished += 1
            except (OSError, AssertionError) as error:
                self.failures.append(repr(error))
                time.sleep(0.1)

    def _one(self, number: int) -> None:
        with Stream(self._address) as stream:
            end = time.monotonic() + self._seconds
            while time.monotonic() < end:
                stream.exchange(f"stream {number} says {end}".encode() * 10)
                time.sleep(0.05)
            rest = stream.finish()
            assert not rest, f"{len(rest)} bytes too many"
