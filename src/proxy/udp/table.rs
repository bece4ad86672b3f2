//! The sessions of one port on one worker, by who speaks with whom.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use super::session::Session;
use super::socket::Between;

/// How many sessions are looked at to find one that can go.
const SAMPLE: usize = 16;
/// A session that was used within this time is not given up for another: so nobody who invents
/// addresses can end the sessions of those who speak.
const BUSY: Duration = Duration::from_secs(1);

/// See the module's documentation. Anybody can choose the addresses that are its keys, so its
/// hashes are seeded.
#[derive(Debug)]
pub struct Table<S = Rc<Session>> {
    places: HashMap<Between, usize>,
    sessions: Vec<(Between, S)>,
}

impl<S> Default for Table<S> {
    fn default() -> Self {
        Table { places: HashMap::new(), sessions: Vec::new() }
    }
}

impl<S> Table<S> {
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    pub fn get(&self, between: &Between) -> Option<&S> {
        self.places.get(between).map(|place| &self.sessions[*place].1)
    }

    pub fn insert(&mut self, between: Between, session: S) {
        self.places.insert(between, self.sessions.len());
        self.sessions.push((between, session));
    }

    pub fn remove(&mut self, between: &Between) -> Option<S> {
        let place = self.places.remove(between)?;
        let (_, session) = self.sessions.swap_remove(place);
        if let Some((moved, _)) = self.sessions.get(place) {
            self.places.insert(*moved, place);
        }
        Some(session)
    }

    /// Takes out the session that has been silent for longest of a few that are chosen by
    /// chance. None if all of them are busy.
    pub fn give_up_one(&mut self, silence: impl Fn(&S) -> Duration) -> Option<S> {
        let sample = (0..SAMPLE.min(self.sessions.len())).map(|_| {
            let (between, session) = &self.sessions[fastrand::usize(..self.sessions.len())];
            (silence(session), *between)
        });
        let (silence, between) = sample.max_by_key(|(silence, _)| *silence)?;
        (silence >= BUSY).then(|| self.remove(&between)).flatten()
    }

    pub fn drain(&mut self) -> impl Iterator<Item = S> {
        self.places.clear();
        std::mem::take(&mut self.sessions).into_iter().map(|(_, session)| session)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn between(port: u16) -> Between {
        Between::test(port)
    }

    fn table(silences: &[u64]) -> Table<Duration> {
        let mut table = Table::default();
        for (port, silence) in (1..).zip(silences) {
            table.insert(between(port), Duration::from_secs(*silence));
        }
        table
    }

    #[test]
    fn a_session_is_found_until_it_is_removed() {
        let mut table = table(&[1, 2, 3]);
        assert_eq!(table.remove(&between(1)), Some(Duration::from_secs(1)));
        assert_eq!(table.get(&between(1)), None);
        for port in [2, 3] {
            assert_eq!(table.get(&between(port)), Some(&Duration::from_secs(port.into())));
        }
        assert_eq!(table.remove(&between(3)), Some(Duration::from_secs(3)));
        assert_eq!(table.get(&between(2)), Some(&Duration::from_secs(2)));
        assert_eq!(table.drain().count(), 1);
        assert_eq!(table.get(&between(2)), None);
    }

    #[test]
    fn a_silent_session_gives_way_and_a_busy_one_does_not() {
        let mut table = table(&[0, 0, 50]);
        let mut gone = None;
        for _ in 0..100 {
            gone = gone.or_else(|| table.give_up_one(|silence| *silence));
        }
        assert_eq!(gone, Some(Duration::from_secs(50)));
        assert_eq!(table.sessions.len(), 2, "busy ones stay");
        assert_eq!(Table::<Duration>::default().give_up_one(|silence| *silence), None);
    }
}
