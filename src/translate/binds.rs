//! The ports that are bound, with the certificates that are shown on them.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustls::sign::CertifiedKey;

use crate::graph::{ClientAuth, GraphBuilder, HostMap, ListenerTls, Protocol};

/// By the port that is bound.
#[derive(Debug, Default)]
pub(super) struct Binds {
    ports: BTreeMap<u16, Bind>,
}

#[derive(Debug)]
struct Bind {
    public: u16,
    tls: Option<Tls>,
}

#[derive(Debug, Default)]
struct Tls {
    certificates: HostMap<Arc<CertifiedKey>>,
    first: Option<Arc<CertifiedKey>>,
}

impl Binds {
    /// Binds `port`, which users see as `public`. False if the other protocol is bound there.
    pub fn bind(&mut self, port: u16, public: u16, tls: bool) -> bool {
        let bind =
            self.ports.entry(port).or_insert_with(|| Bind { public, tls: tls.then(Tls::default) });
        bind.tls.is_some() == tls
    }

    /// Shows `certificate` to those who ask for `hostname` on a port that is bound with TLS.
    /// Whoever comes first for a name keeps it.
    pub fn certify(&mut self, port: u16, hostname: &str, certificate: &Arc<CertifiedKey>) {
        let Some(tls) = self.ports.get_mut(&port).and_then(|bind| bind.tls.as_mut()) else {
            return;
        };
        tls.first.get_or_insert_with(|| Arc::clone(certificate));
        if tls.certificates.get_exact(hostname).is_none() {
            tls.certificates.insert(hostname, Arc::clone(certificate));
        }
    }

    pub fn install(self, graph: &mut GraphBuilder) {
        for (port, Bind { public, tls }) in self.ports {
            let protocol = match tls {
                None => Protocol::Http,
                Some(tls) => Protocol::Tls(Arc::new(ListenerTls::new(
                    tls.certificates,
                    tls.first,
                    &ClientAuth::None,
                ))),
            };
            graph.listener(port, public, protocol);
        }
    }
}
