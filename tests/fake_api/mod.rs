//! An API server for tests: a real HTTP server on a port of its own, with lists (in pages),
//! watches (from a version, with bookmarks), writes with resourceVersion conflicts, the status
//! subresource and Leases, and with everything that can go wrong made at will.
//!
//! It knows no schemas: any object under any plural is taken, unless the plural was declared
//! missing. Server-side apply and admission are not here.

#![allow(dead_code, reason = "each test uses its own part")]
#![allow(clippy::unwrap_used, reason = "a panic here is a failed test")]

mod http;
mod store;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use store::Store;
pub use store::{Failure, Request};

/// The server. Dropping it ends it.
pub struct FakeApi {
    addr: SocketAddr,
    store: Arc<Mutex<Store>>,
    accepting: JoinHandle<()>,
}

impl Drop for FakeApi {
    fn drop(&mut self) {
        self.accepting.abort();
        self.store.lock().unwrap().cut();
    }
}

impl FakeApi {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let store = Arc::new(Mutex::new(Store::default()));
        let accepting = tokio::spawn(http::accept(listener, Arc::clone(&store)));
        FakeApi { addr, store, accepting }
    }

    pub fn client(&self) -> kube::Client {
        let config = kube::Config::new(format!("http://{}", self.addr).parse().unwrap());
        kube::Client::try_from(config).unwrap()
    }

    /// Creates or replaces an object whole, as `kubectl apply` would; returns its new version.
    /// The plural follows from the kind.
    pub fn put(&self, object: Value) -> String {
        self.store.lock().unwrap().put(object)
    }

    /// [`FakeApi::put`] of each YAML document.
    pub fn apply(&self, yaml: &str) {
        for object in serde_saphyr::from_multiple::<Value>(yaml).unwrap() {
            self.put(object);
        }
    }

    pub fn get(&self, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        self.store.lock().unwrap().get(plural, namespace, name).cloned()
    }

    /// All objects of a plural, by namespace and name.
    pub fn list(&self, plural: &str) -> Vec<Value> {
        self.store.lock().unwrap().of(plural).cloned().collect()
    }

    pub fn delete(&self, plural: &str, namespace: &str, name: &str) {
        self.store.lock().unwrap().delete(plural, namespace, name).unwrap();
    }

    /// The CRD is not installed: every request answers 404, watches end.
    pub fn uninstall(&self, plural: &str) {
        self.store.lock().unwrap().uninstall(plural);
    }

    pub fn install(&self, plural: &str) {
        self.store.lock().unwrap().install(plural);
    }

    /// The next `times` requests that fit are answered so.
    pub fn fail(&self, failure: Failure, times: usize) {
        self.store.lock().unwrap().fail(failure, times);
    }

    /// History is forgotten: who watches from an older version gets 410, as an event of the
    /// watch or, with `as_answer`, as the answer to the request.
    pub fn compact(&self, as_answer: bool) {
        self.store.lock().unwrap().compact(as_answer);
    }

    /// Sends a 410 event to the watches of a plural and ends them.
    pub fn expire_watches(&self, plural: &str) {
        self.store.lock().unwrap().expire_watches(plural);
    }

    /// Sends a bookmark of the newest version to all watches.
    pub fn bookmark(&self) {
        self.store.lock().unwrap().bookmark();
    }

    /// Cuts every connection in the middle of what it does.
    pub fn cut_connections(&self) {
        self.store.lock().unwrap().cut();
    }

    /// The server is down until [`FakeApi::come_back`]: connections are cut and closed at once.
    pub fn go_away(&self) {
        let mut store = self.store.lock().unwrap();
        store.down = true;
        store.cut();
    }

    pub fn come_back(&self) {
        self.store.lock().unwrap().down = false;
    }

    /// What was asked for since the start.
    pub fn requests(&self) -> Vec<Request> {
        self.store.lock().unwrap().requests.clone()
    }

    /// How many watches of the plural are open.
    pub fn watches(&self, plural: &str) -> usize {
        self.store.lock().unwrap().watches(plural)
    }
}

/// Returns once `done` holds; fails the test after 10 s.
pub async fn until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("waited in vain until {what}");
}
