"""WebSocket: the tests of public libraries, direct and through Tidegate."""

import json
import os
import tarfile
import xml.etree.ElementTree as xml
from pathlib import Path

from e2e.driver.paths import RESULTS
from e2e.driver.shell import CommandFailed, Log, run as run_program
from e2e.lib import results, standalone, venv
from e2e.lib.standalone import Standalone, free_port

_HERE = Path(__file__).parent
_FILE = "websocket.md"
_COLUMNS = ["suite", "tests", "passed direct", "passed through Tidegate", "different"]
_ACCEPTED = "tidegate_connections_accepted_total"
_PORTS = 16  # that suites may listen on at the same time

# Name, and what pytest is to run. aiohttp's tests are in its source distribution only.
_SUITES = {
    "websockets": [str(_HERE / "test_websockets.py")],
    "tornado": ["--pyargs", "tornado.test.websocket_test"],
    "aiohttp": ["tests/test_web_websocket_functional.py", "tests/test_client_ws_functional.py"],
}

# It wants its connection refused because nobody listens: Tidegate does, and answers 503.
_DIRECT_ONLY = ("test_websocket_network_fail",)


def run(context) -> tuple[int, int]:
    """A test that passes direct must pass through Tidegate too."""
    home = _install(context.log)
    backends, fronts = ([free_port() for _ in range(_PORTS)] for _ in range(2))
    passed = failed = 0
    with Standalone(context.log, _objects(backends, fronts)) as tidegate:
        pairs = json.dumps(dict(zip(backends, fronts, strict=True)))
        for name, tests in _SUITES.items():
            direct = _suite(context, home, name, tests, {})
            before = tidegate.counter(_ACCEPTED)
            through = _suite(context, home, name, tests, {"TIDEGATE_THROUGH": pairs})
            accepted = tidegate.counter(_ACCEPTED) - before
            assert accepted > len(through) / 2, f"only {accepted} connections went through"
            good = {test for test, verdict in direct.items() if verdict == "passed"}
            lost = sorted(test for test in good if through.get(test) != "passed")
            for test in lost:
                context.log.say(f"FAILED {name}: {test}: {through.get(test, 'not run')}")
            also = sum(verdict == "passed" for verdict in through.values())
            context.log.say(results.row(_FILE, _COLUMNS, [
                name, len(direct), len(good), also, len(lost)]))
            assert good, f"no test of {name} passes direct: see the log"
            passed, failed = passed + len(good) - len(lost), failed + len(lost)
    return passed, failed


def _objects(backends: list[int], fronts: list[int]) -> list[dict]:
    """A listener for each port that a suite may listen on, and its only backend behind it."""
    gateway_class, gateway = standalone.gateway(fronts[0])
    listeners = gateway["spec"]["listeners"] = []
    objects = [gateway_class, gateway]
    for i, (backend, front) in enumerate(zip(backends, fronts, strict=True)):
        name = f"port-{i}"
        listeners.append({"name": name, "protocol": "HTTP", "port": front})
        one = standalone.route(name)
        one["spec"]["parentRefs"][0]["sectionName"] = name
        objects += [*standalone.backend(name, backend), one]
    return objects


def _suite(context, home: Path, name: str, tests: list[str], env: dict) -> dict[str, str]:
    """Runs a suite; passed, failed or skipped of each of its tests."""
    report = RESULTS / "websocket.xml"
    report.unlink(missing_ok=True)
    # Its own settings would want tools that are of no use here.
    options = ["-q", "-c", "/dev/null", "--rootdir", home, "-p", "no:cacheprovider",
               "-p", "no:logging", "-p", "through", "--timeout=60", f"--junitxml={report}"]
    paths = os.pathsep.join([str(_HERE), str(home)])
    try:
        run_program(context.log, home / "bin" / "python", "-m", "pytest", *options, *tests,
                    cwd=home, env={"PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1", **env})
    except CommandFailed:
        if not report.exists():
            raise  # it ended before any test
    found = {}
    for case in xml.parse(report).getroot().iter("testcase"):
        if case.get("name") in _DIRECT_ONLY:
            continue
        bad = [part.tag for part in case if part.tag in ("failure", "error", "skipped")]
        found[f"{case.get('classname')}.{case.get('name')}"] = bad[0] if bad else "passed"
    report.unlink()
    return found


def _install(log: Log) -> Path:
    """An environment of the pinned packages, with the tests that aiohttp does not install."""
    pins = _HERE / "requirements.txt"

    def tests(home: Path) -> None:
        source = next(line for line in pins.read_text().splitlines()
                      if line.startswith("aiohttp=="))
        run_program(log, home / "bin" / "python", "-m", "pip", "download", "--quiet", "--no-deps",
                    "--no-binary", ":all:", "--dest", home / "source", source)
        archive = next((home / "source").glob("aiohttp-*.tar.gz"))
        with tarfile.open(archive) as tar:
            top = archive.name.removesuffix(".tar.gz")
            members = [one for one in tar.getmembers() if one.name.startswith(f"{top}/tests/")]
            for member in members:
                member.name = member.name.removeprefix(f"{top}/")
            tar.extractall(home, members, filter="data")

    return venv.environment(log, "websocket", pins, tests)
