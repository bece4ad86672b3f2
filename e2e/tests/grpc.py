"""GRPCRoutes, with the gRPC project's own client from outside."""

from e2e.cluster import tools
from e2e.driver.shell import CommandFailed, output
from e2e.lib import certificates, http, manifests
from e2e.lib.manifests import https_listener, listener, route_of
from e2e.lib.wait import wait_for

ORDER = 15

_CASES = ("empty_unary", "large_unary", "client_streaming", "server_streaming", "ping_pong",
          "status_code_and_message", "custom_metadata", "unimplemented_method")
_SERVICE = "grpc.testing.TestService"


def _ref(name: str = "interop", port: int = 85, **parts) -> dict:
    return {"name": name, "port": port, **parts}


def _call(address, case: str, *flags: str) -> str:
    """Runs a case of the client; its words, or an assertion that carries them."""
    try:
        return output("timeout", "30", tools.path("grpc-client"), f"--server_host={address[0]}",
                      f"--server_port={address[1]}", f"--test_case={case}", *flags)
    except CommandFailed as error:
        raise AssertionError(str(error)) from error


def _fails_with(address, case: str, words: str) -> None:
    def failed():
        try:
            _call(address, case)
        except AssertionError as error:
            assert words in str(error), error
            return True
        return False

    wait_for(failed, 15, f"{case} fails with {words}")


def _interop(t, *routes: dict, listeners=None) -> tuple[str, int]:
    t.peer("interop", command=["/grpc-server"])
    t.gateway(listeners=listeners or [listener("HTTP", 80)])
    t.apply(*routes)
    return t.gateway_address(port=(listeners or [{"port": 80}])[0]["port"])


def _works(address, *flags: str) -> None:
    wait_for(lambda: _call(address, "empty_unary", *flags) is not None, 15, "a call succeeds")


def test_the_interop_cases_pass_over_h2c(t):
    address = _interop(t, route_of("GRPCRoute", "all", _ref()))
    _works(address)
    for case in _CASES:
        _call(address, case)
    t.condition("grpcroute", "all", "Accepted", "True", "Accepted")


def test_the_interop_cases_pass_over_tls(t):
    host = "grpc.example"
    certificate, key = certificates.self_signed(host)
    t.apply(certificates.secret("cert", certificate, key))
    address = _interop(t, route_of("GRPCRoute", "all", _ref(), hostnames=[host]),
                       listeners=[https_listener(host, "cert")])
    with certificates.file(certificate) as authority:
        flags = ("--use_tls", "--use_test_ca", f"--ca_file={authority}",
                 f"--server_host_override={host}")
        _works(address, *flags)
        for case in _CASES:
            _call(address, case, *flags)


def test_a_method_match_takes_its_method_only(t):
    route = route_of("GRPCRoute", "one", _ref())
    method = {"service": _SERVICE, "method": "EmptyCall"}
    route["spec"]["rules"][0]["matches"] = [{"method": method}]
    address = _interop(t, route)
    _works(address)
    _fails_with(address, "large_unary", "code = Unimplemented")


def test_a_service_without_endpoints_is_unavailable_to_a_client(t):
    t.apply(*manifests.peer("interop", replicas=0, command=["/grpc-server"]))
    t.gateway(listeners=[listener("HTTP", 80)])
    t.apply(route_of("GRPCRoute", "all", _ref()))
    _fails_with(t.gateway_address(), "empty_unary", "code = Unavailable")


def test_a_missing_backend_is_unavailable_and_named_in_the_status(t):
    t.gateway(listeners=[listener("HTTP", 80)])
    t.apply(route_of("GRPCRoute", "all", _ref("nowhere")))
    _fails_with(t.gateway_address(), "empty_unary", "code = Unavailable")
    found = t.condition("grpcroute", "all", "ResolvedRefs", "False", "BackendNotFound")
    assert "nowhere" in found["message"], found


def test_an_http_route_and_a_grpc_route_share_a_listener(t):
    t.peer()
    address = _interop(t, route_of("GRPCRoute", "grpc", _ref(), hostnames=["127.example"]),
                       route_of("HTTPRoute", "http", {"name": "peer", "port": 80},
                                hostnames=["http.example"]))
    assert http.get_when(address, "http.example").service == "peer"
    t.condition("grpcroute", "grpc", "Accepted", "True", "Accepted")
