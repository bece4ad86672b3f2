//! Whose turn it is to begin a request, when many have come at once.
//!
//! A request that has begun takes memory until it is answered, here and in the kernel. Were all
//! that are ready begun before any answer is read, the first would have left the processor's
//! caches by the time it is needed again. So a worker begins some, lets the runtime look for
//! answers, and begins the next. Nobody waits for an answer: where none has come, more begin.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

use tokio::task::yield_now;

/// Requests that are begun between two looks for answers.
const MOST: usize = 32;

/// See the module's documentation. Stays on its worker's thread.
#[derive(Debug, Default)]
pub struct Turns {
    /// Begun since the last look.
    begun: Cell<usize>,
    /// Who waits, in order.
    queue: RefCell<VecDeque<Waker>>,
    /// The number of the first in the queue: below it all may begin.
    first: Cell<u64>,
    /// Of [`Turns::run`], while the queue is empty.
    usher: RefCell<Option<Waker>>,
}

/// A place in the queue, if its holder has one.
#[derive(Debug, Default)]
pub struct Ticket(Cell<Option<u64>>);

impl Turns {
    /// Ready when the holder of `ticket` may begin a request. Between two polls it may be given
    /// up: then its turn passes unused.
    pub fn poll(&self, ticket: &Ticket, cx: &Context<'_>) -> Poll<()> {
        let mut queue = self.queue.borrow_mut();
        match ticket.0.get().map(|number| number.checked_sub(self.first.get())) {
            None if self.begun.get() < MOST => {
                self.begun.set(self.begun.get() + 1);
                return Poll::Ready(());
            }
            None => {
                ticket.0.set(Some(self.first.get() + queue.len() as u64));
                queue.push_back(cx.waker().clone());
                if let Some(usher) = self.usher.take() {
                    usher.wake();
                }
            }
            Some(None) => {
                ticket.0.set(None);
                return Poll::Ready(());
            }
            Some(Some(place)) => {
                let place = usize::try_from(place).ok().and_then(|place| queue.get_mut(place));
                place.expect("who waits is in the queue").clone_from(cx.waker());
            }
        }
        Poll::Pending
    }

    /// Lets those who wait begin, some whenever the runtime has looked for events. Never ends.
    pub async fn run(&self) {
        loop {
            poll_fn(|cx| self.poll_waiting(cx)).await;
            // The runtime goes on with a task that yields only after it has looked.
            yield_now().await;
            self.begun.set(0);
            while self.begun.get() < MOST {
                let Some(waker) = self.queue.borrow_mut().pop_front() else { break };
                self.begun.set(self.begun.get() + 1);
                self.first.set(self.first.get() + 1);
                waker.wake();
            }
        }
    }

    /// Ready when somebody waits.
    fn poll_waiting(&self, cx: &Context<'_>) -> Poll<()> {
        if !self.queue.borrow().is_empty() {
            return Poll::Ready(());
        }
        self.usher.replace(Some(cx.waker().clone()));
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    fn begins(turns: &Turns, ticket: &Ticket) -> bool {
        turns.poll(ticket, &Context::from_waker(Waker::noop())).is_ready()
    }

    /// How many of `tickets` may begin.
    fn begin(turns: &Turns, tickets: &[Ticket]) -> usize {
        tickets.iter().filter(|ticket| begins(turns, ticket)).count()
    }

    fn tickets(many: usize) -> Vec<Ticket> {
        (0..many).map(|_| Ticket::default()).collect()
    }

    #[tokio::test]
    async fn some_begin_between_two_looks_for_answers_and_the_others_in_their_order() {
        let turns = Turns::default();
        let mut run = pin!(turns.run());
        let mut look = || run.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending();
        assert!(look());
        let all = tickets(2 * MOST + 1);
        assert_eq!(begin(&turns, &all), MOST);
        let waiting = &all[MOST..];
        assert_eq!(begin(&turns, waiting), 0);
        assert!(look(), "it is woken, and yields");
        assert_eq!(begin(&turns, waiting), 0);
        assert!(look());
        assert!(!begins(&turns, &waiting[MOST]), "the last one still waits");
        assert_eq!(begin(&turns, waiting), MOST);
        assert!(look());
        assert!(begins(&turns, &waiting[MOST]));
        assert!(begins(&turns, &Ticket::default()), "there is room again");
    }

    #[tokio::test]
    async fn who_gives_up_waiting_holds_nobody_up() {
        let turns = Turns::default();
        let mut run = pin!(turns.run());
        let mut look = || run.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending();
        assert_eq!(begin(&turns, &tickets(MOST)), MOST);
        assert_eq!(begin(&turns, &tickets(MOST - 1)), 0);
        let last = Ticket::default();
        assert!(!begins(&turns, &last));
        assert!(look() && look());
        assert!(begins(&turns, &last));
    }

    #[tokio::test]
    async fn who_waits_is_woken_by_the_waker_of_its_last_poll() {
        let turns = Turns::default();
        assert_eq!(begin(&turns, &tickets(MOST)), MOST);
        let ticket = Ticket::default();
        assert!(!begins(&turns, &ticket));
        // The first waker is nobody's: the test would not end.
        tokio::select! {
            biased;
            () = poll_fn(|cx| turns.poll(&ticket, cx)) => {}
            () = turns.run() => {}
        }
    }
}
