//! What the fake API server knows: objects, their history, who watches, and what is to fail.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::AbortHandle;

/// A request that was made: `GET`, the path, the query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub query: String,
}

/// An answer that is given in place of the right one.
#[derive(Clone, Debug)]
pub struct Failure {
    pub plural: String,
    /// None: any method. `WATCH` for watches, `LIST` for lists.
    pub verb: Option<&'static str>,
    pub status: u16,
}

/// By plural, namespace, name.
type Id = (String, String, String);

#[derive(Default)]
pub struct Store {
    objects: BTreeMap<Id, Value>,
    version: u64,
    /// Every change: its version, its type, the object.
    history: Vec<(u64, &'static str, Id, Value)>,
    /// Watches from before this version are expired.
    oldest: u64,
    expired_as_answer: bool,
    missing: BTreeSet<String>,
    failures: Vec<(Failure, usize)>,
    watchers: Vec<Watcher>,
    pub connections: Vec<AbortHandle>,
    pub requests: Vec<Request>,
    pub down: bool,
}

/// One open watch.
struct Watcher {
    scope: Scope,
    lines: UnboundedSender<Bytes>,
}

/// What a list or a watch looks at.
#[derive(Clone, Debug)]
pub struct Scope {
    pub plural: String,
    /// Empty: all.
    pub namespace: String,
    /// Pairs of a field's path and its value.
    pub fields: Vec<(String, String)>,
}

impl Scope {
    fn holds(&self, id: &Id, object: &Value) -> bool {
        let field = |path: &str| {
            path.split('.').fold(object, |value, step| &value[step]).as_str().map(str::to_owned)
        };
        id.0 == self.plural
            && (self.namespace.is_empty() || id.1 == self.namespace)
            && self.fields.iter().all(|(path, value)| field(path).as_deref() == Some(value))
    }
}

/// A `Status`: the code, the reason, the message.
pub type Refusal = (u16, &'static str, String);

pub fn status((code, reason, message): &Refusal) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
           "code": code, "reason": reason, "message": message})
}

