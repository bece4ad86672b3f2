"""The kinds of cluster that a run can use."""

from e2e.cluster.existing import ExistingCluster
from e2e.cluster.kind import KindCluster
from e2e.cluster.local import LocalCluster

KINDS = {"local": LocalCluster, "kind": KindCluster, "existing": ExistingCluster}


def make(name: str):
    return KINDS[name]()
