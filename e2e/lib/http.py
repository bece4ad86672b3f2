"""An HTTP client for tests: any Host to any address, TLS with any SNI, raw bytes."""

import http.client
import json
import socket
import ssl
import tempfile
from dataclasses import dataclass

from e2e.lib.wait import wait_for

Address = tuple[str, int]


@dataclass
class Response:
    status: int
    headers: http.client.HTTPMessage
    body: bytes
    certificate: bytes | None = None  # of the server, DER, if over TLS

    def json(self) -> dict:
        return json.loads(self.body)

    @property
    def pod(self) -> str:
        """The pod of the echo server that answered."""
        return self.json()["pod"]

    @property
    def service(self) -> str:
        return self.json()["service"]


def connect(address: Address, sni: str | None = None, ca: str | None = None,
            alpn: list[str] | None = None, timeout: float = 5,
            identity: tuple[str, str] | None = None) -> socket.socket:
    """A connection; with `sni` over TLS, verified only if `ca` (PEM) is given.

    `identity` is the client's certificate and key, both PEM.
    """
    plain = socket.create_connection(address, timeout)
    if sni is None:
        return plain
    context = ssl.create_default_context(cadata=ca)
    if ca is None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if alpn:
        context.set_alpn_protocols(alpn)
    if identity:
        with tempfile.NamedTemporaryFile("w") as file:  # the library takes files only
            file.write("".join(identity))
            file.flush()
            context.load_cert_chain(file.name)
    return context.wrap_socket(plain, server_hostname=sni)


def is_open(address: Address) -> bool:
    """Whether it takes connections. A new port of a Service is rejected by the node with an ICMP
    error until the node knows where it leads."""
    try:
        connect(address).close()
    except OSError:
        return False
    return True


def request(address: Address, host: str, path: str = "/", method: str = "GET",
            headers: dict | None = None, body: bytes | None = None, sni: str | None = None,
            ca: str | None = None, timeout: float = 5,
            identity: tuple[str, str] | None = None) -> Response:
    """One request on a connection of its own."""
    with connect(address, sni, ca, timeout=timeout, identity=identity) as sock:
        fields = {"Host": host, "Connection": "close", **(headers or {})}
        if body is not None:
            fields["Content-Length"] = str(len(body))
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        sock.sendall(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + (body or b""))
        response = http.client.HTTPResponse(sock, method=method)
        response.begin()
        content = response.read()
        certificate = sock.getpeercert(binary_form=True) if sni else None
        return Response(response.status, response.headers, content, certificate)


def get(address: Address, host: str, path: str = "/", **options) -> Response:
    return request(address, host, path, **options)


def get_when(address: Address, host: str, path: str = "/", status: int = 200,
             timeout: float = 15, confirm: int = 10, **options) -> Response:
    """Repeats a GET until it is answered with this status: configuration takes a moment.

    Each pod learns of a change by itself, and each connection goes to any of them: only
    when `confirm` answers in a row are right, all pods can be taken to have it.
    """

    def answer():
        for _ in range(confirm):
            try:
                response = request(address, host, path, **options)
            except (OSError, http.client.HTTPException) as error:
                raise AssertionError(f"no answer: {error!r}") from error
            assert response.status == status, f"status {response.status}: {response.body[:200]!r}"
        return response

    return wait_for(answer, timeout, f"GET {host}{path} answers {status}")


def raw(address: Address, data: bytes, timeout: float = 5) -> bytes:
    """Sends bytes as they are and returns all that comes until the end."""
    with connect(address, timeout=timeout) as sock:
        sock.sendall(data)
        received = b""
        try:
            while chunk := sock.recv(65536):
                received += chunk
        except (TimeoutError, ConnectionResetError):
            pass
        return received
