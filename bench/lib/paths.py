"""Where things are, and which ports and cores the measurement takes."""

import os
from pathlib import Path

from e2e.driver import paths as e2e

ROOT = e2e.ROOT
BENCH = ROOT / "bench"
CACHE = e2e.CACHE / "bench"
TARGET = e2e.TARGET
PEERS = BENCH / "peers"
DOCS = ROOT / "docs"

HOST = "127.0.0.1"
ORIGIN_HTTP = 21900
ORIGIN_GRPC = 21901
REDIS = 21902
FIRST_PORT = 21000  # of the proxies; each gets a block of ten

def cores() -> list[int]:
    """Those that this process may use."""
    return sorted(os.sched_getaffinity(0))


_CORES = [str(core) for core in cores()]
PROXY_CORE = _CORES[0]
# With four cores or more, load and origin leave the first two alone and have one each.
LOAD_CORES = _CORES[2:4] if len(_CORES) >= 4 else _CORES[1:2] or _CORES
BOTH_CORES = ",".join(_CORES[:2])


class Ports:
    """The ports of one proxy: the same offsets for all of them."""

    def __init__(self, index: int):
        first = FIRST_PORT + 10 * index
        self.http = first
        self.https = first + 1  # HTTP/1.1 and HTTP/2 by ALPN
        self.h2c = first + 2  # HTTP/2 in clear, to the HTTP/1.1 origin
        self.grpc = first + 3  # HTTP/2 in clear, to the gRPC origin
        self.admin = first + 9

    def names(self) -> dict[str, int]:
        return dict(vars(self))
