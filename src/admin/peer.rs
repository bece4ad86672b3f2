//! `/peer`: what this process tells the other Tidegate pods, as a stream of JSON lines.
//!
//! A line comes at once when something changes, and every [`BEAT`] when nothing does: so a peer
//! that leaves, dies or hangs is known within moments, without waiting for the kubelet. The
//! reader is `controller::peers`, where the form of a line is defined.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::sync::watch;

use super::{Body, typed};
use crate::controller::peers::{BEAT, Listening, PeerReport};
use crate::lifecycle::{Lifecycle, Phase};

/// The endless answer to `GET /peer`.
pub(super) fn stream(
    identity: &str,
    lifecycle: &Lifecycle,
    listening: &Listening,
) -> Response<Body> {
    let state = Teller {
        identity: identity.to_owned(),
        phase: lifecycle.subscribe(),
        lifecycle: lifecycle.clone(),
        listening: listening.clone(),
        first: true,
    };
    let lines = futures_util::stream::unfold(state, |mut teller| async move {
        let line = teller.next().await;
        Some((Ok::<_, Infallible>(Frame::data(line)), teller))
    });
    let mut response = typed(StatusCode::OK, "application/x-ndjson", Bytes::new());
    *response.body_mut() = StreamBody::new(lines).boxed_unsync();
    response
}

struct Teller {
    identity: String,
    lifecycle: Lifecycle,
    phase: watch::Receiver<Phase>,
    listening: Listening,
    first: bool,
}

impl Teller {
    async fn next(&mut self) -> Bytes {
        if !std::mem::take(&mut self.first) {
            tokio::select! {
                Ok(()) = self.phase.changed() => {}
                Ok(()) = self.listening.changed() => {}
                () = tokio::time::sleep(BEAT) => {}
            }
        }
        self.phase.mark_unchanged();
        self.listening.mark_unchanged();
        let report = PeerReport::now(&self.identity, &self.lifecycle, &self.listening);
        let mut line = serde_json::to_vec(&report).expect("strings, numbers and a flag are JSON");
        line.push(b'\n');
        line.into()
    }
}
