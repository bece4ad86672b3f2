//! Consumers: the credentials of each namespace, indexed once, and what is wrong with them.
//!
//! A credential that is missing, broken or somebody else's is told in its Consumer's status and
//! is of no use; the Consumer's others are. The older Consumer keeps what two of them have.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;

use super::pass::{Pass, created};
use super::status::{Problem, Said, conditions};
use super::{Key, ObjectKind, Snapshot};
use crate::api::consumer::{Consumer, ConsumerSpec, ConsumerStatus};
use crate::policy::authentication::basic::SECRET_KEY;
use crate::policy::authentication::basic::htpasswd::Users;
use crate::policy::consumer::{self, Consumers, KeyDigest, Taken};

/// The Consumers of all namespaces.
#[derive(Debug, Default)]
pub(super) struct Directory<'s> {
    by_namespace: HashMap<&'s str, Arc<Listed>>,
}

/// The Consumers of one namespace, and what they were made from.
#[derive(Debug)]
pub(super) struct Listed {
    /// The older first.
    objects: Vec<Arc<Consumer>>,
    /// The Secrets that they name, in that order.
    secrets: Vec<Option<Arc<Secret>>>,
    consumers: Arc<Consumers>,
    /// What is wrong with each of `objects`.
    problems: Vec<Vec<Problem>>,
}

/// One Consumer on its way into the index.
struct Draft<'a> {
    snapshot: &'a Snapshot,
    namespace: &'a str,
    consumers: &'a mut Consumers,
    problems: Vec<Problem>,
}

impl Directory<'_> {
    /// None, if the namespace has no Consumer.
    pub fn of(&self, namespace: &str) -> Option<Arc<Consumers>> {
        Some(Arc::clone(&self.by_namespace.get(namespace)?.consumers))
    }
}

impl Listed {
    fn new(snapshot: &Snapshot, namespace: &str, objects: Vec<Arc<Consumer>>) -> Self {
        let mut consumers = Consumers::default();
        let mut problems = Vec::with_capacity(objects.len());
        for object in &objects {
            let consumers = &mut consumers;
            let mut draft = Draft { snapshot, namespace, consumers, problems: Vec::new() };
            draft.add(object);
            problems.push(draft.problems);
        }
        let secrets = secrets_of(snapshot, namespace, &objects).map(Option::<&_>::cloned);
        let secrets = secrets.collect();
        Listed { objects, secrets, consumers: Arc::new(consumers), problems }
    }

    /// Whether these objects would come to the same.
    pub fn is_of(&self, snapshot: &Snapshot, namespace: &str, objects: &[Arc<Consumer>]) -> bool {
        let same = |(a, b): (&Arc<Consumer>, &Arc<Consumer>)| Arc::ptr_eq(a, b);
        self.objects.len() == objects.len()
            && self.objects.iter().zip(objects).all(same)
            && secrets_of(snapshot, namespace, objects).zip(&self.secrets).all(|(a, b)| {
                match (a, b) {
                    (Some(a), Some(b)) => Arc::ptr_eq(a, b),
                    (a, b) => a.is_none() && b.is_none(),
                }
            })
    }
}

/// The Secrets that Consumers name, as far as they are there.
fn secrets_of<'a>(
    snapshot: &'a Snapshot,
    namespace: &'a str,
    objects: &'a [Arc<Consumer>],
) -> impl Iterator<Item = Option<&'a Arc<Secret>>> {
    let names = objects.iter().flat_map(|object| {
        let credentials = &object.spec.credentials;
        let keys = credentials.api_keys.iter().map(|key| &key.secret_ref.name);
        keys.chain(credentials.basic.iter().map(|basic| &basic.secret_ref.name))
    });
    names.map(move |name| snapshot.secrets.get(&Key::new(namespace, name)))
}

