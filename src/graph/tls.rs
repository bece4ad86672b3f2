//! The TLS of a listener: which certificate is shown for which server name.

use std::sync::Arc;

use rustls::sign::CertifiedKey;

use super::HostMap;

/// A listener's side of TLS, prebuilt: exact server names first, then wildcards.
#[derive(Debug)]
pub struct ListenerTls {
    pub config: Arc<rustls::ServerConfig>,
    /// The same map that `config` resolves by: to learn which name a connection came in under.
    pub certificates: Arc<HostMap<Arc<CertifiedKey>>>,
}
