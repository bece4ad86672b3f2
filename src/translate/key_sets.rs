//! The keys that issuers publish: where they are, and what policies get of them.
//!
//! Where they are is worked out here for both who use it: a pass, which tells the owner of a
//! policy what is wrong with the reference, and the source, which fetches them. Fetching and
//! what becomes of failures is the source's.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use http::uri::{PathAndQuery, Scheme};
use k8s_openapi::api::core::v1::Service;

use super::authorities::{of_config_map, of_secret};
use super::endpoints::{Transport, addresses, external_name, port_of, service_of};
use super::middleware::OURS;
use super::pass::Pass;
use super::references::{From, Grants, To};
use super::{Key, Snapshot};
use crate::policy::jwt::{CaKind, KeyService, KeySet, Refetch, Remote, RemoteKeys};
use crate::policy::{Invalid, duration};

/// Between two fetches.
const REFRESH: Duration = Duration::from_mins(10);
const SHORTEST: Duration = Duration::from_secs(30);
const LONGEST: Duration = Duration::from_hours(24);
/// At a Service.
const PATH: &str = "/.well-known/jwks.json";

/// A place that keys are fetched from: as a Middleware in this namespace says it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeySource {
    pub namespace: String,
    pub remote: Remote,
}

/// For messages.
impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.remote.uri, &self.remote.backend_ref) {
            (Some(uri), _) => f.write_str(uri),
            (None, Some(KeyService { name, namespace, port })) => {
                let namespace = namespace.as_deref().unwrap_or(&self.namespace);
                write!(f, "Service {namespace}/{name}:{port}")
            }
            (None, None) => f.write_str("nowhere"),
        }
    }
}

/// What became of fetching.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KeySetState {
    /// The last good ones, if they are not too old.
    pub keys: Option<Arc<KeySet>>,
    /// Why the last try failed; None: it did not, or there was none yet.
    pub error: Option<String>,
    /// Policies say here that a key is missing.
    pub refetch: Refetch,
}

/// All key sets by where they are from.
pub type KeySets = BTreeMap<KeySource, KeySetState>;

/// Whether policies would be others.
pub(super) fn differ(before: &KeySets, now: &KeySets) -> bool {
    let same = |(a, b): ((&KeySource, &KeySetState), (&KeySource, &KeySetState))| {
        a.0 == b.0 && a.1.keys == b.1.keys && a.1.refetch == b.1.refetch
    };
    before.len() != now.len() || !before.iter().zip(now).all(same)
}

/// The way to a key set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPlace {
    pub to: KeyServer,
    /// What is sent as Host.
    pub authority: String,
    /// Path and query.
    pub path: String,
    /// None: in clear text.
    pub tls: Option<KeyTls>,
    pub refresh: Duration,
}

/// Whom to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyServer {
    /// A host name or an address, which a tenant chose, and a port.
    Named(String, u16),
    /// The endpoints of a Service that may be referred to.
    Endpoints(Vec<SocketAddr>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyTls {
    /// What the certificate must be for.
    pub name: String,
    /// PEM; None: the authorities of the system.
    pub authorities: Option<Vec<u8>>,
}

/// The way to the keys of a source.
///
/// # Errors
/// What is wrong with the reference, by the field below `remote`.
pub fn key_place(snapshot: &Snapshot, source: &KeySource) -> Result<KeyPlace, Invalid> {
    place(snapshot, &Grants::new(snapshot), source)
}

impl Pass<'_> {
    /// The keys that a policy of an object in `namespace` gets, and what its owner is to be told
    /// of them.
    ///
    /// # Errors
    /// Those of [`key_place`].
    pub fn remote_keys(
        &self,
        namespace: &str,
        remote: &Remote,
    ) -> Result<(RemoteKeys, Option<String>), Invalid> {
        let source = KeySource { namespace: namespace.to_owned(), remote: remote.clone() };
        place(self.snapshot, &self.grants, &source)?;
        let Some(state) = self.snapshot.key_sets.get(&source) else {
            return Ok((RemoteKeys::default(), None));
        };
        let KeySetState { keys, error, refetch } = state.clone();
        let missed = error.map(|error| {
            let rest = match keys {
                Some(_) => "those of the last time are used for 24 hours at most",
                None => "requests with tokens get 503 until they can",
            };
            format!("the keys of {source} cannot be fetched: {error}; {rest}")
        });
        Ok((RemoteKeys { keys, refetch }, missed))
    }
}

fn place(
    snapshot: &Snapshot,
    grants: &Grants<'_>,
    source: &KeySource,
) -> Result<KeyPlace, Invalid> {
    let Remote { uri, backend_ref, path, refresh, ca_certificate_ref: _ } = &source.remote;
    let authorities = authorities(snapshot, source)?;
    let refresh = match refresh.as_deref().map(duration::parse) {
        None => REFRESH,
        Some(Ok(refresh)) if (SHORTEST..=LONGEST).contains(&refresh) => refresh,
        Some(Ok(_)) => return Err(Invalid::new("refresh", "write 30s to 24h")),
        Some(Err(message)) => return Err(Invalid::new("refresh", message)),
    };
    match (uri, backend_ref) {
        (Some(_), None) if path.is_some() => {
            Err(Invalid::new("path", "is part of uri; write it there and remove this"))
        }
        (Some(uri), None) => of_uri(snapshot, uri, authorities, refresh),
        (None, Some(service)) => {
            let path = path.as_deref().unwrap_or(PATH);
            if !path.starts_with('/') || path.parse::<PathAndQuery>().is_err() {
                return Err(Invalid::new("path", format!("{path:?} is no path of a URL")));
            }
            let (name, endpoints) = of_service(snapshot, grants, &source.namespace, service)?;
            Ok(KeyPlace {
                to: KeyServer::Endpoints(endpoints),
                authority: format!("{name}:{}", service.port),
                path: path.to_owned(),
                tls: authorities.map(|pem| KeyTls { name, authorities: Some(pem) }),
                refresh,
            })
        }
        _ => Err(Invalid::new("", "set exactly one of uri and backendRef")),
    }
}

