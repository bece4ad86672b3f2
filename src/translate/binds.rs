//! The ports that are bound, with the certificates that are shown on them and those that are
//! demanded there.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustls::sign::CertifiedKey;

use crate::graph::{ClientAuth, GraphBuilder, HostMap, ListenerTls, Protocol};

/// By the TCP port that is bound.
#[derive(Debug, Default)]
pub(super) struct Binds {
    ports: BTreeMap<u16, Bind>,
}

#[derive(Debug)]
enum Bind {
    Http {
        public: u16,
    },
    Tls {
        public: u16,
        tls: Tls,
    },
    /// The stream binds it.
    Stream,
}

#[derive(Debug, Default)]
struct Tls {
    certificates: HostMap<Arc<CertifiedKey>>,
    first: Option<Arc<CertifiedKey>>,
    clients: ClientAuth,
}

impl Binds {
    /// Binds `port`, which users see as `public`. False if the other protocol is bound there.
    pub fn bind(&mut self, port: u16, public: u16, tls: bool) -> bool {
        let bind = self.ports.entry(port).or_insert_with(|| match tls {
            true => Bind::Tls { public, tls: Tls::default() },
            false => Bind::Http { public },
        });
        match bind {
            Bind::Http { .. } => !tls,
            Bind::Tls { .. } => tls,
            Bind::Stream => false,
        }
    }

    /// Keeps `port` for a stream over TCP. False if something else is bound there.
    pub fn stream(&mut self, port: u16) -> bool {
        matches!(self.ports.entry(port).or_insert(Bind::Stream), Bind::Stream)
    }

    /// Asks the clients of a port that is bound with TLS for certificates. All listeners of a
    /// Gateway that ask for them on one port ask for the same.
    pub fn demand(&mut self, port: u16, clients: &ClientAuth) {
        if let (Some(Bind::Tls { tls, .. }), ClientAuth::Require(_) | ClientAuth::Offer) =
            (self.ports.get_mut(&port), clients)
        {
            tls.clients = clients.clone();
        }
    }

    /// Shows `certificate` to those who ask for `hostname` on a port that is bound with TLS.
    /// Whoever comes first for a name keeps it.
    pub fn certify(&mut self, port: u16, hostname: &str, certificate: &Arc<CertifiedKey>) {
        let Some(Bind::Tls { tls, .. }) = self.ports.get_mut(&port) else { return };
        tls.first.get_or_insert_with(|| Arc::clone(certificate));
        if tls.certificates.get_exact(hostname).is_none() {
            tls.certificates.insert(hostname, Arc::clone(certificate));
        }
    }

    pub fn install(self, graph: &mut GraphBuilder) {
        for (port, bind) in self.ports {
            match bind {
                Bind::Http { public } => graph.listener(port, public, Protocol::Http),
                Bind::Tls { public, tls: Tls { certificates, first, clients } } => {
                    let tls = ListenerTls::new(port, certificates, first, &clients);
                    graph.listener(port, public, Protocol::Tls(Arc::new(tls)));
                }
                Bind::Stream => {}
            }
        }
    }
}
