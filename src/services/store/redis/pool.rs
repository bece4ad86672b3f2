//! The connections of one worker to one server.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::select_all;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Shared;
use super::failure::Failure;
use super::link::{Link, Target};
use super::script::Question;

pub struct Pool {
    links: Vec<Arc<Link>>,
    next: AtomicUsize,
    /// Ends the links with the pool.
    _closed: DropGuard,
}

impl Pool {
    /// See [`Link::start`].
    pub fn start(shared: &Arc<Shared>, target: &Target, tag: &str) -> Self {
        let closed: CancellationToken = shared.closed.child_token();
        let link = |_| Link::start(shared, target.clone(), tag, closed.clone());
        let links = (0..shared.config.connections).map(link).collect();
        Pool { links, next: AtomicUsize::new(0), _closed: closed.drop_guard() }
    }

    /// The next link in turn that is live, or the next one.
    pub fn link(&self) -> &Arc<Link> {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let nth = |n: usize| &self.links[first.wrapping_add(n) % self.links.len()];
        (0..self.links.len()).map(nth).find(|link| link.is_live()).unwrap_or(nth(0))
    }

    pub async fn ask(&self, question: &Question) -> Result<Vec<i64>, Failure> {
        self.link().ask(question).await
    }

    /// Returns once one of the links has tried to connect.
    pub async fn started(&self) {
        select_all(self.links.iter().map(|link| Box::pin(link.started()))).await;
    }
}
