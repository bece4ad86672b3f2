"""bench/control_plane.py on a small world: every route goes live, and nothing happens for nothing."""

import json

from e2e.driver.paths import ROOT, TARGET
from e2e.driver.shell import run as run_program

# Nothing is measured: what takes how long depends on what else the machine does.
_SMALL = ("--routes", "500", "--adds", "20", "--rate", "200", "--settle", "0")


def run(context) -> tuple[int, int]:
    """Returns how many facts held and did not."""
    out = context.logs / "control_plane.json"
    run_program(context.log, "python3", "-B", ROOT / "bench" / "control_plane.py", *_SMALL,
                "--binary", TARGET / "release" / "tidegate", "--json", out)
    facts = json.loads(out.read_text())
    held = {
        "requests passed while routes were added": facts["load"]["total"] > 0,
        "none of them failed": facts["load"]["failed"] == 0,
        "a route answers 404 until it is live": facts["wrong_answers"] == 0,
        "every route is live": facts["not_live"] == 0,
        "every route is live after a restart": facts["not_live_restarted"] == 0,
        "versions that say the same cause no pass": facts["unchanged"]["passes"] == 0,
        "versions that say the same publish no graph": facts["unchanged"]["graphs"] == 0,
    }
    for what, holds in held.items():
        context.log.say(f"{what}: {'ok' if holds else 'NOT SO'}")
    return sum(held.values()), len(held) - sum(held.values())
