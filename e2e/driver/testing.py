"""A small test runner: modules of functions whose names state facts.

Each `test_…` function gets a `Case`: a namespace of its own, removed after it.
"""

import importlib
import pkgutil
import time
import traceback
from types import ModuleType

import e2e.tests
from e2e.driver import deploy
from e2e.lib import kube
from e2e.lib.case import Case


def modules() -> list[ModuleType]:
    """The modules under `e2e/tests`, by their ORDER and then by name."""
    names = [info.name for info in pkgutil.iter_modules(e2e.tests.__path__)]
    found = [importlib.import_module(f"e2e.tests.{name}") for name in names]
    return sorted(found, key=lambda module: (getattr(module, "ORDER", 50), module.__name__))


def run_module(context, module: ModuleType) -> tuple[int, int]:
    """Runs a module's tests one after the other; returns how many passed and failed."""
    passed = failed = 0
    if getattr(module, "BREAKS_CLUSTER", False) and not context.cluster.may_break:
        context.log.say(f"left out: only the local cluster may be broken, "
                        f"this one is {context.cluster.name}")
        return 0, 0
    if getattr(module, "KNOWS_ADDRESSES", False) and not context.cluster.known_addresses:
        context.log.say(f"left out: which addresses there are in the cluster "
                        f"{context.cluster.name} is not known")
        return 0, 0
    if getattr(module, "CHANNEL", "standard") == "experimental":
        deploy.channel(context, "experimental")
    for name, function in list(vars(module).items()):
        wanted = not context.options.test or context.options.test in name
        if name.startswith("test_") and callable(function) and wanted:
            if _run_test(context, name, function):
                passed += 1
            else:
                failed += 1
    return passed, failed


def _run_test(context, name: str, function) -> bool:
    began = time.monotonic()
    case = Case(context.cluster, name, context.options.long, context.log)
    try:
        with case:
            function(case)
        verdict = "ok"
    except Exception as error:  # a test may fail in any way; the next one still runs
        verdict = f"FAILED: {str(error) or _last_line(error)}"
        context.log.write(traceback.format_exc())
    title = name.removeprefix("test_").replace("_", " ")
    context.log.say(f"{verdict if verdict == 'ok' else 'FAILED':6} {title} "
                    f"({time.monotonic() - began:.1f} s)")
    if verdict != "ok":
        context.log.say(f"       {verdict}")
        _describe(context, case)
    return verdict == "ok"


def _last_line(error: Exception) -> str:
    """The line that failed: what a bare `assert` has to say for itself."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {frame.line}"


def _describe(context, case: Case) -> None:
    """What one would look at next: Tidegate's own words, into the log."""
    for command in (
        ("get", "pods,services,endpointslices", "--all-namespaces", "-o", "wide"),
        ("logs", "--namespace", "tidegate-system", "--selector",
         "app.kubernetes.io/name=tidegate", "--prefix", "--tail=40"),
    ):
        context.log.write(f"\n--- {' '.join(command)}\n{kube.kubectl(*command, check=False)}\n")
