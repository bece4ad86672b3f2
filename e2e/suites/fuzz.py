"""fuzz: random bytes through the HTTP/1.1 codec, held against the checks of fuzz/src/checks.rs."""

import os

from e2e.driver.paths import CACHE, ROOT, TARGET
from e2e.driver.shell import output, run as run_program

_FUZZ = ROOT / "fuzz"
_TARGETS = ["request", "response", "chunked", "round_trip"]
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


def run(context) -> tuple[int, int]:
    """Returns how many targets passed and failed: the first input that breaks one ends the step."""
    seconds = 600 if context.options.long else 20
    # With a target named, build scripts and macros are compiled without the flags above.
    machine = next(line.removeprefix("host: ") for line in output("rustc", "-vV").splitlines()
                   if line.startswith("host: "))
    target = TARGET / "fuzz"
    run_program(context.log, "cargo", "build", "--release", "--locked", "--target", machine,
                cwd=_FUZZ, env={"CARGO_TARGET_DIR": target, "RUSTFLAGS": " ".join(_FLAGS)})
    for name in _TARGETS:
        found = CACHE / "fuzz" / name
        found.mkdir(parents=True, exist_ok=True)
        broken = context.logs / f"fuzz-{name}-"
        run_program(context.log, target / machine / "release" / name, f"-max_total_time={seconds}",
                    f"-dict={_FUZZ / 'http.dict'}", f"-artifact_prefix={broken}",
                    "-print_final_stats=1", found, _FUZZ / "corpus" / name)
        context.log.say(f"{name}: {seconds} s, {len(os.listdir(found))} inputs kept")
    return len(_TARGETS), 0
