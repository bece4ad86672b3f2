"""Configuration files and arguments of the cluster's components."""

from pathlib import Path

from e2e.cluster import constants as c
from e2e.cluster.pki import kubeconfig_path
from e2e.driver.paths import BIN

PKI, STATE = c.PKI, c.STATE

ETCD = [
    f"--data-dir={STATE}/etcd",
    "--listen-client-urls=http://127.0.0.1:2379",
    "--advertise-client-urls=http://127.0.0.1:2379",
    "--listen-peer-urls=http://127.0.0.1:2380",
    "--unsafe-no-fsync",  # the data dies with the cluster
]

API_SERVER = [
    "--etcd-servers=http://127.0.0.1:2379",
    f"--advertise-address={c.NODE_IP}",
    "--bind-address=0.0.0.0",
    f"--secure-port={c.API_PORT}",
    f"--tls-cert-file={PKI}/apiserver.crt",
    f"--tls-private-key-file={PKI}/apiserver.key",
    f"--client-ca-file={PKI}/ca.crt",
    f"--kubelet-client-certificate={PKI}/admin.crt",
    f"--kubelet-client-key={PKI}/admin.key",
    f"--kubelet-certificate-authority={PKI}/ca.crt",
    "--kubelet-preferred-address-types=InternalIP",
    f"--service-account-key-file={PKI}/sa.pub",
    f"--service-account-signing-key-file={PKI}/sa.key",
    "--service-account-issuer=https://kubernetes.default.svc",
    f"--service-cluster-ip-range={c.SERVICE_RANGE}",
    "--authorization-mode=Node,RBAC",
    "--enable-admission-plugins=NodeRestriction",
    "--allow-privileged=true",
    # BackendTLSPolicy and Gateways may take their authorities from these.
    "--feature-gates=ClusterTrustBundle=true",
    f"--runtime-config={c.TRUST_BUNDLES}=true",
]


def _as(name: str) -> list[str]:
    kubeconfig = kubeconfig_path(name)
    return [
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        "--leader-elect=false",
    ]


CONTROLLER_MANAGER = [
    *_as("controllers"),
    f"--service-account-private-key-file={PKI}/sa.key",
    f"--root-ca-file={PKI}/ca.crt",
    "--use-service-account-credentials",
    f"--cluster-cidr={c.POD_RANGE}",
    "--allocate-node-cidrs",
    f"--cluster-signing-cert-file={PKI}/ca.crt",
    f"--cluster-signing-key-file={PKI}/ca.key",
]

SCHEDULER = _as("scheduler")

CONTAINERD_CONFIG = STATE / "containerd" / "config.toml"
KUBELET_CONFIG = STATE / "kubelet.yaml"
PROXY_CONFIG = STATE / "proxy.yaml"
_CNI = STATE / "cni"

KUBELET = [
    f"--config={KUBELET_CONFIG}",
    f"--kubeconfig={kubeconfig_path('kubelet')}",
    f"--hostname-override={c.NODE}",
    f"--node-ip={c.NODE_IP}",
    f"--root-dir={STATE}/kubelet",
]

PROXY = [f"--config={PROXY_CONFIG}"]


def write() -> None:
    """Writes the files that the components read."""
    for folder in (CONTAINERD_CONFIG.parent, _CNI, STATE / "kubelet"):
        folder.mkdir(parents=True, exist_ok=True)
    Path(c.CONTAINERD_SOCKET).parent.mkdir(parents=True, exist_ok=True)
    CONTAINERD_CONFIG.write_text(_containerd())
    (_CNI / "10-bridge.conflist").write_text(_cni())
    KUBELET_CONFIG.write_text(_kubelet())
    PROXY_CONFIG.write_text(_proxy())


def _containerd() -> str:
    return f"""version = 3
root = "{STATE}/containerd/root"
state = "{STATE}/containerd/state"
[grpc]
  address = "{c.CONTAINERD_SOCKET}"
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "{c.PAUSE_IMAGE}"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["{BIN}"]
    conf_dir = "{_CNI}"
  [plugins."io.containerd.cri.v1.runtime".containerd]
    default_runtime_name = "runc"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
        BinaryName = "{BIN}/runc"
        SystemdCgroup = false
"""


def _cni() -> str:
    return f"""{{"cniVersion": "1.0.0", "name": "tidegate-e2e", "plugins": [
 {{"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
  "ipam": {{"type": "host-local", "ranges": [[{{"subnet": "{c.NODE_POD_RANGE}"}}]],
           "routes": [{{"dst": "0.0.0.0/0"}}]}}}},
 {{"type": "portmap", "capabilities": {{"portMappings": true}}}}]}}
"""


def _kubelet() -> str:
    """The same file serves cgroup v1 and v2: v1 only has to be allowed by name."""
    return f"""apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication:
  anonymous: {{enabled: false}}
  webhook: {{enabled: true}}
  x509: {{clientCAFile: "{PKI}/ca.crt"}}
authorization: {{mode: Webhook}}
tlsCertFile: "{PKI}/kubelet.crt"
tlsPrivateKeyFile: "{PKI}/kubelet.key"
clusterDNS: ["{c.DNS_SERVICE_IP}"]
clusterDomain: cluster.local
cgroupDriver: cgroupfs
{_cgroup_version()}
enforceNodeAllocatable: []
failSwapOn: false
localStorageCapacityIsolation: false
containerRuntimeEndpoint: "unix://{c.CONTAINERD_SOCKET}"
evictionHard: {{memory.available: "0%", nodefs.available: "0%",
  imagefs.available: "0%", nodefs.inodesFree: "0%"}}
imageGCHighThresholdPercent: 100
maxPods: 200
syncFrequency: 1s
"""


def _cgroup_version() -> str:
    unified = Path("/sys/fs/cgroup/cgroup.controllers").exists()
    return "# cgroup v2" if unified else "failCgroupV1: false"


def _proxy() -> str:
    return f"""apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {{kubeconfig: "{kubeconfig_path('proxy')}"}}
mode: iptables
clusterCIDR: {c.POD_RANGE}
hostnameOverride: {c.NODE}
conntrack: {{maxPerCore: 0, min: 0}}
"""
