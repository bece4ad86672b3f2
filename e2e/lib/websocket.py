"""A WebSocket client just large enough to see a message come back (RFC 6455)."""

import base64
import hashlib
import os
import socket

from e2e.lib.http import Address, connect

_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TEXT, CLOSE = 0x1, 0x8


class WebSocket:
    """An open WebSocket; a context manager."""

    def __init__(self, address: Address, host: str, path: str, sni: str | None = None):
        self._socket = connect(address, sni)
        try:
            self._handshake(host, path)
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> "WebSocket":
        return self

    def __exit__(self, *_error) -> None:
        self._socket.close()

    def send(self, payload: bytes, opcode: int = TEXT) -> None:
        assert len(payload) < 126, "longer frames are not needed here"
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
        self._socket.sendall(bytes([0x80 | opcode, 0x80 | len(payload)]) + mask + masked)

    def receive(self) -> tuple[int, bytes]:
        """The next frame's opcode and payload."""
        first, length = self._exactly(2)
        assert length < 126, "longer frames are not needed here"
        return first & 0x0F, self._exactly(length)

    def _handshake(self, host: str, path: str) -> None:
        key = base64.b64encode(os.urandom(16))
        self._socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\n"
            f"Upgrade: websocket\r\nOrigin: http://{host}\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: {key.decode()}\r\n\r\n".encode()
        )
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self._exactly(1)
        accept = base64.b64encode(hashlib.sha1(key + _MAGIC).digest())
        assert head.startswith(b"HTTP/1.1 101"), head
        assert accept in head, f"no {accept!r} in {head!r}"

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            chunk = self._socket.recv(count - len(data))
            if not chunk:
                raise ConnectionError("closed by the other side")
            data += chunk
        return data


def closed(websocket: WebSocket) -> bool:
    """Whether the other side has closed the connection."""
    try:
        return websocket._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
