"""fuzz: random bytes through the HTTP/1.1 codec, held against the checks of fuzz/src/checks.rs."""

import tempfile

from e2e.driver.paths import CACHE, ROOT, TARGET
from e2e.driver.shell import output, run as run_program

_FUZZ = ROOT / "fuzz"
_TARGETS = ["request", "response", "chunked", "round_trip", "token"]
# What cargo-fuzz passes, but for the address sanitizer: that needs a nightly compiler, and
# the codec has no unsafe code.
_FLAGS = [
    "--cfg", "fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
]


# Of a plain run, which has to end in the same way each time it runs the same code: searching
# anew, from the committed corpus and one seed, is `--long`'s.
_RUNS = 400_000
_LONG_SECONDS = 600


def run(context) -> tuple[int, int]:
    """Returns how many targets passed and failed: the first input that breaks one ends the step."""
    # With a target named, build scripts and macros are compiled without the flags above.
    machine = next(line.removeprefix("host: ") for line in output("rustc", "-vV").splitlines()
                   if line.startswith("host: "))
    target = TARGET / "fuzz"
    run_program(context.log, "cargo", "build", "--release", "--locked", "--target", machine,
                cwd=_FUZZ, env={"CARGO_TARGET_DIR": target, "RUSTFLAGS": " ".join(_FLAGS)})
    for name in _TARGETS:
        if context.options.long:
            found = CACHE / "fuzz" / name
            found.mkdir(parents=True, exist_ok=True)
            bounds = [f"-max_total_time={_LONG_SECONDS}", found]
        else:
            bounds = ["-seed=1", f"-runs={_RUNS}"]
        broken = context.logs / f"fuzz-{name}-"
        # The first folder that is named is the one that new inputs are kept in: none of the
        # repository's.
        with tempfile.TemporaryDirectory() as scratch:
            folders = [] if context.options.long else [scratch]
            run_program(context.log, target / machine / "release" / name, *bounds, *folders,
                        f"-dict={_FUZZ / 'http.dict'}", f"-artifact_prefix={broken}",
                        "-print_final_stats=1", _FUZZ / "corpus" / name)
        context.log.say(f"{name}: nothing found")
    return len(_TARGETS), 0
