//! Writes to the cluster: statuses, events, infrastructure, the Lease.
