//! The Services and EndpointSlices of Gateways into the cluster.
//!
//! In the order of the pass, one after the other: a Service comes before the slices that belong
//! to it, and there are few. Everything that is written carries [`MANAGED_BY`], and only what
//! carries it is deleted; the chart's ValidatingAdmissionPolicy holds us to that.
//! A Service that cannot be made as its Gateway asks for it is told to the source, so that the
//! next pass says so and asks for less.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::Method;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use super::api::{self, Api, Failure, Written};
use super::{Pass, Work};
use crate::health::Health;
use crate::source::Handle;
use crate::translate::{InfrastructureWrite, Key, MANAGED_BY, ObjectKind, TIDEGATE};

pub(super) struct Infrastructure {
    api: Api,
    health: Arc<Health>,
    source: Handle,
    /// See [`crate::translate::Snapshot::invalid_services`].
    invalid: BTreeMap<Key, String>,
}

impl Infrastructure {
    pub fn new(api: Api, health: Arc<Health>, source: Handle) -> Self {
        Infrastructure { api, health, source, invalid: BTreeMap::new() }
    }

    /// Remembers which Services cannot be made.
    fn learn(&mut self, write: &InfrastructureWrite, outcome: &Result<(), Failure>) {
        let InfrastructureWrite::Service(service) = write else { return };
        match outcome {
            Err(Failure::Invalid(why)) if service.metadata.resource_version.is_none() => {
                self.invalid.insert(key_of(&service.metadata), why.clone());
            }
            Ok(()) => drop(self.invalid.remove(&key_of(&service.metadata))),
            Err(_) => {}
        }
    }

    /// Forgets the Services that nobody wants any more.
    fn forget(&mut self, writes: &[InfrastructureWrite]) {
        self.invalid.retain(|key, _| {
            writes.iter().any(|write| match write {
                InfrastructureWrite::Service(service) => key_of(&service.metadata) == *key,
                _ => false,
            })
        });
    }

    async fn write(&self, write: &InfrastructureWrite) -> Result<(), Failure> {
        match write {
            InfrastructureWrite::Service(service) => {
                self.put(ObjectKind::Service, &service.metadata, json!(service)).await
            }
            InfrastructureWrite::EndpointSlice(slice) => {
                self.put(ObjectKind::EndpointSlice, &slice.metadata, json!(slice)).await
            }
            InfrastructureWrite::DeleteService(key) => self.delete(ObjectKind::Service, key).await,
            InfrastructureWrite::DeleteEndpointSlice(key) => {
                self.delete(ObjectKind::EndpointSlice, key).await
            }
        }
    }

    /// Creates the object, or replaces it at the resourceVersion that it carries.
    async fn put(&self, kind: ObjectKind, meta: &ObjectMeta, body: Value) -> Result<(), Failure> {
        let (method, key) = if meta.resource_version.is_some() {
            (Method::PUT, key_of(meta))
        } else {
            (Method::POST, Key { name: String::new(), ..key_of(meta) })
        };
        let path = api::path(kind, &key);
        let _: Written = self.api.send(method, &path, "application/json", &body).await?;
        Ok(())
    }

    /// Deletes the object if it is ours, exactly as it was seen to be.
    async fn delete(&self, kind: ObjectKind, key: &Key) -> Result<(), Failure> {
        let path = api::path(kind, key);
        let seen: Written =
            self.api.send(Method::GET, &path, "application/json", &Value::Null).await?;
        let meta = seen.metadata;
        if meta.labels.get(MANAGED_BY).map(String::as_str) != Some(TIDEGATE) {
            return Ok(());
        }
        let options = json!({
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": { "uid": meta.uid, "resourceVersion": meta.resource_version },
        });
        // The answer is a Status or the object: neither is of interest.
        let _: Value = self.api.send(Method::DELETE, &path, "application/json", &options).await?;
        Ok(())
    }
}

impl Work for Infrastructure {
    async fn perform(&mut self, pass: &Pass) -> bool {
        let mut complete = true;
        self.forget(&pass.infrastructure);
        for write in &pass.infrastructure {
            let outcome = self.write(write).await;
            self.learn(write, &outcome);
            match outcome {
                Ok(()) => self.health.infrastructure_writes.add(1),
                // The object or its namespace changed or went away: a pass over that follows.
                Err(Failure::Conflict | Failure::Gone) => {}
                Err(failure) => {
                    complete = false;
                    self.health.infrastructure_write_errors.add(1);
                    let (kind, key) = target(write);
                    tracing::warn!(
                        kind = kind.kind(),
                        object = %key,
                        %failure,
                        "not written; trying again"
                    );
                }
            }
        }
        self.source.set_invalid_services(self.invalid.clone());
        complete
    }
}

fn target(write: &InfrastructureWrite) -> (ObjectKind, Key) {
    match write {
        InfrastructureWrite::Service(service) => (ObjectKind::Service, key_of(&service.metadata)),
        InfrastructureWrite::EndpointSlice(slice) => {
            (ObjectKind::EndpointSlice, key_of(&slice.metadata))
        }
        InfrastructureWrite::DeleteService(key) => (ObjectKind::Service, key.clone()),
        InfrastructureWrite::DeleteEndpointSlice(key) => (ObjectKind::EndpointSlice, key.clone()),
    }
}

fn key_of(meta: &ObjectMeta) -> Key {
    Key::new(
        meta.namespace.as_deref().unwrap_or_default(),
        meta.name.as_deref().unwrap_or_default(),
    )
}
