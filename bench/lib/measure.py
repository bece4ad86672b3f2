"""Measures one row: all its proxies run, and take turns round after round."""

import json
import resource
import shutil
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.lib import paths
from bench.lib.loads import Context, Hold, Nothing
from bench.lib.paths import HOST
from bench.lib.peers import Contender, Proxy
from bench.lib.processes import Process
from bench.lib.rows import Row
from e2e.driver.shell import CommandFailed


@dataclass
class Sample:
    """One slice of one proxy. Cores: the busy share of the proxy's, and of the load's."""

    row: str
    label: str
    round: int
    requests: int = 0
    errors: int = 0
    rps: float | None = None
    cpu_us: float | None = None
    system_us: float | None = None
    p50_us: float | None = None
    p99_us: float | None = None
    pss_mb: float | None = None
    rss_mb: float | None = None
    proxy_core: float | None = None
    load_core: float | None = None


@dataclass
class Plan:
    """How long and how often, and where things go."""

    rounds: int
    seconds: float
    folder: Path
    context: Context
    others: list[Process]  # the origin and Redis: they share the load's core


def contenders(row: Row, peers: set[str], binaries: dict[str, Path]) -> list[Contender]:
    """Those of the row that are wanted; each binary of Tidegate is one of its own."""
    found = []
    for spec in row.peers:
        kind, _, variant = spec.partition(":")
        if kind not in peers:
            continue
        for name, binary in binaries.items() if kind == "tidegate" else [(kind, None)]:
            label = f"{name}:{variant}" if variant else name
            found.append(Contender(label, kind, variant or row.variant, binary))
    return found


def measure(row: Row, who: list[Contender], plan: Plan) -> list[Sample]:
    """All rounds of a row. Each round begins with another proxy."""
    if isinstance(row.load, Nothing | Hold):
        return [sample for number in range(plan.rounds)
                for sample in _memory_round(row, who, plan, number)]
    proxies = _start(row, who, plan)
    try:
        for proxy in proxies:
            row.load.run(plan.context, proxy.ports, 1)  # connections, caches, pages
        samples = []
        for number in range(plan.rounds):
            first = number % len(proxies)
            for proxy in proxies[first:] + proxies[:first]:
                samples.append(_slice(row, proxy, plan, number))
        return samples
    finally:
        _stop(proxies)


def check(row: Row, who: list[Contender], plan: Plan) -> None:
    """One request to each, to see that configs and programs still fit."""
    proxies = _start(row, who, plan)
    try:
        for proxy in proxies:
            _check_one(row, proxy, plan)
    finally:
        _stop(proxies)


def _check_one(row: Row, proxy: Proxy, plan: Plan) -> None:
    if isinstance(row.load, Nothing | Hold):
        return  # that it started says all
    try:
        row.load.check(plan.context, proxy.ports)
        proxy.process.check()
    except (AssertionError, CommandFailed, OSError) as error:
        raise CommandFailed(f"{row.name}, {proxy.contender.label}: {error}") from error


def _start(row: Row, who: list[Contender], plan: Plan) -> list[Proxy]:
    proxies = []
    try:
        for i, one in enumerate(who):
            folder = plan.folder / row.name / one.label.replace(":", "-")
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            for file in ("tls.crt", "tls.key", "tls.pem"):
                shutil.copy(plan.folder / file, folder)
            cores = paths.BOTH_CORES if row.cores == "both" else paths.PROXY_CORE
            proxies.append(Proxy(one, i, folder, cores, row.connections))
        for proxy in proxies:
            proxy.wait()
    except BaseException:
        _stop(proxies)
        raise
    return proxies


def _stop(proxies: list[Proxy]) -> None:
    for proxy in proxies:
        proxy.process.stop()
        (proxy.folder / "access.log").unlink(missing_ok=True)  # hundreds of megabytes


def _slice(row: Row, proxy: Proxy, plan: Plan, number: int) -> Sample:
    lines = proxy.log_lines()
    cpu, others, clients = proxy.process.cpu(), _others(plan), _clients()
    began = time.monotonic()
    outcome = row.load.run(plan.context, proxy.ports, plan.seconds)
    took = time.monotonic() - began
    cpu = proxy.process.cpu() - cpu
    load = _others(plan) - others + _clients() - clients
    proxy.process.check()
    if outcome.requests == 0:
        raise CommandFailed(f"{row.name}: {proxy.contender.label} answered nothing")
    if proxy.contender.variant == "log":
        _check_log(proxy, lines, outcome.requests)
    pss, rss = proxy.process.memory_kb()
    each = 1e6 / outcome.requests
    return Sample(
        row.name, proxy.contender.label, number, outcome.requests, outcome.errors,
        rps=outcome.requests / outcome.seconds, cpu_us=cpu.total * each,
        system_us=cpu.total * cpu.system_share() * each,
        p50_us=outcome.p50_us, p99_us=outcome.p99_us, pss_mb=pss / 1024, rss_mb=rss / 1024,
        proxy_core=cpu.total / took, load_core=load / took / len(paths.LOAD_CORES))


def _check_log(proxy: Proxy, before: int, requests: int) -> None:
    """Whoever drops lines does less than the others."""
    time.sleep(1.5)  # nginx and Traefik write them late
    written = proxy.log_lines() - before
    if written < requests * 0.98:  # some are still in a buffer
        raise CommandFailed(f"{proxy.contender.label} logged {written} of {requests} requests")


def _memory_round(row: Row, who: list[Contender], plan: Plan, number: int) -> list[Sample]:
    """Each proxy is started afresh, as what it freed would be part of its memory."""
    samples = []
    for one in who:
        [proxy] = _start(row, [one], plan)
        try:
            samples.append(_memory(row, proxy, plan, number))
        finally:
            _stop([proxy])
    return samples


def _memory(row: Row, proxy: Proxy, plan: Plan, number: int) -> Sample:
    holder = None
    if isinstance(row.load, Hold):
        port = proxy.ports.https if row.load.tls else proxy.ports.http
        words = [plan.context.tools, "hold", "--address", f"{HOST}:{port}", "--connections",
                 row.load.connections, *(["--tls"] if row.load.tls else [])]
        out = proxy.folder / "held"
        holder = Process(words, proxy.folder / "hold.log", ",".join(paths.LOAD_CORES), out=out,
                         stdin=subprocess.PIPE)
    try:
        if holder:
            _wait_held(holder, out)
        time.sleep(2)  # what is freed late is freed
        pss, rss = proxy.process.memory_kb()
    finally:
        if holder:
            holder.stop()
    return Sample(row.name, proxy.contender.label, number, pss_mb=pss / 1024, rss_mb=rss / 1024)


def _wait_held(holder: Process, out: Path) -> None:
    end = time.monotonic() + 60
    while not out.read_text().strip():
        holder.check()
        if time.monotonic() > end:
            raise CommandFailed("the connections were not open within 60 s")
        time.sleep(0.05)


def _others(plan: Plan) -> float:
    """Seconds of CPU that the origin and Redis have taken."""
    return sum(one.cpu().total for one in plan.others)


def _clients() -> float:
    """Seconds of CPU that ended children took: those of the load clients."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def save(samples: list[Sample], facts: dict, path: Path) -> None:
    path.write_text(json.dumps({"facts": facts, "samples": [asdict(one) for one in samples]},
                               indent=1))


def load(path: Path) -> tuple[dict, list[Sample]]:
    """What `save` wrote."""
    said = json.loads(path.read_text())
    return said["facts"], [Sample(**one) for one in said["samples"]]
