"""Names and address ranges of the local cluster, all in one place.

The host routes the pod, service and load-balancer ranges to the node's
address, so tests reach a Service as a client outside of the cluster does.
"""

from e2e.driver.paths import STATE

NAMESPACE = "tidegate-e2e"  # the network namespace that is the node
HOST_LINK = "tidegate-e2e0"  # the host's end of the veth pair
NODE = "node1"

HOST_IP = "172.30.0.1"
NODE_IP = "172.30.0.2"
NODE_PREFIX = 24
POD_RANGE = "10.244.0.0/16"
NODE_POD_RANGE = "10.244.0.0/24"
SERVICE_RANGE = "10.96.0.0/16"
API_SERVICE_IP = "10.96.0.1"
DNS_SERVICE_IP = "10.96.0.10"

LOAD_BALANCER_RANGE = "172.30.255.0/24"
LOAD_BALANCER_FIRST, LOAD_BALANCER_LAST = 10, 239  # the pool's last octets
STATIC_FIRST, STATIC_LAST = 240, 249  # given only to those who ask for them
USABLE_ADDRESS = "172.30.255.249"  # one of these
UNUSABLE_ADDRESS = "192.0.2.1"  # TEST-NET-1: never in the pool

API_PORT = 6443
API_URL = f"https://{NODE_IP}:{API_PORT}"

PKI = STATE / "pki"
LOG = STATE / "log"
PIDS = STATE / "pids"
KUBECONFIG = STATE / "admin.kubeconfig"
CONTAINERD_SOCKET = "/run/tidegate-e2e/containerd.sock"  # short: a socket path ends at 107 bytes

TRUST_BUNDLES = "certificates.k8s.io/v1beta1/clustertrustbundles"  # off by default

PAUSE_IMAGE = "localhost/pause:1"
COREDNS_IMAGE = "localhost/coredns:1"
ECHO_IMAGE = "localhost/echo:1"
PEER_IMAGE = "localhost/peer:1"
REDIS_IMAGE = "localhost/redis:1"
TIDEGATE_IMAGE = "localhost/tidegate:e2e"
