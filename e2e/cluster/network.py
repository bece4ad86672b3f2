"""The network namespace that plays the node, and the host's way into it."""

import os

from e2e.cluster import constants as c
from e2e.driver.shell import output

# `nsenter`, not `ip netns exec`: the latter remounts /sys and hides the cgroups.
INSIDE = ["nsenter", f"--net=/run/netns/{c.NAMESPACE}"]

_ROUTED = (c.LOAD_BALANCER_RANGE, c.POD_RANGE, c.SERVICE_RANGE)


def up() -> None:
    output("ip", "netns", "add", c.NAMESPACE)
    output("ip", "link", "add", c.HOST_LINK, "type", "veth",
           "peer", "name", "eth0", "netns", c.NAMESPACE)
    output("ip", "addr", "add", f"{c.HOST_IP}/{c.NODE_PREFIX}", "dev", c.HOST_LINK)
    output("ip", "link", "set", c.HOST_LINK, "up")
    _inside("ip", "addr", "add", f"{c.NODE_IP}/{c.NODE_PREFIX}", "dev", "eth0")
    _inside("ip", "link", "set", "eth0", "up")
    _inside("ip", "link", "set", "lo", "up")
    _inside("ip", "route", "add", "default", "via", c.HOST_IP)
    for network in _ROUTED:
        output("ip", "route", "replace", network, "via", c.NODE_IP)
    _inside("sysctl", "-qw", "net.ipv4.ip_forward=1")
    # What kube-proxy does not know (yet) would bounce between node and host until
    # the client gives up; refused at once, a client simply tries again.
    for network in (c.LOAD_BALANCER_RANGE, c.SERVICE_RANGE):
        _inside("iptables", "-A", "FORWARD", "-d", network,
                "-j", "REJECT", "--reject-with", "icmp-host-unreachable")
    # Absent without the br_netfilter module; then bridged packets skip iptables
    # and a pod cannot reach itself through a Service, which no test needs.
    if os.path.exists("/proc/sys/net/bridge"):
        _inside("sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=1")


def exists() -> bool:
    return os.path.exists(f"/run/netns/{c.NAMESPACE}")


def pids() -> list[int]:
    """Every process that lives in the namespace."""
    return [int(pid) for pid in output("ip", "netns", "pids", c.NAMESPACE, check=False).split()]


def down() -> None:
    """Removes the namespace; the veth pair and the routes through it go with it."""
    output("ip", "netns", "del", c.NAMESPACE, check=False)
    output("ip", "link", "del", c.HOST_LINK, check=False)


def _inside(*command) -> None:
    output(*INSIDE, *command)
