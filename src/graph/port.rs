//! Ports as the data plane binds them: TCP 53 and UDP 53 are two.
//!
//! Who wants which is in the [`RouteGraph`]; binding them is the proxy's work.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::RouteGraph;

/// The protocol below a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    Tcp,
    Udp,
}

impl Transport {
    /// As in a Service's `ports[].protocol`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Transport::Tcp => "TCP",
            Transport::Udp => "UDP",
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// By port: bound, or why not, as a message for people.
pub type Bound = BTreeMap<(Transport, u16), Result<(), String>>;

impl RouteGraph {
    /// Every port that is to be bound.
    pub fn ports(&self) -> BTreeSet<(Transport, u16)> {
        let tcp = self.listeners.keys().map(|port| (Transport::Tcp, *port));
        tcp.chain(self.datagrams.keys().map(|port| (Transport::Udp, *port))).collect()
    }
}
