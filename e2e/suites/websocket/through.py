"""A pytest plugin that leads a suite's connections to itself through Tidegate.

Where TIDEGATE_THROUGH maps ports of backends to ports of Tidegate, a server that asks for
any free port gets one of the first, and a client that connects to it arrives at the second.
The suites themselves are not changed.
"""

import itertools
import json
import logging
import os
import socket

_ROUTES = {int(k): v for k, v in json.loads(os.environ.get("TIDEGATE_THROUGH", "{}")).items()}
_next = itertools.cycle(_ROUTES)  # not the same one twice in a row: it may be closing still
_bind, _connect = socket.socket.bind, socket.socket.connect


def _is_tcp(sock: socket.socket) -> bool:
    return sock.family == socket.AF_INET and sock.type == socket.SOCK_STREAM


def bind(self, address):
    if not _is_tcp(self) or address[1] != 0:
        return _bind(self, address)
    self.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    for port in itertools.islice(_next, len(_ROUTES)):
        try:
            return _bind(self, (address[0], port))
        except OSError:
            continue
    raise OSError("every port that leads through Tidegate is taken")


def connect(self, address):
    if _is_tcp(self) and address[1] in _ROUTES:
        address = ("127.0.0.1", _ROUTES[address[1]])
    return _connect(self, address)


# As tornado's own runner does: its tests take a line about a request for a mistake.
logging.getLogger("tornado.access").setLevel(logging.CRITICAL)

if _ROUTES:
    socket.socket.bind, socket.socket.connect = bind, connect
