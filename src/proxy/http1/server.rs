//! A client's connection that speaks HTTP/1.1 (RFC 9112), from its first head to its end.
//!
//! One future does everything: it reads a head, polls the exchange that it begins, and writes
//! the answer, all in one task. It keeps no time: the connection's [`Timeline`] is told what
//! happens, and who drives the connection cuts it when a deadline passes.
//!
//! [`Timeline`]: crate::proxy::conn::Timeline

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use futures_util::future::LocalBoxFuture;
use http::header::CONNECTION;
use http::{Request, Response, StatusCode, Version};

use super::body::Body;
use super::buffered::Buffered;
use super::encode;
use super::framing::Framing;
use super::head::{self, BadHead, RequestHead};
use super::respond::{Answer, Asked, BrokenOff};
use super::shared::{Lane, Shared};
use crate::proxy::conn::Io;
use crate::proxy::incoming::Incoming;

/// What a client may still send after its last answer, before the connection is reset.
const MOST_LINGERING: usize = 256 * 1024;

/// What answers requests.
pub trait Service {
    type Body: http_body::Body<Data = Bytes, Error: std::fmt::Display> + Unpin;

    /// Answers a request.
    fn call(
        &self,
        request: Request<Incoming>,
        lane: Lane,
    ) -> LocalBoxFuture<'static, Response<Self::Body>>;

    /// Ready when a request that has come may be read.
    fn poll_turn(&self, _cx: &Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    /// Answers a head that is no request.
    fn refuse(&self, bad: BadHead) -> Response<Self::Body>;
}

/// Why a connection ended otherwise than by agreement.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    #[error("the client is gone")]
    Gone,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the answer broke off: {0}")]
    BrokenOff(#[from] BrokenOff),
    #[error("a change of protocol that the client did not ask for")]
    Unasked,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Connection<S: Service> {
    shared: Rc<Shared>,
    service: S,
    limits: head::Limits,
    /// What the request that is being answered asked for.
    asked: Asked,
    state: State<S::Body>,
    /// The connection ends with the answer that is due, or at once if none is.
    is_leaving: bool,
}

enum State<B> {
    /// Between two requests, or in the middle of a head.
    Head,
    /// An exchange is under way.
    Handling(LocalBoxFuture<'static, Response<B>>),
    Answering {
        answer: Answer<B>,
        closes: bool,
    },
    /// 101 is being written.
    Switching,
    /// The answer is complete, but not the request.
    Unread,
    /// Nothing is answered any more.
    Closing {
        /// The client may still be sending.
        lingers: bool,
    },
    /// What comes is thrown away: a reset could take the answer from the client before it was
    /// read (RFC 9112, 9.6).
    Lingering {
        left: usize,
    },
}

impl<B> std::fmt::Debug for State<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            State::Head => "Head",
            State::Handling(_) => "Handling",
            State::Answering { .. } => "Answering",
            State::Switching => "Switching",
            State::Unread => "Unread",
            State::Closing { .. } => "Closing",
            State::Lingering { .. } => "Lingering",
        })
    }
}

/// What follows a state.
enum Next<B> {
    State(State<B>),
    End,
}

type Step<B> = Poll<Result<Next<B>, Ended>>;

fn to<B>(state: State<B>) -> Step<B> {
    Poll::Ready(Ok(Next::State(state)))
}

impl<S: Service> Connection<S> {
    /// `read` was taken from `io` before.
    pub fn new(io: Io, read: BytesMut, limits: head::Limits, service: S) -> Self {
        Connection {
            shared: Shared::new(Buffered::new(io, read)),
            service,
            limits,
            asked: Asked::unread(),
            state: State::Head,
            is_leaving: false,
        }
    }

