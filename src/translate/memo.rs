//! What costs time to make and depends on its source alone, kept from pass to pass:
//! certificates by the Secret they stand in, regular expressions by their text, bundles of CA
//! certificates by their digest, TLS to backends (and with it the sessions that can be resumed)
//! by its identity, Consumers by the objects they are made from. And what routes came to, as long as nothing that they follow from changes:
//! see `carry`.
//!
//! It changes how long a pass takes and never what it says: [`super::translate`] stays pure in
//! meaning. What one pass did not use is forgotten by the next, but for passes that carry over.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::core::v1::Secret;
use regex::Regex;

use super::carry::Carried;
use super::certificates::{Parsed, parse};
use super::consumers::Listed;
use crate::graph::{BackendTls, Bundle, RouteGraph, TlsSpec, sha256};

/// What the last pass used. All clones of a [`super::Snapshot`] share one.
#[derive(Debug, Default)]
pub struct Memo {
    last: Mutex<Kept>,
    carried: Mutex<Carried>,
    /// The graph that the last pass made, as it was published.
    live: Mutex<Option<Arc<RouteGraph>>>,
    passes: AtomicU64,
}

/// A certificate, or what is wrong with its Secret.
type Certificate = Result<Arc<Parsed>, String>;

#[derive(Debug, Default)]
struct Kept {
    /// By the address of the Secret, which stays taken while it is held here. A Secret that
    /// changed is another one.
    certificates: HashMap<usize, (Arc<Secret>, Certificate)>,
    expressions: HashMap<String, Result<Regex, String>>,
    bundles: HashMap<[u8; 32], Result<Arc<Bundle>, String>>,
    backend_tls: HashMap<u64, Arc<BackendTls>>,
    /// By namespace.
    consumers: HashMap<String, Arc<Listed>>,
}

/// The memo of a pass at work.
#[derive(Debug)]
pub(super) struct Recall<'s> {
    memo: &'s Memo,
    last: Kept,
    now: Kept,
}

impl Memo {
    pub(super) fn recall(&self) -> Recall<'_> {
        let mut last = lock(&self.last);
        Recall { memo: self, last: std::mem::take(&mut last), now: Kept::default() }
    }

    /// The graph of the last pass is live, and the next one may share with it what stays. Where
    /// nobody says so, every pass looks at everything anew.
    pub fn published(&self, graph: Arc<RouteGraph>) {
        *lock(&self.live) = Some(graph);
    }

    /// What the last pass leaves to carry over, with the graph that it made, if that is live.
    pub(super) fn carried(&self) -> (Carried, Option<Arc<RouteGraph>>) {
        let carried = std::mem::take(&mut *lock(&self.carried));
        let live = lock(&self.live).clone().filter(|live| live.pass == carried.pass);
        (carried, live)
    }

    /// A number that no pass has had.
    pub(super) fn next_pass(&self) -> u64 {
        self.passes.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn carry(&self, carried: Carried) {
        *lock(&self.carried) = carried;
    }
}

