//! API keys of Consumers: in a field, a parameter of the query or a cookie.
//!
//! A key is looked up by its SHA-256 among those of the namespace's Consumers; nothing else of
//! it is kept or compared.

use std::sync::Arc;

use http::HeaderName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::method::Outcome;
use crate::policy::consumer::{Consumers, Holder, KEY_LENGTH, KeyDigest};
use crate::policy::place::{self, Found, Place, Places};
use crate::policy::{Invalid, RequestHead};

/// API keys of the namespace's Consumers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ApiKeyMethod")]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// Where keys are; the field X-API-Key by default. A request with more than one is refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    pub from: Vec<place::Spec>,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct ApiKey {
    places: Places,
    /// None: there are no Consumers, and no key is anybody's.
    consumers: Option<Arc<Consumers>>,
}

impl ApiKey {
    pub fn compile(spec: &Spec, consumers: Option<Arc<Consumers>>) -> Result<Self, Invalid> {
        let default = Place::Header { name: HeaderName::from_static("x-api-key"), scheme: None };
        Ok(ApiKey { places: Places::compile("from", &spec.from, None, default)?, consumers })
    }

    pub fn check(&self, head: &RequestHead, now_ms: u64) -> Outcome {
        let key = match self.places.find(head) {
            Found::Nothing => return Outcome::Absent,
            Found::Several => return Outcome::Refused(None),
            Found::One(key) => key,
        };
        let Some(consumers) = self.consumers.as_ref().filter(|_| KEY_LENGTH.contains(&key.len()))
        else {
            return Outcome::Refused(None);
        };
        match consumers.by_key(KeyDigest::of(&key), now_ms) {
            Holder::Somebody(identity) => Outcome::Accepted(Arc::clone(identity)),
            Holder::Expired => Outcome::Expired,
            Holder::Nobody => Outcome::Refused(None),
        }
    }

    /// Where keys are looked for.
    pub fn places(&self) -> &Places {
        &self.places
    }
}
