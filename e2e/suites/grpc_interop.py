"""The gRPC project's own interop client and server, direct and through Tidegate."""

import tempfile
from pathlib import Path

from e2e.cluster import tools
from e2e.driver.shell import CommandFailed, run as run_program
from e2e.lib import certificates, results, standalone
from e2e.lib.standalone import Standalone, free_port

_FILE = "grpc-interop.md"
_COLUMNS = ["case", "direct", "h2c", "TLS"]
_HOST = "interop.example"

# The cases of the project's own script: the others need accounts of a cloud or several servers.
_CASES = """
empty_unary large_unary client_streaming server_streaming ping_pong empty_stream
timeout_on_sleeping_server cancel_after_begin cancel_after_first_response status_code_and_message
special_status_message custom_metadata unimplemented_method unimplemented_service
orca_per_rpc orca_oob rpc_soak channel_soak
""".split()
# As in that script: the ORCA cases look at what this balancer was told.
_BALANCER = '{"loadBalancingConfig": [{"test_backend_metrics_load_balancer": {}}]}'


def run(context) -> tuple[int, int]:
    """Every case that passes direct must pass through Tidegate, over h2c and TLS."""
    plain, secure, port = (free_port() for _ in range(3))
    certificate, key = certificates.self_signed(_HOST)
    objects = [
        *standalone.gateway(plain, secure),
        standalone.secret(certificates.secret("cert", certificate, key)),
        *standalone.backend("interop", port, "kubernetes.io/h2c"),
        standalone.route("interop", "GRPCRoute"),
    ]
    server = standalone.start(context.log, tools.path("grpc-server"), f"--port={port}")
    passed = failed = 0
    try:
        standalone.wait_listens(server, port)
        with Standalone(context.log, objects), tempfile.NamedTemporaryFile("w") as authority:
            authority.write(certificate)
            authority.flush()
            for case in _cases(context):
                row = _one(context, case, port, plain, secure, Path(authority.name))
                passed += row.count("passed") - 1
                failed += row.count("FAILED")
    finally:
        standalone.stop(server)
    return passed, failed


def _cases(context) -> list[str]:
    wanted = context.options.test
    return [case for case in _CASES if not wanted or wanted in case]


def _one(context, case: str, direct: int, plain: int, secure: int, authority: Path) -> list[str]:
    """A case three ways, as a row of the table. What fails direct proves nothing."""
    tls = ["--use_tls", "--use_test_ca", f"--ca_file={authority}",
           f"--server_host_override={_HOST}"]
    verdicts = ["passed" if _passes(context, case, direct) else "failed"]
    for port, flags in ((plain, []), (secure, tls)):
        if verdicts[0] == "passed":
            verdicts.append("passed" if _passes(context, case, port, *flags) else "FAILED")
        else:
            verdicts.append("-")
    context.log.say(results.row(_FILE, _COLUMNS, [case, *verdicts]))
    return verdicts if verdicts[0] == "passed" else ["passed"]


def _passes(context, case: str, port: int, *flags: str) -> bool:
    try:
        run_program(context.log, "timeout", "60", tools.path("grpc-client"),
                    f"--server_host={standalone.HOST}", f"--server_port={port}",
                    f"--test_case={case}", f"--service_config_json={_BALANCER}", *flags)
        return True
    except CommandFailed:
        return False
