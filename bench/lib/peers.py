"""The proxies: how each is started in a variant of its config, and stopped again.

A config is a template of `bench/peers/NAME`; what differs in a variant are the files
`VARIANT.PLACE.conf` beside it (else `default.PLACE.conf`), which take the place of `@PLACE@`.
"""

import http.client
import re
from dataclasses import dataclass
from pathlib import Path

from bench.lib import hosts, install
from bench.lib.paths import HOST, ORIGIN_GRPC, ORIGIN_HTTP, PEERS, PROXY_CORE, REDIS, Ports
from bench.lib.processes import Process
from e2e.driver.shell import CommandFailed
from e2e.lib.wait import wait_for

NAMES = ["tidegate", "nginx", "haproxy", "envoy", "traefik", "caddy"]


@dataclass
class Contender:
    """A proxy in one variant, as one of those that a row compares."""

    label: str
    kind: str
    variant: str
    binary: Path | None = None  # of Tidegate


class Proxy:
    """A running contender."""

    def __init__(self, contender: Contender, index: int, folder: Path, cores: str = PROXY_CORE,
                 connections: int = 4096):
        self.contender = contender
        self.ports = Ports(index)
        self.folder = folder
        self.cores = cores
        self.values = {
            "dir": folder, "connections": connections, "files": connections * 2,
            "origin_http": ORIGIN_HTTP, "origin_grpc": ORIGIN_GRPC, "redis": REDIS,
            **{f"{name}_port": port for name, port in self.ports.names().items()},
        }
        folder.mkdir(parents=True, exist_ok=True)
        self.process = getattr(self, f"_{contender.kind}")()

    def wait(self) -> None:
        wait_for(self._answers, 30, f"{self.contender.label} answers", every=0.02)

    def log_lines(self) -> int:
        """How many lines its access log has."""
        path = self.folder / "access.log"
        if not path.exists():
            return 0
        with open(path, "rb") as log:
            return sum(block.count(b"\n") for block in iter(lambda: log.read(1 << 20), b""))

    def _answers(self) -> bool:
        self.process.check()
        try:
            connection = http.client.HTTPConnection(HOST, self.ports.http, timeout=5)
            connection.request("GET", "/", headers={"Host": "h0.bench.example"})
            # 401: it answers, and wants a token that this is not the place to show.
            return connection.getresponse().status in (200, 401)
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _nginx(self) -> Process:
        servers = ""
        if self.contender.variant == "hosts":
            servers = hosts.nginx(self.ports.http)
        config = self._render("nginx.conf", servers=servers)
        return self._start([install.program("nginx"), "-p", self.folder, "-c", config])

    def _haproxy(self) -> Process:
        return self._start([install.program("haproxy"), "-db", "-f", self._render("haproxy.cfg")])

    def _envoy(self) -> Process:
        return self._start([install.program("envoy"), "--concurrency", 1, "--log-level", "error",
                            "--disable-hot-restart", "-c", self._render("envoy.yaml")])

    def _traefik(self) -> Process:
        self._render("routes.yml")
        return self._start([install.program("traefik"),
                            f"--configfile={self._render('traefik.yml')}"])

    def _caddy(self) -> Process:
        return self._start([install.program("caddy"), "run", "--adapter", "caddyfile",
                            "--config", self._render("Caddyfile")],
                           env={"XDG_DATA_HOME": str(self.folder),
                                "XDG_CONFIG_HOME": str(self.folder)})

    def _tidegate(self) -> Process:
        objects = self.folder / "objects"
        objects.mkdir(exist_ok=True)
        (objects / "tidegate.yaml").write_text(self._render("tidegate.yaml").read_text())
        variant = self.contender.variant
        if variant == "hosts":
            (objects / "route.yaml").write_text(hosts.tidegate())
        else:
            name = variant if (PEERS / "tidegate" / f"{variant}.route.yaml").exists() else "plain"
            (objects / "route.yaml").write_text(self._render(f"{name}.route.yaml").read_text())
        (objects / "tls.yaml").write_text(hosts.secret("tls", self.folder))
        workers = 2 if variant == "workers-2" else 1
        logs = variant == "log"
        return self._start(
            [self.contender.binary, "run", "--from", objects, "--workers", workers,
             "--admin", f"{HOST}:{self.ports.admin}", "--ingress-http-port", 0,
             "--ingress-https-port", 0, "--drain-delay", "0s", "--drain-timeout", "1s",
             "--log-format", "json", "--log-level", "warn", "--access-log", str(logs).lower()])

    def _start(self, words: list, env: dict | None = None) -> Process:
        # Those that log to stdout get the file there.
        return Process(words, self.folder / "output.log", self.cores,
                       out=self.folder / "access.log", env=env)

    def _render(self, name: str, **values) -> Path:
        """A template of the peer's folder, with everything filled in, in the own folder."""
        kind, variant = self.contender.kind, self.contender.variant

        def fill(match: re.Match) -> str:
            place = match[1]
            if place in values or place in self.values:
                return str(values.get(place, self.values.get(place)))
            snippets = (PEERS / kind / f"{name}.{place}.conf" for name in (variant, "default"))
            text = next((one.read_text() for one in snippets if one.exists()), "")
            return substitute(text.rstrip("\n"))

        def substitute(text: str) -> str:
            return re.sub(r"@([a-z0-9_]+)@", fill, text)

        path = self.folder / name
        text = substitute((PEERS / kind / name).read_text())
        if not text.strip():
            raise CommandFailed(f"{name} is empty")
        path.write_text(text)
        return path
