//! A client's connection as those see it who have a part in it: its own future, the body of
//! its request, and whoever asks it for an interim answer or for the connection itself.
//!
//! All are on one thread. The body may be read by another task than the connection's own (the
//! one that writes to an HTTP/2 backend), so each says when the other has something to do.

use std::cell::{RefCell, RefMut};
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use http::{HeaderMap, StatusCode};
use tokio::sync::oneshot;

use super::buffered::Buffered;
use super::encode;
use super::framing::{Decoded, Decoder, Framing};
use crate::proxy::conn::Io;
use crate::proxy::peeked::Peeked;
use crate::proxy::upgrade::{OnUpgrade, Upgraded};

/// Of a request's body that nobody wanted: what is read so that the connection can be used on.
const MOST_LEFT: usize = 64 * 1024;

/// See the module's documentation.
#[derive(Debug)]
pub struct Shared(RefCell<Inner>);

/// What is shared. Nobody holds it while it calls somebody else.
#[derive(Debug)]
pub struct Inner {
    /// `None` once the connection has another protocol.
    pub wire: Option<Buffered<Io>>,
    /// The body of the request.
    pub decoder: Decoder,
    /// Somebody has the body, and may still read it.
    pub is_held: bool,
    /// Reading the body failed: nothing more can be read from the connection.
    pub is_broken: bool,
    /// The client sends the body only once it was told 100 (Continue).
    pub awaits_continue: bool,
    /// Counts heads, of requests and of their answers: interim answers stand between both.
    turn: u32,
    /// Who is woken when the body is over or given up by another task.
    connection: Option<Waker>,
    upgrade: Option<oneshot::Sender<Upgraded>>,
}

impl Shared {
    pub fn new(wire: Buffered<Io>) -> Rc<Self> {
        Rc::new(Shared(RefCell::new(Inner {
            wire: Some(wire),
            decoder: Decoder::new(Framing::Empty),
            is_held: false,
            is_broken: false,
            awaits_continue: false,
            turn: 0,
            connection: None,
            upgrade: None,
        })))
    }

    pub fn inner(&self) -> RefMut<'_, Inner> {
        self.0.borrow_mut()
    }
}

impl Inner {
    /// # Errors
    /// The connection has another protocol.
    pub fn wire(&mut self) -> io::Result<&mut Buffered<Io>> {
        self.wire.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.wire {
            Some(wire) => wire.poll_flush(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    /// The next request has come.
    pub fn begin(&mut self, framing: Framing, expects_continue: bool) {
        self.decoder = Decoder::new(framing);
        self.is_held = !self.decoder.is_done();
        self.awaits_continue = expects_continue && self.is_held;
        self.turn = self.turn.wrapping_add(1);
        self.upgrade = None;
    }

    /// Its final answer has come: it takes no interim ones any more, not even 100. Whether a body
    /// comes that the client was not told to send is not known: nothing more can be read then.
    pub fn answered(&mut self) {
        self.turn = self.turn.wrapping_add(1);
        self.is_broken |= std::mem::take(&mut self.awaits_continue);
    }

    /// Whether the next request may be read: the body of this one is over.
    pub fn is_read(&self) -> bool {
        self.decoder.is_done() && !self.is_broken
    }

    /// Notes who has to be woken when another task is done with the body.
    pub fn note_connection(&mut self, cx: &Context<'_>) {
        match &mut self.connection {
            Some(waker) => waker.clone_from(cx.waker()),
            None => self.connection = Some(cx.waker().clone()),
        }
    }

    /// Wakes the connection's own task, unless it is the one that runs.
    pub fn wake_connection(&self, running: Option<&Waker>) {
        let Some(waker) = &self.connection else { return };
        if !running.is_some_and(|running| running.will_wake(waker)) {
            waker.wake_by_ref();
        }
    }

    /// Tells the client to send the body.
    pub fn say_continue(&mut self, cx: &Context<'_>) {
        self.awaits_continue = false;
        if let Some(wire) = &mut self.wire {
            let none = HeaderMap::new();
            encode::interim_head(&mut wire.write, StatusCode::CONTINUE, &none);
        }
        self.wake_connection(Some(cx.waker()));
    }

    /// Whether the next request can be read after this one's answer, as far as that is known by now.
    /// A body that nobody wants is read if it is short and there already.
    pub fn may_go_on(&mut self, cx: &mut Context<'_>) -> bool {
        if self.is_read() || self.is_held {
            return !self.awaits_continue;
        }
        // Whether the client sends a body that it was not told to send is not known.
        if self.is_broken || self.awaits_continue {
            return false;
        }
        let Some(wire) = &mut self.wire else { return false };
        let mut left = MOST_LEFT;
        loop {
            match self.decoder.decode(&mut wire.read) {
                Ok(Decoded::Data(data)) => match left.checked_sub(data.len()) {
                    Some(less) => left = less,
                    None => return false,
                },
                Ok(Decoded::Trailers(_)) => {}
                Ok(Decoded::Done) => return true,
                Ok(Decoded::NeedMore) => {
                    if !matches!(wire.poll_fill(cx), Poll::Ready(Ok(1..))) {
                        return false;
                    }
                }
                Err(_) => {
                    self.is_broken = true;
                    return false;
                }
            }
        }
    }

    /// Gives the connection to whoever asked for it.
    pub fn hand_over(&mut self) {
        if let (Some(to), Some(wire)) = (self.upgrade.take(), self.wire.take()) {
            // Whoever asked may be gone: then the connection ends.
            let _ = to.send(Upgraded::Left(Peeked::new(wire.read, wire.io.wire)));
        }
    }

    pub fn is_asked_for(&self) -> bool {
        self.upgrade.is_some()
    }
}

/// What the connection of a request can do besides giving its body.
#[derive(Debug)]
pub struct Lane {
    shared: Rc<Shared>,
    is_http11: bool,
}

impl Lane {
    pub fn new(shared: &Rc<Shared>, is_http11: bool) -> Self {
        Lane { shared: Rc::clone(shared), is_http11 }
    }

    /// Asks for the connection itself, which comes once the client was answered 101; `None` for
    /// a client of HTTP/1.0, which knows no Upgrade (RFC 9110, 7.8).
    pub fn on_upgrade(&self) -> Option<OnUpgrade> {
        self.is_http11.then(|| {
            let (upgrade, upgraded) = oneshot::channel();
            self.shared.inner().upgrade = Some(upgrade);
            OnUpgrade::Http1(upgraded)
        })
    }

    /// The way for interim answers; `None` for a client of HTTP/1.0, which knows none (RFC 9110, 15.2).
    pub fn into_interim(self) -> Option<Interim> {
        let turn = self.shared.inner().turn;
        self.is_http11.then_some(Interim { shared: self.shared, turn })
    }
}

/// Sends interim answers (1xx) before the final one.
#[derive(Clone, Debug)]
pub struct Interim {
    shared: Rc<Shared>,
    turn: u32,
}

impl Interim {
    /// Adds one to what the connection writes as soon as it is polled again; nothing once the
    /// final answer has come. 100 and 101 are not sent here: they are between us and the client.
    pub fn send(&self, status: StatusCode, headers: &HeaderMap) {
        let mut inner = self.shared.inner();
        if inner.turn != self.turn || matches!(status.as_u16(), 100 | 101) {
            return;
        }
        if let Some(wire) = &mut inner.wire {
            encode::interim_head(&mut wire.write, status, headers);
        }
    }
}