    /// Ends the connection: at once if it is idle, or else with the answer that is due.
    pub fn leave(&mut self) {
        self.is_leaving = true;
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Step<S::Body> {
        let mut inner = self.shared.inner();
        let wire = inner.wire()?;
        loop {
            match head::request(&mut wire.read, &self.limits) {
                Ok(Some(head)) => {
                    drop(inner);
                    return to(self.begin(head, cx));
                }
                Ok(None) => {}
                Err(bad) => {
                    drop(inner);
                    return self.refuse(bad);
                }
            }
            if wire.read.is_empty() {
                if self.is_leaving {
                    return to(State::Closing { lingers: false });
                }
                wire.rest();
                if !wire.io.wire.is_quiet() {
                    ready!(self.service.poll_turn(cx));
                }
            } else {
                wire.io.timeline.await_head();
            }
            if ready!(wire.poll_fill(cx))? == 0 {
                if wire.read.is_empty() {
                    return to(State::Closing { lingers: false });
                }
                return Poll::Ready(Err(Ended::Gone));
            }
        }
    }

    fn begin(&mut self, head: RequestHead, cx: &Context<'_>) -> State<S::Body> {
        let RequestHead { parts, framing, keep_alive, expects_continue } = head;
        self.asked = Asked::of(&parts.method, parts.version, &parts.headers, keep_alive);
        let mut inner = self.shared.inner();
        inner.begin(framing, expects_continue);
        let has_body = inner.is_held;
        if has_body {
            inner.note_connection(cx);
        }
        drop(inner);
        let body = match has_body {
            true => Incoming::Http1(Body::new(&self.shared)),
            false => Incoming::Empty,
        };
        let lane = Lane::new(&self.shared, parts.version == Version::HTTP_11);
        State::Handling(self.service.call(Request::from_parts(parts, body), lane))
    }

    fn refuse(&mut self, bad: BadHead) -> Step<S::Body> {
        tracing::debug!(%bad, "a request's head was refused");
        self.asked = Asked::unread();
        let refusal = self.service.refuse(bad);
        // Where the next request begins is not known.
        self.shared.inner().is_broken = true;
        Poll::Ready(self.answer(refusal, false).map(Next::State))
    }

    /// While something is awaited: writes what there is, and looks whether the client is gone.
    fn poll_wait(&self, cx: &mut Context<'_>) -> Step<S::Body> {
        let mut inner = self.shared.inner();
        if inner.is_held {
            inner.note_connection(cx);
        }
        if let Poll::Ready(flushed) = inner.poll_flush(cx) {
            flushed?;
        }
        // A part of the next request says that the client is there.
        let may_read = inner.is_read();
        let wire = inner.wire()?;
        if may_read && wire.read.is_empty() && ready!(wire.poll_fill(cx))? == 0 {
            return Poll::Ready(Err(Ended::Gone));
        }
        Poll::Pending
    }

    /// Writes the head of an answer; `may_go_on` as [`super::shared::Inner::may_go_on`] says.
    fn answer(
        &mut self,
        response: Response<S::Body>,
        may_go_on: bool,
    ) -> Result<State<S::Body>, Ended> {
        let (mut parts, body) = response.into_parts();
        let is_last = parts.headers.remove(CONNECTION).is_some();
        let (answer, framing) = Answer::new(self.asked, parts.status, body);
        let closes = is_last
            || self.is_leaving
            || !may_go_on
            || !self.asked.keep_alive
            || answer.is_until_close();
        let (version, status) = (self.asked.version(), parts.status);
        let mut inner = self.shared.inner();
        inner.answered();
        let out = &mut inner.wire()?.write;
        encode::response_head(out, version, status, &parts.headers, framing, closes);
        Ok(State::Answering { answer, closes })
    }

    /// Writes 101.
    fn switch(&self, response: Response<S::Body>) -> Result<State<S::Body>, Ended> {
        let (parts, body) = response.into_parts();
        drop(body);
        let mut inner = self.shared.inner();
        if !inner.is_asked_for() || !inner.is_read() {
            return Err(Ended::Unasked);
        }
        inner.answered();
        let (status, fields) = (parts.status, &parts.headers);
        let out = &mut inner.wire()?.write;
        encode::response_head(out, Version::HTTP_11, status, fields, Framing::Empty, false);
        Ok(State::Switching)
    }

    fn respond(&mut self, response: Response<S::Body>, cx: &mut Context<'_>) -> Step<S::Body> {
        let state = if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            self.switch(response)?
        } else {
            let may_go_on = self.shared.inner().may_go_on(cx);
            self.answer(response, may_go_on)?
        };
        to(state)
    }

    /// What comes after an answer that was written.
    fn after(&self, closes: bool) -> State<S::Body> {
        let inner = self.shared.inner();
        let is_read = inner.is_read();
        match closes {
            false if is_read => State::Head,
            false => State::Unread,
            true => {
                let knows = !self.asked.keep_alive && is_read;
                let sends = inner.wire.as_ref().is_some_and(|wire| !wire.read.is_empty());
                State::Closing { lingers: !knows || sends }
            }
        }
    }

