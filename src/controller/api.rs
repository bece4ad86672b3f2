//! One call to the API server: as long as the Lease is held, and not longer.

use std::time::Duration;

use http::{Method, Request};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use super::leader::Leadership;
use crate::translate::{Key, ObjectKind};

/// One call, at most.
const CALL: Duration = Duration::from_secs(5);

/// Why something was not written.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The object changed or exists already: what is true now is on its way to us.
    #[error("the object has changed meanwhile")]
    Conflict,
    #[error("the object is gone")]
    Gone,
    #[error("the Lease is not held any more")]
    NotLeader,
    #[error("the API server did not answer in time")]
    Timeout,
    /// The object cannot be as we want it, however often it is asked for.
    #[error("the API server calls it invalid: {0}")]
    Invalid(String),
    #[error("the API server refused: {0}")]
    Refused(String),
    #[error("the API server could not be asked: {0}")]
    Unreachable(kube::Error),
}

impl From<kube::Error> for Failure {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => match status.code {
                409 => Failure::Conflict,
                404 | 410 => Failure::Gone,
                422 => Failure::Invalid(status.message),
                _ => Failure::Refused(status.message),
            },
            error => Failure::Unreachable(error),
        }
    }
}

/// What every answer carries; the rest is not read.
#[derive(Debug, Deserialize)]
pub(super) struct Written {
    pub metadata: WrittenMeta,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct WrittenMeta {
    #[serde(default)]
    pub resource_version: String,
    #[serde(default)]
    pub uid: String,
    #[serde(default)]
    pub labels: std::collections::BTreeMap<String, String>,
}

#[derive(Clone)]
pub(super) struct Api {
    client: kube::Client,
    leadership: Leadership,
}

impl Api {
    pub fn new(client: kube::Client, leadership: Leadership) -> Self {
        Api { client, leadership }
    }

    /// Sends `body` as `content_type`, only as the Lease's holder.
    pub async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        content_type: &'static str,
        body: &Value,
    ) -> Result<T, Failure> {
        let held = self.leadership.deadline().ok_or(Failure::NotLeader)?;
        let body = match body {
            Value::Null => Vec::new(),
            body => body.to_string().into_bytes(),
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::CONTENT_TYPE, content_type)
            .body(body)
            .map_err(|error| Failure::Refused(error.to_string()))?;
        let until = held.min(Instant::now() + CALL);
        match timeout_at(until, self.client.request::<T>(request)).await {
            Ok(answer) => Ok(answer?),
            Err(_) if until == held => Err(Failure::NotLeader),
            Err(_) => Err(Failure::Timeout),
        }
    }
}

/// The path of an object, or with an empty name that of its kind in the namespace.
pub(super) fn path(kind: ObjectKind, key: &Key) -> String {
    let (api_version, _, plural) = kind.names();
    path_of(api_version, plural, key)
}

/// The paths of an object in each version that its kind may be served in, the newest first.
pub(super) fn paths(kind: ObjectKind, key: &Key) -> impl Iterator<Item = String> {
    let (newest, _, plural) = kind.names();
    let group = newest.rsplit_once('/').map_or("", |(group, _)| group);
    kind.versions().iter().map(move |version| match group {
        "" => path_of(version, plural, key),
        group => path_of(&format!("{group}/{version}"), plural, key),
    })
}

/// As [`path`], for kinds that are only written.
pub(super) fn path_of(api_version: &str, plural: &str, key: &Key) -> String {
    let root = if api_version.contains('/') { "/apis" } else { "/api" };
    let mut path = format!("{root}/{api_version}");
    if !key.namespace.is_empty() {
        path.push_str("/namespaces/");
        path.push_str(&key.namespace);
    }
    path.push('/');
    path.push_str(plural);
    if !key.name.is_empty() {
        path.push('/');
        path.push_str(&key.name);
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_api() {
        assert_eq!(
            path(ObjectKind::HttpRoute, &Key::new("ns", "r")),
            "/apis/gateway.networking.k8s.io/v1/namespaces/ns/httproutes/r"
        );
        assert_eq!(
            path(ObjectKind::GatewayClass, &Key::new("", "c")),
            "/apis/gateway.networking.k8s.io/v1/gatewayclasses/c"
        );
        assert_eq!(
            path(ObjectKind::Service, &Key::new("ns", "")),
            "/api/v1/namespaces/ns/services"
        );
    }

    #[test]
    fn an_object_has_a_path_in_each_version_of_its_kind() {
        let paths: Vec<String> = paths(ObjectKind::TcpRoute, &Key::new("ns", "r")).collect();
        assert_eq!(
            paths,
            [
                "/apis/gateway.networking.k8s.io/v1/namespaces/ns/tcproutes/r",
                "/apis/gateway.networking.k8s.io/v1alpha2/namespaces/ns/tcproutes/r"
            ]
        );
    }
}