fn of_uri(
    snapshot: &Snapshot,
    text: &str,
    authorities: Option<Vec<u8>>,
    refresh: Duration,
) -> Result<KeyPlace, Invalid> {
    let wrong = |message: &str| Invalid::new("uri", format!("{text:?} {message}"));
    let uri: Uri = text.parse().map_err(|_| wrong("is no URL; write https://HOST/PATH"))?;
    let tls = match uri.scheme() {
        Some(scheme) if *scheme == Scheme::HTTPS => true,
        Some(scheme) if *scheme == Scheme::HTTP && snapshot.settings.private_issuers => false,
        Some(scheme) if *scheme == Scheme::HTTP => {
            return Err(wrong(
                "would be fetched in clear text, so that anybody between could put \
                              keys of their own there; use https",
            ));
        }
        _ => return Err(wrong("is no https URL; write https://HOST/PATH")),
    };
    let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'));
    let authority = authority.ok_or_else(|| wrong("has a user or no host; write only the host"))?;
    let host = authority.host();
    let plain = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if plain.is_empty() {
        return Err(wrong("has no host; write https://HOST/PATH"));
    }
    let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let path = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    Ok(KeyPlace {
        to: KeyServer::Named(plain.to_owned(), port),
        authority: authority.as_str().to_owned(),
        path: path.to_owned(),
        tls: tls.then(|| KeyTls { name: plain.to_owned(), authorities }),
        refresh,
    })
}

/// The name of the Service in the cluster, and its endpoints.
fn of_service(
    snapshot: &Snapshot,
    grants: &Grants<'_>,
    own: &str,
    service: &KeyService,
) -> Result<(String, Vec<SocketAddr>), Invalid> {
    let KeyService { name, namespace, port } = service;
    let wrong = |message: String| Invalid::new("backendRef", message);
    let namespace = namespace.as_deref().unwrap_or(own);
    let from = From { group: OURS, kind: "Middleware", namespace: own };
    let key = Key::new(namespace, name);
    if !grants.permit(from, To { group: "", kind: "Service", namespace, name }) {
        return Err(wrong(format!(
            "Service {key} is in another namespace and no ReferenceGrant there allows Middlewares \
             of {own}; ask its owner for one"
        )));
    }
    let Some(found) = snapshot.services.get(&key) else {
        return Err(wrong(format!("Service {key} does not exist; create it")));
    };
    let endpoints = endpoints(snapshot, &key, found, *port).map_err(wrong)?;
    Ok((format!("{name}.{namespace}.svc"), endpoints))
}

fn endpoints(
    snapshot: &Snapshot,
    key: &Key,
    service: &Service,
    port: i32,
) -> Result<Vec<SocketAddr>, String> {
    let is_external = external_name(service).is_some();
    if is_external && !snapshot.settings.external_names {
        return Err(format!("Service {key} is of type ExternalName; use uri instead"));
    }
    let number = u16::try_from(port).ok().filter(|number| *number > 0);
    let number =
        number.filter(|number| is_external || port_of(service, *number, Transport::Tcp).is_some());
    let Some(number) = number else {
        return Err(format!("Service {key} has no port {port}; name one that it has"));
    };
    let slices = snapshot
        .endpoint_slices
        .range(Key::new(&*key.namespace, "")..)
        .take_while(|(slice, _)| slice.namespace == key.namespace)
        .filter(|(_, slice)| service_of(slice) == Some(&*key.name))
        .map(|(_, slice)| &**slice);
    let Snapshot { resolved, settings, .. } = snapshot;
    Ok(addresses(service, (number, Transport::Tcp), slices, resolved, settings).0)
}

/// The certificates that a source names.
fn authorities(snapshot: &Snapshot, source: &KeySource) -> Result<Option<Vec<u8>>, Invalid> {
    let Some(named) = &source.remote.ca_certificate_ref else { return Ok(None) };
    let key = Key::new(&*source.namespace, &*named.name);
    let (kind, found) = match named.kind {
        CaKind::Secret => ("Secret", of_secret(snapshot, &key)),
        CaKind::ConfigMap => ("ConfigMap", of_config_map(snapshot, &key)),
    };
    let wrong = |message| Err(Invalid::new("caCertificateRef", message));
    match found {
        None => wrong(format!("{kind} {key} does not exist; create it")),
        Some(None) => wrong(format!("{kind} {key} has no ca.crt; put the certificates there")),
        Some(Some(pem)) => Ok(Some(pem)),
    }
}
