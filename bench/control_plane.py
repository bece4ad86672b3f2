#!/usr/bin/env python3
"""How Tidegate copes with thousands of HTTPRoutes on a real API server.

    bench/control_plane.py [--binary PATH] [--routes 5000] [--adds 200] [--rate 1000]

Starts etcd and an API server on loopback (the programs that `e2e/run --only tools` builds), a
backend, and Tidegate outside of a pod. Creates ROUTES HTTPRoutes with a host each in 50
namespaces. Then it adds ADDS routes one by one and takes the time from the API server's answer to
the first 200 of a client that asks all the time: with pauses and nothing else going on, which also
gives the CPU that a change costs; back to back; and while RATE requests a second pass. Then it writes
to routes without changing what they say, which must change nothing. At last it starts Tidegate
anew and takes the time until all is served. One line a fact; --json for programs.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.dont_write_bytecode = True

from bench.control_plane import objects  # noqa: E402
from bench.control_plane.run import Bench, Tidegate  # noqa: E402
from bench.control_plane.server import Server, end  # noqa: E402
from e2e.driver.paths import TARGET  # noqa: E402
from e2e.lib.standalone import free_port  # noqa: E402
from e2e.lib.wait import wait_for  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--binary", default=TARGET / "release" / "tidegate")
    parser.add_argument("--routes", type=int, default=5000)
    parser.add_argument("--adds", type=int, default=200)
    parser.add_argument("--rate", type=int, default=1000,
                        help="requests a second while routes are added")
    parser.add_argument("--settle", type=float, default=15,
                        help="seconds before memory is looked at: what is freed late is freed")
    parser.add_argument("--json", help="file for the facts")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Server() as server:
        port = free_port()
        objects.write(Path(folder) / "backend.json", objects.answering(port))
        # A Tidegate that answers by itself: a backend that costs little.
        backend = Tidegate(options.binary, "--from", folder)
        try:
            wait_for(backend.is_ready, 30, "the backend is ready")
            bench = Bench(server, options.binary, options)
            bench.run(port)
        finally:
            end(backend.process)
    if options.json:
        Path(options.json).write_text(json.dumps(bench.facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