    fn poll_unread(&self, cx: &mut Context<'_>) -> Step<S::Body> {
        let mut inner = self.shared.inner();
        if inner.is_held {
            inner.note_connection(cx);
            return Poll::Pending;
        }
        match inner.may_go_on(cx) {
            true => to(State::Head),
            false => to(State::Closing { lingers: true }),
        }
    }

    fn poll_switch(&self, cx: &mut Context<'_>) -> Step<S::Body> {
        let mut inner = self.shared.inner();
        ready!(inner.poll_flush(cx))?;
        inner.hand_over();
        Poll::Ready(Ok(Next::End))
    }

    fn poll_close(&self, lingers: bool, cx: &mut Context<'_>) -> Step<S::Body> {
        let mut inner = self.shared.inner();
        let wire = inner.wire()?;
        ready!(wire.poll_flush(cx))?;
        if lingers {
            wire.io.timeline.linger();
        }
        // Closing a TCP connection says the same, if nothing came that was not read.
        if lingers || wire.io.wire.is_tls() {
            ready!(wire.poll_shutdown(cx))?;
        }
        match lingers {
            true => to(State::Lingering { left: MOST_LINGERING }),
            false => Poll::Ready(Ok(Next::End)),
        }
    }
}

/// Writes an answer until there is nothing more of it; true once it is over. False: its body
/// has to be waited for.
fn poll_answer<B>(
    answer: &mut Answer<B>,
    shared: &Shared,
    cx: &mut Context<'_>,
) -> Poll<Result<bool, Ended>>
where
    B: http_body::Body<Data = Bytes, Error: std::fmt::Display> + Unpin,
{
    while !answer.is_over() {
        let mut inner = shared.inner();
        if !inner.wire()?.has_room() {
            ready!(inner.poll_flush(cx))?;
        }
        drop(inner);
        let Poll::Ready(part) = answer.poll_part(cx) else { return Poll::Ready(Ok(false)) };
        let written = part.and_then(|part| match &mut shared.inner().wire {
            Some(wire) => answer.write(wire, part),
            None => Err(BrokenOff::Length),
        });
        if let Err(error) = written {
            // The client gets what there was.
            let _ = shared.inner().poll_flush(cx);
            return Poll::Ready(Err(error.into()));
        }
    }
    let flushed = shared.inner().poll_flush(cx);
    answer.let_go();
    ready!(flushed)?;
    Poll::Ready(Ok(true))
}

fn poll_linger<B>(left: &mut usize, shared: &Shared, cx: &mut Context<'_>) -> Step<B> {
    let mut inner = shared.inner();
    if inner.is_held {
        // Who reads the body reads what comes; the deadline holds for it too.
        inner.note_connection(cx);
        return Poll::Pending;
    }
    let wire = inner.wire()?;
    loop {
        wire.read.clear();
        match ready!(wire.poll_fill(cx)) {
            Ok(read @ 1..) if read < *left => *left -= read,
            _ => return Poll::Ready(Ok(Next::End)),
        }
    }
}

impl<S: Service + Unpin> Future for Connection<S> {
    type Output = Result<(), Ended>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        let this = self.get_mut();
        loop {
            let step = match &mut this.state {
                State::Head => this.poll_head(cx),
                State::Handling(exchange) => match exchange.as_mut().poll(cx) {
                    Poll::Ready(response) => this.respond(response, cx),
                    Poll::Pending => this.poll_wait(cx),
                },
                &mut State::Answering { ref mut answer, closes } => {
                    match ready!(poll_answer(answer, &this.shared, cx))? {
                        true => to(this.after(closes)),
                        false => this.poll_wait(cx),
                    }
                }
                State::Switching => this.poll_switch(cx),
                State::Unread => this.poll_unread(cx),
                &mut State::Closing { lingers } => this.poll_close(lingers, cx),
                State::Lingering { left } => poll_linger(left, &this.shared, cx),
            };
            match ready!(step)? {
                Next::State(state) => this.state = state,
                Next::End => return Poll::Ready(Ok(())),
            }
        }
    }
}

#[cfg(test)]
mod tests;
