//! What an authentication policy refers to: Secrets with passwords and keys, the keys that
//! issuers publish, and the Consumers of its namespace.

use super::Key;
use super::pass::Pass;
use super::rate_limit_store::Data;
use super::references::From;
use super::status::Problem;
use crate::policy::authentication::{Spec, method};
use crate::policy::external_auth::BACKEND_REF;
use crate::policy::{Invalid, Refs};

impl Pass<'_> {
    /// Adds what the policy of an object that `from` describes refers to. What is missing is left out:
    /// the policy itself says what it misses.
    pub fn authentication_refs(
        &mut self,
        from: From<'_>,
        spec: &Spec,
        refs: &mut Refs,
    ) -> Result<(), Invalid> {
        let namespace = from.namespace;
        refs.consumers = self.directory.of(namespace);
        for (at, method) in spec.methods.iter().enumerate() {
            let method::Spec { jwt, basic, external, api_key: _, client_certificate: _ } = method;
            if let Some(external) = external {
                let service = self.service_of(from, None, external).map_err(|error| {
                    let field = format!("methods[{at}].external.{BACKEND_REF}");
                    Invalid::new(field, error.message)
                })?;
                refs.services.insert(BACKEND_REF, service);
            }
            let keys = jwt.as_ref().map(|jwt| &jwt.keys);
            let in_secret = keys.and_then(|keys| Some(&keys.secret_ref.as_ref()?.name));
            let users = basic.as_ref().and_then(|basic| Some(&basic.secret_ref.as_ref()?.name));
            for name in in_secret.into_iter().chain(users) {
                if let Some(data) = self.secret_data(namespace, name) {
                    refs.secrets.insert(name.clone(), data);
                }
            }
            if let Some(remote) = keys.and_then(|keys| keys.remote.as_ref()) {
                let field = format!("methods[{at}].jwt.keys.remote");
                let (keys, missed) = self.remote_keys(namespace, remote).map_err(|error| {
                    let field = format!("{field}.{}", error.field);
                    Invalid::new(field.trim_end_matches('.'), error.message)
                })?;
                refs.keys.insert(remote.clone(), keys);
                let field = format!("spec.authentication.{field}");
                let problem = |message| Problem::new("KeysUnreachable", field, message);
                self.policies.missed.extend(missed.map(problem));
            }
        }
        Ok(())
    }

    /// What a Secret holds, whichever way it is written.
    pub(super) fn secret_data(&self, namespace: &str, name: &str) -> Option<Data> {
        let secret = self.snapshot.secrets.get(&Key::new(namespace, name))?;
        let mut data = Data::new();
        for (key, text) in secret.string_data.iter().flatten() {
            data.insert(key.clone(), text.clone().into_bytes());
        }
        for (key, bytes) in secret.data.iter().flatten() {
            data.insert(key.clone(), bytes.0.clone());
        }
        Some(data)
    }
}
