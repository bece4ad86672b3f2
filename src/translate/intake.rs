//! The protocols of listeners: what can be attached to them, and what they need.

use crate::api::gateway::{Listener, Protocol, TlsMode};
use crate::graph::Transport;

/// What comes in through a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Intake {
    Http,
    Https,
    /// TLS that ends here; what is in it is not looked at.
    TlsTerminate,
    /// TLS that goes on to the backend as it is.
    TlsPassthrough,
    Tcp,
    Udp,
    /// A protocol that is not supported.
    Unknown,
}

impl Intake {
    pub fn of(listener: &Listener) -> Self {
        let mode = listener.tls.as_ref().and_then(|tls| tls.mode.as_ref());
        match (&listener.protocol, mode) {
            (Protocol::Http, _) => Intake::Http,
            (Protocol::Https, _) => Intake::Https,
            (Protocol::Tls, Some(TlsMode::Passthrough)) => Intake::TlsPassthrough,
            (Protocol::Tls, _) => Intake::TlsTerminate,
            (Protocol::Tcp, _) => Intake::Tcp,
            (Protocol::Udp, _) => Intake::Udp,
            (Protocol::Other(_), _) => Intake::Unknown,
        }
    }

    /// The kinds of routes that can be attached.
    pub fn routes(self) -> &'static [&'static str] {
        match self {
            Intake::Http | Intake::Https => &["HTTPRoute", "GRPCRoute"],
            Intake::TlsTerminate => &["TLSRoute", "TCPRoute"],
            Intake::TlsPassthrough => &["TLSRoute"],
            Intake::Tcp => &["TCPRoute"],
            Intake::Udp => &["UDPRoute"],
            Intake::Unknown => &[],
        }
    }

    /// Whether TLS ends here, so that a certificate is needed.
    pub fn needs_certificate(self) -> bool {
        matches!(self, Intake::Https | Intake::TlsTerminate)
    }

    /// Whether a server name or a Host tells its listeners apart.
    pub fn has_hosts(self) -> bool {
        !matches!(self, Intake::Tcp | Intake::Udp | Intake::Unknown)
    }

    pub fn transport(self) -> Transport {
        if self == Intake::Udp { Transport::Udp } else { Transport::Tcp }
    }
}
