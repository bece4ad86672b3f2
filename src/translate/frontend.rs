//! Client certificates: which authorities a Gateway believes on which port
//! (`spec.tls.frontend`, GEP-91).
//!
//! They hold for all HTTPS listeners of a port, ListenerSets' too. While none of the authorities
//! can be had, these listeners are not served: without them everybody would be let in.

use std::collections::HashMap;

use super::authorities::Authority;
use super::intake::Intake;
use super::listeners::{ListenerState, Parent};
use super::pass::Pass;
use super::references::From;
use super::status::Problem;
use super::{Key, ObjectKind};
use crate::api::gateway::{
    FrontendTls, FrontendTlsValidation, FrontendValidationMode, GROUP, Gateway, ObjectReference,
};
use crate::graph::ClientAuth;

/// The reason of listeners that cannot tell one client from another.
pub(super) const NO_AUTHORITY: &str = "NoValidCACertificate";

/// What a validation asks of clients.
#[derive(Clone, Debug)]
struct Demand {
    /// Or why listeners must not be served (`Accepted`).
    clients: Result<ClientAuth, Problem>,
    /// The first reference that leads to no authority (`ResolvedRefs`).
    unresolved: Option<Problem>,
}

impl Demand {
    /// The owner of a ListenerSet is told no more than that the Gateway's owner must see to it.
    fn seen_by(self, parent: Parent<'_>) -> Self {
        let veil = |problem: Problem| match parent {
            Parent::Gateway(_) => problem,
            Parent::ListenerSet(_) => {
                let message = "the Gateway demands client certificates, and its references to CA \
                               certificates are not good; ask its owner";
                Problem::new(problem.reason, "", message)
            }
        };
        Demand { clients: self.clients.map_err(veil), unresolved: self.unresolved.map(veil) }
    }
}

/// The validations of a Gateway: by port, or None for the default.
type Demands = HashMap<Option<i32>, Demand>;

/// Whether clients without a valid certificate are let in somewhere.
pub(super) fn is_insecure(gateway: &Gateway) -> bool {
    let frontend = gateway.spec.tls.as_ref().and_then(|tls| tls.frontend.as_ref());
    let all = frontend.iter().flat_map(|frontend| {
        let per_port = frontend.per_port.iter().map(|port| &port.tls);
        std::iter::once(&frontend.default).chain(per_port)
    });
    let insecure = Some(FrontendValidationMode::AllowInsecureFallback);
    all.filter_map(|tls| tls.validation.as_ref()).any(|validation| validation.mode == insecure)
}

impl<'s> Pass<'s> {
    /// Says of each HTTPS listener of a Gateway what its clients must show.
    pub fn frontend(
        &mut self,
        key: &Key,
        gateway: &'s Gateway,
        listeners: &mut [ListenerState<'s>],
    ) {
        let tls = gateway.spec.tls.as_ref();
        let Some(frontend) = tls.and_then(|tls| tls.frontend.as_ref()) else { return };
        let mut demands = Demands::new();
        let https = |l: &&mut ListenerState<'_>| l.intake == Intake::Https && l.is_accepted();
        for listener in listeners.iter_mut().filter(https) {
            let (port, at, validation) = validation(frontend, listener.port);
            let Some(validation) = validation else { continue };
            let demand = demands.entry(port).or_insert_with(|| {
                let demand = self.demand(key, &at, validation);
                for problem in
                    demand.clients.as_ref().err().iter().chain(&demand.unresolved.as_ref())
                {
                    self.warn(ObjectKind::Gateway, key, &gateway.metadata, problem);
                }
                demand
            });
            let Demand { clients, unresolved } = demand.clone().seen_by(listener.parent);
            if listener.unresolved.is_none() {
                listener.unresolved = unresolved;
            }
            match clients {
                Ok(clients) => listener.clients = clients,
                Err(problem) => listener.refused = Some(problem),
            }
        }
    }

    fn demand(&self, key: &Key, at: &str, validation: &FrontendTlsValidation) -> Demand {
        let (mut authorities, mut unresolved) = (Vec::new(), None);
        for (i, reference) in validation.ca_certificate_refs.iter().enumerate() {
            match self.client_authority(key, reference) {
                Ok(pem) => {
                    authorities.extend(pem);
                    authorities.push(b'\n');
                }
                Err((reason, message)) => {
                    let field = format!("{at}.caCertificateRefs[{i}]");
                    unresolved.get_or_insert(Problem::new(reason, field, message));
                }
            }
        }
        let clients = match &validation.mode {
            _ if authorities.is_empty() => Err(Problem::new(
                NO_AUTHORITY,
                format!("{at}.caCertificateRefs"),
                "none of the Gateway's references leads to a CA certificate, and without one no \
                 client can be verified; see ResolvedRefs",
            )),
            None | Some(FrontendValidationMode::AllowValidOnly) => {
                ClientAuth::require(&authorities)
                    .map_err(|message| Problem::new(NO_AUTHORITY, at, message))
            }
            Some(FrontendValidationMode::AllowInsecureFallback) => Ok(ClientAuth::Offer),
            Some(FrontendValidationMode::Other(mode)) => {
                let message = format!(
                    "{mode:?} is not supported; use AllowValidOnly or AllowInsecureFallback"
                );
                Err(Problem::new("UnsupportedValue", format!("{at}.mode"), message))
            }
        };
        Demand { clients, unresolved }
    }

    /// The certificates that a reference leads to, in PEM and all of them good.
    ///
    /// # Errors
    /// A condition's reason, and the cause and the remedy.
    fn client_authority(
        &self,
        gateway: &Key,
        reference: &ObjectReference,
    ) -> Result<Vec<u8>, (&'static str, String)> {
        let ObjectReference { group, kind, name, namespace } = reference;
        let namespace = namespace.as_deref();
        let from = From { group: GROUP, kind: "Gateway", namespace: &gateway.namespace };
        let pem = self.authority(from, Authority { group, kind, name, namespace })?;
        match ClientAuth::require(&pem) {
            Ok(_) => Ok(pem),
            Err(message) => Err(("InvalidCACertificateRef", format!("{kind} {name}: {message}"))),
        }
    }
}

/// The validation of a port, where it stands, and for which port alone.
fn validation(
    frontend: &FrontendTls,
    port: u16,
) -> (Option<i32>, String, Option<&FrontendTlsValidation>) {
    let port = i32::from(port);
    let of_port = frontend.per_port.iter().position(|own| own.port == port);
    match of_port {
        Some(i) => {
            let at = format!("spec.tls.frontend.perPort[{i}].tls.validation");
            (Some(port), at, frontend.per_port[i].tls.validation.as_ref())
        }
        None => {
            let at = "spec.tls.frontend.default.validation".to_owned();
            (None, at, frontend.default.validation.as_ref())
        }
    }
}
