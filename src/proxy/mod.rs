//! The data plane: workers, connections, forwarding.
