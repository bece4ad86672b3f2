"""What is asked of a proxy: wrk, h2load, and the load clients of `bench/tools`."""

import json
import re
import ssl
import tempfile
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from bench.lib import install
from bench.lib.paths import HOST, LOAD_CORES, Ports
from bench.lib.processes import client
from e2e.driver.shell import CommandFailed


@dataclass
class Outcome:
    """What a load client says of a slice of time."""

    requests: int
    errors: int
    seconds: float
    p50_us: float | None = None
    p99_us: float | None = None


@dataclass(frozen=True)
class Context:
    """What loads need to know of the run."""

    tools: Path
    max_rate: int  # of nginx, requests a second: what fixed rates are a share of


@dataclass(frozen=True)
class Wrk:
    """As many requests as go, over connections that stay."""

    connections: int
    path: str = "/"
    tls: bool = False
    upload: int = 0  # bytes of a POST
    fields: tuple[str, ...] = ()

    def run(self, context: Context, ports: Ports, seconds: float) -> Outcome:
        with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
            script.write(f'wrk.method = "POST"\nwrk.body = string.rep("x", {self.upload})\n')
            script.flush()
            text = _client(
                install.program("wrk"), "-t1", f"-c{self.connections}", f"-d{seconds:.0f}s",
                "--latency", *(["-s", script.name] if self.upload else []),
                *(word for field in self.fields for word in ("-H", field)), self._url(ports))
        return parse_wrk(text)

    def check(self, context: Context, ports: Ports) -> None:
        """The same request as wrk's, without the second that wrk takes at least."""
        fields = dict(field.split(": ", 1) for field in self.fields)
        body = b"x" * self.upload or None
        request = urllib.request.Request(self._url(ports), body, fields)
        trusting = ssl.create_default_context()
        trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
        with urllib.request.urlopen(request, timeout=10, context=trusting) as answer:
            assert answer.status == 200 and answer.read(), answer.status

    def _url(self, ports: Ports) -> str:
        scheme, port = ("https", ports.https) if self.tls else ("http", ports.http)
        return f"{scheme}://{HOST}:{port}{self.path}"


@dataclass(frozen=True)
class H2load:
    """As many requests as go, over HTTP/2."""

    streams: int  # at once on each connection
    connections: int = 8
    tls: bool = False
    grpc: bool = False

    def run(self, context: Context, ports: Ports, seconds: float) -> Outcome:
        return parse_h2load(self._h2load(ports, "-D", f"{seconds:.0f}", "-c", self.connections,
                                         "-m", self.streams))

    def check(self, context: Context, ports: Ports) -> None:
        outcome = parse_h2load(self._h2load(ports, "-n1", "-c1", "-m1"))
        assert (outcome.requests, outcome.errors) == (1, 0), outcome

    def _h2load(self, ports: Ports, *words) -> str:
        command = [install.program("h2load"), *words]
        if not self.grpc:
            scheme, port = ("https", ports.https) if self.tls else ("http", ports.h2c)
            return _client(*command, f"{scheme}://{HOST}:{port}/")
        with tempfile.NamedTemporaryFile() as message:
            message.write(bytes([0, 0, 0, 0, 32]) + b"x" * 32)  # a gRPC message of 32 bytes
            message.flush()
            return _client(*command, "-d", message.name, "-H", "content-type: application/grpc",
                           "-H", "te: trailers", f"http://{HOST}:{ports.grpc}/bench.Echo/Unary")


@dataclass(frozen=True)
class Own:
    """What the others cannot do; `rate_share` makes it a fixed rate, a share of nginx's best."""

    connections: int
    rate_share: float | None = None
    flags: tuple[str, ...] = ()

    def run(self, context: Context, ports: Ports, seconds: float) -> Outcome:
        rate = []
        if self.rate_share:
            rate = ["--rate", round(context.max_rate * self.rate_share)]
        return self._load(context, ports, "--connections", self.connections,
                          "--seconds", f"{seconds:.0f}", *rate)

    def check(self, context: Context, ports: Ports) -> None:
        few = 20 if "--resume" in self.flags else 1  # the first cannot be resumed
        outcome = self._load(context, ports, "--connections", 1, "--seconds", 5, "--requests", few)
        assert outcome.requests >= few and outcome.errors == 0, outcome

    def _load(self, context: Context, ports: Ports, *words) -> Outcome:
        port = ports.https if "--tls" in self.flags else ports.http
        return parse_own(_client(context.tools, "load", "--address", f"{HOST}:{port}",
                                 *words, *self.flags))


@dataclass(frozen=True)
class Hold:
    """Connections that were used once and stay open; the memory is read meanwhile."""

    connections: int
    tls: bool = False


@dataclass(frozen=True)
class Nothing:
    """The memory of a proxy that nobody has asked anything."""


def parse_wrk(text: str) -> Outcome:
    done = re.search(r"(\d+) requests in ([\d.]+)(m?s|m)", text)
    if not done:
        raise CommandFailed(f"wrk said: {text}")
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    count = sum(map(int, errors.groups())) if errors else 0
    return Outcome(int(done[1]), count + (int(bad[1]) if bad else 0),
                   _seconds(done[2] + done[3]), _percentile(text, 50), _percentile(text, 99))


def parse_h2load(text: str) -> Outcome:
    took = re.search(r"finished in ([\d.]+(?:us|ms|s|m)),", text)
    done = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", text)
    if not took or not done:
        raise CommandFailed(f"h2load said: {text}")
    succeeded, *failed = map(int, done.groups())
    return Outcome(succeeded, sum(failed), _seconds(took[1]))


def parse_own(text: str) -> Outcome:
    said = json.loads(text)
    return Outcome(**{name: said[name] for name in
                      ("requests", "errors", "seconds", "p50_us", "p99_us")})


def _percentile(text: str, share: int) -> float | None:
    found = re.search(rf"^\s+{share}%\s+([\d.]+(?:us|ms|s|m))$", text, re.MULTILINE)
    return _seconds(found[1]) * 1e6 if found else None


def _seconds(text: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s|m)", text).groups()
    return float(number) * {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}[unit]


def _client(*words) -> str:
    return client(list(words), ",".join(LOAD_CORES))
