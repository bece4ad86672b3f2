"""The run: options, installation, the rows one after another, and an end in any case."""

import argparse
import fcntl
import resource
import signal
import tempfile
import time
from pathlib import Path

from bench.lib import hosts, install, machine, measure, paths, peers, report, rows, show
from bench.lib.loads import Context, Wrk
from bench.lib.peers import Contender, Proxy
from bench.lib.processes import Process, stop_all
from e2e.driver.shell import CommandFailed, Log
from e2e.lib.standalone import wait_listens


def main() -> int:
    options = _arguments()
    chosen = rows.choose(options.row, options.quick)
    if options.list:
        for row in chosen:
            print(f"{row.name:14} {row.title}  [{' '.join(row.peers)}]")
        return 0
    signal.signal(signal.SIGTERM, _interrupt)
    paths.CACHE.mkdir(parents=True, exist_ok=True)
    with open(paths.CACHE / "lock", "w") as lock, tempfile.TemporaryDirectory() as folder:
        _take(lock)
        try:
            return _run(options, chosen, Path(folder))
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        except (CommandFailed, AssertionError) as error:
            print(f"FAILED: {error}", flush=True)
        finally:
            for one in (signal.SIGINT, signal.SIGTERM):
                signal.signal(one, signal.SIG_IGN)  # once begun, it finishes
            stop_all()
    return 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench/run",
        description="Measures what a request costs Tidegate and other proxies, side by side.")
    parser.add_argument("--quick", action="store_true", help="the first rows, in five minutes")
    parser.add_argument("--row", nargs="+", metavar="NAME", help="these rows only")
    parser.add_argument("--peer", nargs="+", metavar="NAME", choices=peers.NAMES,
                        help=f"these proxies only, of {' '.join(peers.NAMES)}")
    parser.add_argument("--binary", action="append", default=[], metavar="[NAME=]PATH",
                        help="measure this Tidegate instead of building one; given several times "
                             "under different names, they are measured against each other")
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    parser.add_argument("--seconds", type=int, metavar="N",
                        help="of a slice; 4, or 2 with --quick")
    parser.add_argument("--write", action="store_true",
                        help="write docs/benchmarks.md and its chart")
    parser.add_argument("--render", metavar="JSON",
                        help="write them from the results of an earlier run, and end")
    parser.add_argument("--check", action="store_true",
                        help="one request to each proxy in each config, without measuring")
    parser.add_argument("--list", action="store_true", help="print the rows and end")
    options = parser.parse_args()
    if options.write and (options.row or options.peer or options.quick):
        parser.error("--write is for a full run: docs/benchmarks.md has every row")
    options.seconds = options.seconds or (2 if options.quick else 4)
    return options


def _run(options: argparse.Namespace, chosen: list[rows.Row], folder: Path) -> int:
    if options.render:
        report.write(*measure.load(Path(options.render)))
        return 0
    began = time.monotonic()
    _raise_file_limit()
    stamp = time.strftime("%Y%m%d-%H%M%S")
    log = Log(paths.CACHE / "logs" / f"{stamp}.log")
    wanted = set(options.peer or peers.NAMES)
    install.packages(log, wanted)
    tools = install.tools(log)
    binaries = _binaries(options, log) if "tidegate" in wanted else {}
    hosts.certificate(folder)
    origin = Process([tools, "origin", "--http", f"{paths.HOST}:{paths.ORIGIN_HTTP}",
                      "--grpc", f"{paths.HOST}:{paths.ORIGIN_GRPC}"],
                     folder / "origin.log", ",".join(paths.LOAD_CORES))
    wait_listens(origin.popen, paths.ORIGIN_HTTP)
    others = [origin, *_redis(chosen, folder)]
    plan = measure.Plan(options.rounds, options.seconds, folder, Context(tools, 0), others)
    if options.check:
        return _check(chosen, wanted, binaries, plan)
    plan.context = Context(tools, _best_rate(chosen, wanted, binaries, plan))
    facts = machine.facts(binaries, wanted)
    facts["slices"] = {"rounds": options.rounds, "seconds": options.seconds}
    samples = []
    results = paths.CACHE / "results" / f"{stamp}.json"
    results.parent.mkdir(exist_ok=True)
    for row in chosen:
        who = measure.contenders(row, wanted, binaries)
        if not who:
            continue
        print(f"==> {row.name}: {row.title}", flush=True)
        samples += measure.measure(row, who, plan)
        print(show.row(row, samples), flush=True)
        facts["minutes"] = round((time.monotonic() - began) / 60, 1)
        measure.save(samples, facts, results)
    print(f"\nresults: {results}\n{facts['minutes']} minutes", flush=True)
    if options.write:
        report.write(facts, samples)
    return 0


def _redis(chosen: list[rows.Row], folder: Path) -> list[Process]:
    """For the rows that count there, beside the origin."""
    if not any(row.redis for row in chosen):
        return []
    words = [install.program("redis-server"), "--port", paths.REDIS, "--bind", paths.HOST,
             "--save", "", "--appendonly", "no", "--dir", folder]
    redis = Process(words, folder / "redis.log", ",".join(paths.LOAD_CORES))
    wait_listens(redis.popen, paths.REDIS)
    return [redis]


def _check(chosen, wanted, binaries, plan) -> int:
    plan.context = Context(plan.context.tools, 1_000)
    for row in chosen:
        who = measure.contenders(row, wanted, binaries)
        if not who:
            continue
        measure.check(row, who, plan)
        print(f"{row.name}: {' '.join(one.label for one in who)}: ok", flush=True)
    return 0


def _best_rate(chosen, wanted, binaries, plan) -> int:
    """Requests a second that nginx (or whoever takes part) reaches: rates are a share of it."""
    if not any(getattr(row.load, "rate_share", None) for row in chosen):
        return 0
    kind = "nginx" if "nginx" in wanted else "tidegate"
    one = Contender(kind, kind, "plain", next(iter(binaries.values()), None))
    folder = plan.folder / "rate"
    folder.mkdir()
    for name in ("tls.crt", "tls.key", "tls.pem"):
        (folder / name).write_bytes((plan.folder / name).read_bytes())
    proxy = Proxy(one, 0, folder)
    try:
        proxy.wait()
        outcomes = [Wrk(64).run(plan.context, proxy.ports, 2) for _ in range(3)]
    finally:
        proxy.process.stop()
    return round(sorted(one.requests / one.seconds for one in outcomes)[1])


def _binaries(options: argparse.Namespace, log: Log) -> dict[str, Path]:
    given = {}
    for text in options.binary:
        name, _, path = text.rpartition("=")
        given[name or "tidegate"] = Path(path).resolve(strict=True)
    if len(given) < len(options.binary):
        raise CommandFailed("--binary: give each a name of its own, as NAME=PATH")
    return given or {"tidegate": install.tidegate(log)}


def _raise_file_limit() -> None:
    """As far as allowed: a row with 10,000 connections needs as many files on either side."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < 11_000:
        print(f"only {hard} files may be open (ulimit -Hn): the row memory-10000 will fail")


def _take(lock) -> None:
    """One run at a time: they share ports and cores."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"waiting for another run to end (it holds {lock.name})", flush=True)
        fcntl.flock(lock, fcntl.LOCK_EX)


def _interrupt(_signal, _frame) -> None:
    raise KeyboardInterrupt