impl<'a> Draft<'a> {
    fn add(&mut self, object: &Consumer) {
        let ConsumerSpec { groups, plan, credentials } = &object.spec;
        let who = self.consumers.add(consumer::Consumer {
            namespace: self.namespace.into(),
            name: object.metadata.name.as_deref().unwrap_or_default().into(),
            groups: groups.iter().map(|group| group.as_str().into()).collect(),
            plan: plan.as_deref().map(Into::into),
        });
        for (i, key) in credentials.api_keys.iter().enumerate() {
            let field = format!("spec.credentials.apiKeys[{i}]");
            let found = self.value(&key.secret_ref.name, key.secret_ref.key(), "the API key");
            let end = key.expires.as_ref().map(|end| end.0.as_millisecond().max(0) as u64);
            let added = found.and_then(|(name, value)| {
                let key = KeyDigest::parse(value).map_err(|error| invalid(&name, &error))?;
                self.consumers.add_key(&who, key, end).map_err(taken)
            });
            self.problem(&field, added);
        }
        for (i, basic) in credentials.basic.iter().enumerate() {
            let field = format!("spec.credentials.basic[{i}]");
            let found = self.value(&basic.secret_ref.name, SECRET_KEY, "htpasswd lines");
            let added = found.and_then(|(name, lines)| {
                let users = Users::parse(lines).map_err(|error| invalid(&name, &error))?;
                self.consumers.add_users(&who, &users).map_err(taken)
            });
            self.problem(&field, added);
        }
        for (i, tokens) in credentials.jwt.iter().enumerate() {
            for (j, value) in tokens.values.iter().enumerate() {
                let field = format!("spec.credentials.jwt[{i}].values[{j}]");
                let added = self.consumers.add_token(&who, &tokens.issuer, value);
                self.problem(&field, added.map_err(taken));
            }
        }
        for (i, certificate) in credentials.client_certificates.iter().enumerate() {
            let field = format!("spec.credentials.clientCertificates[{i}].name");
            let added = self.consumers.add_certificate(&who, &certificate.name);
            self.problem(&field, added.map_err(taken));
        }
    }

    /// What stands under a key of a Secret, and how that is called.
    fn value(&self, name: &str, key: &str, what: &str) -> Result<(String, &'a [u8]), Problem> {
        let snapshot = self.snapshot;
        let secret = snapshot.secrets.get(&Key::new(self.namespace, name));
        let Some(secret) = secret else {
            let message = format!("Secret {name} does not exist; create it");
            return Err(Problem::new("SecretNotFound", "", message));
        };
        let data = secret.data.as_ref().and_then(|data| data.get(key));
        let text = || secret.string_data.as_ref().and_then(|data| data.get(key));
        let value = data.map(|bytes| bytes.0.as_slice()).or_else(|| text().map(String::as_bytes));
        let value = value.ok_or_else(|| {
            let message = format!("Secret {name} has no key `{key}`; put {what} there");
            Problem::new("InvalidSecret", "", message)
        })?;
        Ok((format!("Secret {name}, key `{key}`"), value))
    }

    fn problem(&mut self, field: &str, result: Result<(), Problem>) {
        if let Err(problem) = result {
            self.problems.push(Problem { field: field.to_owned(), ..problem });
        }
    }
}

fn invalid(place: &str, error: &str) -> Problem {
    Problem::new("InvalidSecret", "", format!("{place}: {error}"))
}

fn taken(Taken(by): Taken) -> Problem {
    let message = format!(
        "is Consumer {by}'s already, who is older and keeps it; give each Consumer credentials of \
         its own"
    );
    Problem::new("Conflicted", "", message)
}

impl Pass<'_> {
    /// Indexes the Consumers of each namespace, unless they are as they were.
    pub fn collect_consumers(&mut self) {
        let snapshot = self.snapshot;
        let mut namespaces: HashMap<&str, Vec<Arc<Consumer>>> = HashMap::new();
        for (key, object) in snapshot.consumers.iter() {
            namespaces.entry(&key.namespace).or_default().push(Arc::clone(object));
        }
        for (namespace, mut objects) in namespaces {
            // Those of one time stay in the order of their names.
            objects.sort_by_key(|object| created(&object.metadata));
            let listed = self.memo.consumers(namespace, |known| match known {
                Some(known) if known.is_of(snapshot, namespace, &objects) => known,
                _ => Arc::new(Listed::new(snapshot, namespace, objects)),
            });
            self.directory.by_namespace.insert(namespace, listed);
        }
    }

    pub fn consumer_statuses(&mut self) {
        let namespaces: Vec<_> = self.directory.by_namespace.values().cloned().collect();
        for listed in namespaces {
            for (object, problems) in listed.objects.iter().zip(&listed.problems) {
                self.consumer_status(object, problems);
            }
        }
    }

    fn consumer_status(&mut self, object: &Consumer, problems: &[Problem]) {
        /// Enough to see where to look.
        const MAX: usize = 8;
        let (kind, meta) = (ObjectKind::Consumer, &object.metadata);
        let name = |name: &Option<String>| name.clone().unwrap_or_default();
        let key = Key::new(name(&meta.namespace), name(&meta.name));
        for problem in problems {
            self.warn(kind, &key, meta, problem);
        }
        let said = match problems {
            [] => Said::yes("Accepted", "Accepted", ""),
            [first, ..] => {
                let all: Vec<String> = problems.iter().take(MAX).map(Problem::to_string).collect();
                Said::no("Accepted", first.reason, all.join("; "))
            }
        };
        let old = object.status.as_ref();
        let before = old.map_or(&[][..], |status| &status.conditions);
        let new = ConsumerStatus {
            conditions: conditions(before, &["Accepted"], &[said], meta.generation, &self.now),
        };
        self.status(kind, &key, meta, old, new);
    }
}
