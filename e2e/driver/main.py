"""The run: chooses steps, runs them in order, and always cleans up after itself."""

import argparse
import fcntl
import signal
import time
import traceback
from contextlib import contextmanager

from e2e.cluster import kinds
from e2e.driver import steps
from e2e.driver.paths import CACHE, LOGS, RESULTS
from e2e.driver.shell import CommandFailed, Log
from e2e.driver.steps import Context, Step, Tally


def main() -> int:
    options = _arguments()
    chosen = steps.choose(options)
    if options.list:
        for step in chosen:
            print(f"{step.name:16} {step.about}")
        return 0
    signal.signal(signal.SIGTERM, _interrupt)
    with _lock():
        return _run(options, chosen)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="e2e/run",
        description="Builds Tidegate, brings up a real cluster, and tests on it.",
    )
    parser.add_argument("--long", action="store_true",
                        help="adds the 5 GB bodies, twenty repetitions of the loss tests and of "
                             "h2spec, ten minutes of fuzzing a target, and conformance "
                             "with three replicas")
    parser.add_argument("--cluster", choices=sorted(kinds.KINDS), default="local")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="run these steps only")
    parser.add_argument("--test", metavar="TEXT", help="of the tests, those with TEXT in the name")
    parser.add_argument("--keep", action="store_true", help="leave the cluster up at the end")
    parser.add_argument("--list", action="store_true", help="print the steps and end")
    return parser.parse_args()


def _run(options: argparse.Namespace, chosen: list[Step]) -> int:
    run = time.strftime("%Y%m%d-%H%M%S")
    context = Context(options, kinds.make(options.cluster), LOGS / run)
    RESULTS.mkdir(parents=True, exist_ok=True)
    tally, durations = Tally(), []
    try:
        for step in chosen:
            if not _one(context, step, tally, durations):
                break
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        tally.failed += 1
    finally:
        _tear_down(context, chosen)
    _table(durations)
    print(f"\nlogs: {context.logs}\nresults: {RESULTS}\n")
    print(f"{tally.passed} passed, {tally.failed} failed", flush=True)
    return 1 if tally.failed else 0


def _one(context: Context, step: Step, tally: Tally, durations: list) -> bool:
    """Runs one step; says how it went and, if badly, where to look."""
    print(f"==> {step.name}: {step.about}", flush=True)
    began = time.monotonic()
    context.log = Log(context.logs / f"{step.name}.log")
    failure = None
    own = None
    try:
        if step.on_cluster:
            context.cluster.use()
        own = step.action(context)
    except (CommandFailed, AssertionError, OSError) as error:
        failure = str(error)
        context.log.write(traceback.format_exc())
    except KeyboardInterrupt:
        raise
    except Exception as error:  # a mistake of ours: the run still has to clean up
        failure = repr(error)
        context.log.write(traceback.format_exc())
    own = own or Tally(passed=0 if failure else 1)
    own.failed += 1 if failure else 0
    tally.add(own)
    took = time.monotonic() - began
    durations.append((step.name, took, own))
    if own.failed:
        if failure:  # failed tests have been shown one by one
            print(context.log.tail(), flush=True)
        print(f"FAILED: {step.name}: {failure or f'{own.failed} failed'}\n"
              f"  log: {context.log.path}", flush=True)
        return False
    print(f"    done in {took:.1f} s", flush=True)
    return True


def _tear_down(context: Context, chosen: list[Step]) -> None:
    """Takes down what this run brought up, also after a failure or Ctrl-C."""
    if context.options.keep or not any(step.name == "cluster" for step in chosen):
        return
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, signal.SIG_IGN)  # once begun, it finishes
    context.cluster.down(Log(context.logs / "down.log"))


def _table(durations: list) -> None:
    print(f"\n{'step':16} {'seconds':>8} {'passed':>7} {'failed':>7}")
    for name, took, own in durations:
        print(f"{name:16} {took:8.1f} {own.passed:7} {own.failed:7}")


@contextmanager
def _lock():
    """One run at a time: two would fight for addresses, namespace and cache."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / "lock", "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another run to end (it holds {file.name})", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _interrupt(_signal, _frame) -> None:
    raise KeyboardInterrupt
