//! CA certificates that objects refer to: ConfigMaps and Secrets with `ca.crt`, and
//! ClusterTrustBundles.
//!
//! Only where they are found. Whether the certificates are good is known to who uses them.

use super::pass::Pass;
use super::references::{From, To};
use super::{Key, Snapshot};

/// The group of ClusterTrustBundles.
const CERTIFICATES: &str = "certificates.k8s.io";
const CA_CRT: &str = "ca.crt";

/// An object with CA certificates, as a reference names it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Authority<'a> {
    pub group: &'a str,
    pub kind: &'a str,
    pub name: &'a str,
    /// The referrer's own by default.
    pub namespace: Option<&'a str>,
}

impl Pass<'_> {
    /// The PEM that a reference leads to.
    ///
    /// # Errors
    /// The condition's reason (`InvalidCACertificateRef`, `InvalidCACertificateKind`,
    /// `RefNotPermitted`), and the cause and the remedy.
    pub fn authority(
        &self,
        from: From<'_>,
        authority: Authority<'_>,
    ) -> Result<Vec<u8>, (&'static str, String)> {
        let Authority { group, kind, name, namespace } = authority;
        let bundle = (group, kind) == (CERTIFICATES, "ClusterTrustBundle");
        if bundle {
            return of_bundle(self.snapshot, name, namespace)
                .map_err(|message| ("InvalidCACertificateRef", message));
        }
        if !group.is_empty() || !matches!(kind, "ConfigMap" | "Secret") {
            let message = format!(
                "{kind} of group {group:?} is not supported; use a ConfigMap, a Secret or a \
                 ClusterTrustBundle of {CERTIFICATES}"
            );
            return Err(("InvalidCACertificateKind", message));
        }
        let key = Key::new(namespace.unwrap_or(from.namespace), name);
        let to = To { group, kind, namespace: &key.namespace, name };
        if !self.grants.permit(from, to) {
            let message = format!(
                "{kind} {key} is in another namespace and no ReferenceGrant there allows {}s of \
                 {}; ask its owner for one",
                from.kind, from.namespace
            );
            return Err(("RefNotPermitted", message));
        }
        let found = match kind {
            "Secret" => of_secret(self.snapshot, &key),
            _ => of_config_map(self.snapshot, &key),
        };
        match found {
            None => Err(format!("{kind} {key} does not exist; create it")),
            Some(None) => Err(format!("{kind} {key} has no {CA_CRT}; put the certificates there")),
            Some(Some(pem)) => Ok(pem),
        }
        .map_err(|message| ("InvalidCACertificateRef", message))
    }
}

fn of_bundle(snapshot: &Snapshot, name: &str, namespace: Option<&str>) -> Result<Vec<u8>, String> {
    if namespace.is_some() {
        return Err("a ClusterTrustBundle has no namespace; leave it out".to_owned());
    }
    let bundle = snapshot.cluster_trust_bundles.get(&Key::new("", name));
    let bundle =
        bundle.ok_or_else(|| format!("ClusterTrustBundle {name} does not exist; create it"))?;
    Ok(bundle.spec.trust_bundle.clone().into_bytes())
}

pub(super) fn of_secret(snapshot: &Snapshot, key: &Key) -> Option<Option<Vec<u8>>> {
    let secret = snapshot.secrets.get(key)?;
    let data = secret.data.as_ref().and_then(|data| data.get(CA_CRT)).map(|ca| ca.0.clone());
    let text = secret.string_data.as_ref().and_then(|data| data.get(CA_CRT));
    Some(data.or_else(|| text.map(|text| text.clone().into_bytes())))
}

pub(super) fn of_config_map(snapshot: &Snapshot, key: &Key) -> Option<Option<Vec<u8>>> {
    let map = snapshot.config_maps.get(key)?;
    let text = map.data.as_ref().and_then(|data| data.get(CA_CRT));
    let data = map.binary_data.as_ref().and_then(|data| data.get(CA_CRT));
    Some(text.map(|text| text.clone().into_bytes()).or_else(|| data.map(|ca| ca.0.clone())))
}
