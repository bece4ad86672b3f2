//! The Services that find the pods of XBackends.
//!
//! A headless Service for each EndpointSelector, under a name that nobody can rely on (GEP-4894):
//! only its EndpointSlices are used. It is found again by label and owner, and goes with its
//! owner. Should two leaders have made one each, the older stays.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::infrastructure::{CONTROLLER, MANAGED_BY, TIDEGATE, is_ours, label_value};
use super::pass::{Pass, created, map_of};
use super::x_backend::{Place, XState};
use super::{InfrastructureWrite, Key, Snapshot};
use crate::api::gateway::XBackend;

/// The label with the name of the XBackend.
const X_BACKEND: &str = "tidegate.dev/xbackend";
/// Longest beginning of a name: the API server adds five letters.
const MAX_PREFIX: usize = 50;

/// The Services that were made, by namespace and label, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Made<'s> {
    by: BTreeMap<(&'s str, &'s str), Vec<(&'s Key, &'s Service)>>,
}

impl<'s> Made<'s> {
    pub fn find(snapshot: &'s Snapshot) -> Self {
        let mut made = Made::default();
        let controller = &snapshot.settings.controller_name;
        for (key, service) in snapshot.services.iter() {
            let label = map_of(service.metadata.labels.as_ref()).get(X_BACKEND);
            if let Some(label) = label.filter(|_| is_ours(&service.metadata, controller)) {
                made.by.entry((&*key.namespace, &**label)).or_default().push((key, &**service));
            }
        }
        for services in made.by.values_mut() {
            services.sort_by_key(|(key, service)| (created(&service.metadata), *key));
        }
        made
    }

    /// Those of one XBackend.
    pub fn of(&self, key: &Key, object: &XBackend) -> Vec<(&'s Key, &'s Service)> {
        let label = label_value(&key.name);
        let named = self.by.get(&(&*key.namespace, &*label)).into_iter().flatten();
        let uid = object.metadata.uid.as_deref().unwrap_or_default();
        let owned = |service: &Service| {
            let owners = service.metadata.owner_references.iter().flatten();
            owners.into_iter().any(|owner| owner.uid == uid && owner.name == key.name)
        };
        named.filter(|(_, service)| owned(service)).copied().collect()
    }
}

impl Pass<'_> {
    /// Asks for the Services of the XBackends that are reached.
    pub fn x_backend_services(&mut self) {
        if !self.snapshot.settings.cluster {
            return;
        }
        let backends = std::mem::take(&mut self.x_backends);
        for (key, state) in &backends.all {
            let there = backends.made.of(key, state.object);
            let is_reached = !self.backends.reached.gateways("XBackend", key, |_| true).is_empty();
            // What cannot be read keeps what it has.
            let Ok(wanted) = &state.wanted else { continue };
            let keep = usize::from(matches!(wanted.place, Place::Pods));
            for (key, _) in there.iter().skip(keep) {
                self.infrastructure.push(InfrastructureWrite::DeleteService((*key).clone()));
            }
            let kept = there.first().map(|(_, service)| *service);
            if keep == 0 || (kept.is_none() && !is_reached) {
                continue;
            }
            let controller = &self.snapshot.settings.controller_name;
            let service = service(key, state, wanted.port, kept, controller);
            if kept != Some(&service) {
                self.infrastructure.push(InfrastructureWrite::Service(Box::new(service)));
            }
        }
        self.x_backends = backends;
    }
}

/// What the Service should be, over what stands there.
fn service(
    key: &Key,
    state: &XState<'_>,
    port: u16,
    there: Option<&Service>,
    controller: &str,
) -> Service {
    let mut service = there.cloned().unwrap_or_else(|| Service {
        metadata: meta(key, state.object, controller),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".to_owned()),
            type_: Some("ClusterIP".to_owned()),
            ..ServiceSpec::default()
        }),
        status: None,
    });
    let spec = service.spec.get_or_insert_default();
    let selector = state.object.spec.endpoint_selector.as_ref();
    spec.selector = selector.map(|selector| selector.match_labels.clone());
    let number = i32::from(port);
    let target = Some(IntOrString::Int(number));
    let fits = |ports: &Vec<ServicePort>| matches!(&ports[..], [port] if port.port == number && port.target_port == target);
    if !spec.ports.as_ref().is_some_and(fits) {
        spec.ports = Some(vec![ServicePort {
            port: number,
            target_port: target,
            protocol: Some("TCP".to_owned()),
            ..ServicePort::default()
        }]);
    }
    service
}

fn meta(key: &Key, object: &XBackend, controller: &str) -> ObjectMeta {
    let plain = key.name.replace('.', "-");
    let letter = plain.starts_with(|c: char| c.is_ascii_alphabetic());
    let mut prefix = if letter { plain } else { format!("x-{plain}") };
    prefix.truncate(MAX_PREFIX);
    let labels = [(MANAGED_BY, TIDEGATE.to_owned()), (X_BACKEND, label_value(&key.name))];
    ObjectMeta {
        generate_name: Some(format!("{}-", prefix.trim_end_matches('-'))),
        namespace: Some(key.namespace.clone()),
        labels: Some(labels.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()),
        annotations: Some([(CONTROLLER.to_owned(), controller.to_owned())].into()),
        owner_references: Some(vec![OwnerReference {
            api_version: "gateway.networking.x-k8s.io/v1alpha1".to_owned(),
            kind: "XBackend".to_owned(),
            name: key.name.clone(),
            uid: object.metadata.uid.clone().unwrap_or_default(),
            block_owner_deletion: None,
            controller: Some(true),
        }]),
        ..ObjectMeta::default()
    }
}
