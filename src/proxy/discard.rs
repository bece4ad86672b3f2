//! Answers that nobody gets: of mirrors, and of attempts that are made again.
//!
//! A short one is read to its end, so that its connection can be used again; a longer or slower
//! one is cut off.

use std::pin::Pin;
use std::time::Duration;

use http_body::Body;
use tokio::task::spawn_local;

use super::forward::Answer;
use super::incoming::Incoming;
use super::timer::{timed, timeout};

/// What reading is worth a connection.
const MOST_BYTES: usize = 64 * 1024;
const MOST_TIME: Duration = Duration::from_secs(1);

/// Drops an answer; `is_sent` if all of its request was sent: the connection serves no other
/// one before that.
pub fn discard(answer: Answer, is_sent: bool) {
    let Answer { response, link, in_flight } = answer;
    drop(in_flight);
    if !is_sent {
        return;
    }
    spawn_local(timed(async move {
        let reading = read(response.into_body(), MOST_BYTES);
        if timeout(MOST_TIME, reading).await == Ok(true) {
            link.release();
        }
    }));
}

/// Reads a body; whether it ended, before it was longer than `most`.
pub async fn read(mut body: Incoming, most: usize) -> bool {
    let mut bytes = 0;
    let mut body = Pin::new(&mut body);
    loop {
        match std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
            None => return true,
            Some(Ok(frame)) => bytes += frame.data_ref().map_or(0, bytes::Bytes::len),
            Some(Err(_)) => return false,
        }
        if bytes > most {
            return false;
        }
    }
}