impl Recall<'_> {
    /// The certificate and key of a Secret.
    ///
    /// # Errors
    /// A message for the user.
    pub fn certificate(&mut self, secret: &Arc<Secret>) -> Certificate {
        let at = Arc::as_ptr(secret).addr();
        let last = &mut self.last.certificates;
        let make = || last.remove(&at).unwrap_or_else(|| (Arc::clone(secret), parse(secret)));
        self.now.certificates.entry(at).or_insert_with(make).1.clone()
    }

    /// The expression of this text, made by `make` if it is new.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn expression(
        &mut self,
        text: &str,
        make: impl FnOnce(&str) -> Result<Regex, String>,
    ) -> Result<Regex, String> {
        if let Some(known) = self.now.expressions.get(text) {
            return known.clone();
        }
        let (text, made) = match self.last.expressions.remove_entry(text) {
            Some(known) => known,
            None => (text.to_owned(), make(text)),
        };
        self.now.expressions.insert(text, made.clone());
        made
    }

    /// The CA certificates in this PEM.
    ///
    /// # Errors
    /// A message for the user.
    pub fn bundle(&mut self, pem: &[u8]) -> Result<Arc<Bundle>, String> {
        let digest = sha256(pem);
        let last = &mut self.last.bundles;
        let make = || last.remove(&digest).unwrap_or_else(|| Bundle::new(pem).map(Arc::new));
        self.now.bundles.entry(digest).or_insert_with(make).clone()
    }

    /// The Consumers of a namespace, which `current` gives: what it is handed is what the last
    /// pass had.
    pub fn consumers(
        &mut self,
        namespace: &str,
        current: impl FnOnce(Option<Arc<Listed>>) -> Arc<Listed>,
    ) -> Arc<Listed> {
        let listed = current(self.last.consumers.remove(namespace));
        self.now.consumers.insert(namespace.to_owned(), Arc::clone(&listed));
        listed
    }

    /// TLS to backends as `spec` says it.
    ///
    /// # Errors
    /// A message for the user.
    pub fn backend_tls(&mut self, spec: &TlsSpec) -> Result<Arc<BackendTls>, String> {
        let identity = spec.identity();
        if let Some(known) = self.now.backend_tls.get(&identity) {
            return Ok(Arc::clone(known));
        }
        let made = match self.last.backend_tls.remove(&identity) {
            Some(known) => known,
            None => Arc::new(BackendTls::of(spec)?),
        };
        self.now.backend_tls.insert(identity, Arc::clone(&made));
        Ok(made)
    }

    /// Leaves what was used to the next pass; with what was not, if it may be used by what this
    /// pass carried over.
    pub fn keep(mut self, all: bool) {
        if all {
            self.now.bundles.extend(self.last.bundles);
            self.now.backend_tls.extend(self.last.backend_tls);
        }
        *lock(&self.memo.last) = self.now;
    }
}

/// A pass that panicked leaves nothing behind that is half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Roots, Verify};

    #[test]
    fn an_expression_is_made_once_while_it_is_used() {
        let memo = Memo::default();
        let make = |text: &str| Regex::new(text).map_err(|error| error.to_string());
        let made = |makes: bool| {
            let mut recall = memo.recall();
            let mut fresh = false;
            for _ in 0..2 {
                let made = recall.expression("a+", |text| {
                    fresh = true;
                    make(text)
                });
                assert!(made.unwrap().is_match("aa"));
            }
            recall.keep(false);
            assert_eq!(fresh, makes);
        };
        made(true);
        made(false);
        memo.recall().keep(false);
        made(true);
    }

    #[test]
    fn a_secret_that_changed_is_read_again() {
        let memo = Memo::default();
        let secret = Arc::new(Secret::default());
        let mut recall = memo.recall();
        assert!(recall.certificate(&secret).is_err());
        recall.keep(false);
        let mut recall = memo.recall();
        assert_eq!(recall.last.certificates.len(), 1);
        assert!(recall.certificate(&secret).is_err());
        assert!(recall.last.certificates.is_empty(), "found, and taken over");
        let other = Arc::new(Secret::default());
        assert!(recall.certificate(&other).is_err());
        assert_eq!(recall.now.certificates.len(), 2);
    }

    #[test]
    fn tls_to_backends_is_the_same_while_it_says_the_same() {
        let memo = Memo::default();
        let made = |name: &str| {
            let mut recall = memo.recall();
            let spec = TlsSpec { verify: Verify::Nothing, ..TlsSpec::new(name, Roots::System) };
            let made = recall.backend_tls(&spec).unwrap();
            recall.keep(false);
            made
        };
        let first = made("a.example");
        assert!(Arc::ptr_eq(&first, &made("a.example")), "and sessions are resumed");
        assert!(!Arc::ptr_eq(&first, &made("b.example")));
        assert!(!Arc::ptr_eq(&first, &made("a.example")), "forgotten meanwhile");
    }

    #[test]
    fn certificates_of_authorities_are_read_once() {
        let memo = Memo::default();
        let pem = crate::graph::testing::pem("ca.example").0;
        let read = |pem: &[u8]| {
            let mut recall = memo.recall();
            let read = recall.bundle(pem);
            recall.keep(false);
            read
        };
        let first = read(pem.as_bytes()).unwrap();
        assert!(Arc::ptr_eq(&first, &read(pem.as_bytes()).unwrap()));
        assert!(read(b"none").is_err());
    }
}