/// `HTTPRoute` is listed as `httproutes`, `Ingress` as `ingresses`, `GatewayClass` likewise.
pub fn plural_of(kind: &str) -> String {
    let lower = kind.to_lowercase();
    match lower.strip_suffix('y') {
        _ if lower.ends_with('s') => format!("{lower}es"),
        Some(stem) if !stem.ends_with(['a', 'e']) => format!("{stem}ies"),
        _ => format!("{lower}s"),
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

impl Store {
    pub fn put(&mut self, object: Value) -> String {
        let plural = plural_of(object["kind"].as_str().unwrap());
        let metadata = &object["metadata"];
        let id = (plural, text(&metadata["namespace"]), text(&metadata["name"]));
        let stored = self.store(id, object);
        text(&stored["metadata"]["resourceVersion"])
    }

    /// Gives the object what the server adds, keeps it and tells the watches.
    pub fn store(&mut self, id: Id, mut object: Value) -> Value {
        self.version += 1;
        let old = self.objects.get(&id);
        let metadata = object["metadata"].as_object_mut().unwrap();
        metadata.insert("resourceVersion".into(), self.version.to_string().into());
        let old_field = |name: &str| old.map(|old| old["metadata"][name].clone());
        let uid = old_field("uid").unwrap_or_else(|| format!("uid-{}", self.version).into());
        metadata.insert("uid".into(), uid);
        let created = old_field("creationTimestamp").unwrap_or("2026-01-01T00:00:00Z".into());
        metadata.insert("creationTimestamp".into(), created);
        let changed = old.is_none_or(|old| old["spec"] != object["spec"]);
        let generation = old.and_then(|old| old["metadata"]["generation"].as_u64()).unwrap_or(0);
        object["metadata"]["generation"] = (generation + u64::from(changed)).into();
        let event = if old.is_some() { "MODIFIED" } else { "ADDED" };
        self.objects.insert(id.clone(), object.clone());
        self.tell(event, id, object.clone());
        object
    }

    pub fn get(&self, plural: &str, namespace: &str, name: &str) -> Option<&Value> {
        self.objects.get(&(plural.into(), namespace.into(), name.into()))
    }

    pub fn of(&self, plural: &str) -> impl Iterator<Item = &Value> {
        self.objects.iter().filter(move |(id, _)| id.0 == plural).map(|(_, object)| object)
    }

    pub fn delete(&mut self, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        let id = (plural.to_owned(), namespace.to_owned(), name.to_owned());
        let mut object = self.objects.remove(&id)?;
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.tell("DELETED", id, object.clone());
        Some(object)
    }

    fn tell(&mut self, event: &'static str, id: Id, object: Value) {
        let line = line(event, &object);
        self.watchers.retain(|watcher| {
            !watcher.scope.holds(&id, &object) || watcher.lines.send(line.clone()).is_ok()
        });
        self.history.push((self.version, event, id, object));
    }

    /// `limit` objects from the nth on, and whether there are more.
    pub fn page(&self, scope: &Scope, skip: usize, limit: usize) -> (Vec<Value>, bool) {
        let mut found = self.objects.iter().filter(|(id, object)| scope.holds(id, object));
        let page = found.by_ref().skip(skip).take(limit).map(|(_, o)| o.clone()).collect();
        (page, found.next().is_some())
    }

    pub fn version(&self) -> u64 {
        self.version
    }

    /// Begins a watch: what happened since `from` is sent at once.
    pub fn watch(
        &mut self,
        scope: Scope,
        from: u64,
        lines: UnboundedSender<Bytes>,
    ) -> Result<(), Refusal> {
        if from < self.oldest {
            let gone = (410, "Expired", format!("too old resource version: {from}"));
            if self.expired_as_answer {
                return Err(gone);
            }
            let _ = lines.send(line("ERROR", &status(&gone)));
            return Ok(());
        }
        for (version, event, id, object) in &self.history {
            if *version > from && scope.holds(id, object) {
                let _ = lines.send(line(event, object));
            }
        }
        self.watchers.push(Watcher { scope, lines });
        Ok(())
    }

    pub fn watches(&self, plural: &str) -> usize {
        let open = |w: &&Watcher| w.scope.plural == plural && !w.lines.is_closed();
        self.watchers.iter().filter(open).count()
    }

    pub fn expire_watches(&mut self, plural: &str) {
        let gone = status(&(410, "Expired", "the watch is too old".into()));
        self.watchers.retain(|watcher| {
            let ends = watcher.scope.plural == plural;
            if ends {
                let _ = watcher.lines.send(line("ERROR", &gone));
            }
            !ends
        });
    }

    pub fn bookmark(&mut self) {
        let object = json!({"kind": "Bookmark", "apiVersion": "v1",
                            "metadata": {"resourceVersion": self.version.to_string()}});
        self.watchers.retain(|watcher| watcher.lines.send(line("BOOKMARK", &object)).is_ok());
    }

    pub fn compact(&mut self, as_answer: bool) {
        self.version += 1;
        self.oldest = self.version;
        self.expired_as_answer = as_answer;
        self.history.clear();
    }

    pub fn cut(&mut self) {
        self.watchers.clear();
        self.connections.drain(..).for_each(|connection| connection.abort());
    }

    pub fn install(&mut self, plural: &str) {
        self.missing.remove(plural);
    }

    pub fn uninstall(&mut self, plural: &str) {
        self.missing.insert(plural.to_owned());
        self.objects.retain(|id, _| id.0 != plural);
        self.watchers.retain(|watcher| watcher.scope.plural != plural);
    }

    pub fn fail(&mut self, failure: Failure, times: usize) {
        self.failures.push((failure, times));
    }

    /// What a request is refused with before it is looked at.
    pub fn refusal(&mut self, plural: &str, verb: &str) -> Option<Refusal> {
        if self.missing.contains(plural) {
            return Some((404, "NotFound", "404 page not found".into()));
        }
        let fits = |(failure, left): &&mut (Failure, usize)| {
            *left > 0 && failure.plural == plural && failure.verb.is_none_or(|v| v == verb)
        };
        let (failure, left) = self.failures.iter_mut().find(fits)?;
        *left -= 1;
        Some((failure.status, "Failed", "the test wants it so".into()))
    }
}

/// The type comes first, as the real server has it.
fn line(event: &str, object: &Value) -> Bytes {
    format!("{{\"type\":\"{event}\",\"object\":{object}}}\n").into()
}
