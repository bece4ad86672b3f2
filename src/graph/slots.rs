//! Parts of a graph by number, each shared with the graphs before and after it that have it too.
//!
//! A part keeps its number from graph to graph as long as it is used, so that what refers to it
//! can be shared as well; the slot of one that is gone stays empty until it is used again.

use std::ops::{Index, IndexMut};
use std::sync::Arc;

/// See the module's documentation.
#[derive(Debug)]
pub struct Slots<T> {
    parts: Parts<T>,
    /// The numbers of the parts that were made for this graph, rising.
    fresh: Box<[u32]>,
}

type Parts<T> = Arc<[Option<Arc<T>>]>;

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Slots { parts: Arc::default(), fresh: Box::default() }
    }
}

impl<T> From<Vec<T>> for Slots<T> {
    fn from(parts: Vec<T>) -> Self {
        let mut filling = Filling::default();
        parts.into_iter().for_each(|part| _ = filling.add(part));
        filling.finish()
    }
}

impl<T> Slots<T> {
    /// How many parts there are.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    pub fn is_empty(&self) -> bool {
        self.parts.iter().all(Option::is_none)
    }

    /// The part of this number, if there is one.
    pub fn get(&self, number: usize) -> Option<&T> {
        self.parts.get(number)?.as_deref()
    }

    /// Every part, by rising numbers.
    pub fn iter(&self) -> <&Self as IntoIterator>::IntoIter {
        self.into_iter()
    }

    /// Every part with its number.
    pub(super) fn numbered(&self) -> impl Iterator<Item = (u32, &T)> {
        (0..).zip(self.parts.iter()).filter_map(|(n, part)| Some((n, part.as_deref()?)))
    }

    /// The parts that no other graph shares yet.
    pub(super) fn fresh(&mut self) -> impl Iterator<Item = &mut T> {
        let mut fresh = self.fresh.iter().peekable();
        let parts = Arc::get_mut(&mut self.parts).into_iter().flatten();
        (0..).zip(parts).filter_map(move |(n, part)| {
            fresh.next_if_eq(&&n)?;
            part.as_mut().and_then(Arc::get_mut)
        })
    }

    /// The parts that `next`, a graph made after this one, does not share.
    pub(super) fn not_in(&self, next: &Self) -> impl Iterator<Item = &T> {
        let same = |n: usize, part: &Arc<T>| {
            next.parts
                .get(n)
                .is_some_and(|now| now.as_ref().is_some_and(|now| Arc::ptr_eq(now, part)))
        };
        let parts = self.parts.iter().enumerate();
        parts.filter_map(move |(n, part)| {
            part.as_ref().filter(|part| !same(n, part)).map(Arc::as_ref)
        })
    }
}

impl<T> Index<usize> for Slots<T> {
    type Output = T;

    fn index(&self, number: usize) -> &T {
        self.parts[number].as_deref().expect("a graph refers only to parts that it has")
    }
}

/// For graphs that are being made: a part that is shared cannot be changed any more.
impl<T> IndexMut<usize> for Slots<T> {
    fn index_mut(&mut self, number: usize) -> &mut T {
        let part = Arc::get_mut(&mut self.parts).and_then(|parts| parts[number].as_mut());
        part.and_then(Arc::get_mut).expect("only what is not shared yet is changed")
    }
}

impl<'s, T> IntoIterator for &'s Slots<T> {
    type Item = &'s T;
    type IntoIter = std::iter::Map<
        std::iter::Flatten<std::slice::Iter<'s, Option<Arc<T>>>>,
        fn(&'s Arc<T>) -> &'s T,
    >;

    fn into_iter(self) -> Self::IntoIter {
        self.parts.iter().flatten().map(Arc::as_ref)
    }
}

/// Fills slots for the next graph: those of the last one are kept for what they held.
#[derive(Debug)]
pub(super) struct Filling<T> {
    last: Parts<T>,
    now: Vec<Option<Arc<T>>>,
    /// The numbers of what is in `now` and not of `last`.
    fresh: Vec<u32>,
    /// No slot before this one is free.
    next: usize,
}

impl<T> Default for Filling<T> {
    fn default() -> Self {
        Filling { last: Arc::default(), now: Vec::new(), fresh: Vec::new(), next: 0 }
    }
}

impl<T> Filling<T> {
    pub fn after(last: &Slots<T>) -> Self {
        let now = std::iter::repeat_with(|| None).take(last.parts.len()).collect();
        Filling { last: Arc::clone(&last.parts), now, ..Filling::default() }
    }

    /// What is there of this number by now.
    pub fn get(&self, number: u32) -> Option<&T> {
        self.now.get(number as usize)?.as_deref()
    }

    /// What the last graph had there.
    pub fn before(&self, number: u32) -> Option<&T> {
        self.last.get(number as usize)?.as_deref()
    }

    /// Takes over what the last graph had there, unless something is there already.
    pub fn keep(&mut self, number: u32) {
        let at = number as usize;
        if self.now[at].is_none() {
            self.now[at].clone_from(&self.last[at]);
        }
    }

    /// Puts a part where the last graph had it, or something in its place.
    pub fn put(&mut self, number: u32, part: T) {
        self.now[number as usize] = Some(Arc::new(part));
        self.fresh.push(number);
    }

    /// Adds a part where the last graph had none.
    pub fn add(&mut self, part: T) -> u32 {
        let is_free =
            |at: &usize| self.now[*at].is_none() && self.last.get(*at).is_none_or(Option::is_none);
        let at = (self.next..self.now.len()).find(is_free).unwrap_or(self.now.len());
        self.next = at + 1;
        if at == self.now.len() {
            self.now.push(None);
        }
        self.now[at] = Some(Arc::new(part));
        // Objects fit into the memory of a pod, so there are never 2^32 of them.
        let number = u32::try_from(at).expect("fewer than 2^32 parts of a graph");
        self.fresh.push(number);
        number
    }

    pub fn finish(mut self) -> Slots<T> {
        while self.now.last().is_some_and(Option::is_none) {
            self.now.pop();
        }
        self.fresh.sort_unstable();
        self.fresh.dedup();
        Slots { parts: self.now.into(), fresh: self.fresh.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(parts: &[&'static str]) -> Slots<&'static str> {
        let mut filling = Filling::default();
        parts.iter().for_each(|part| _ = filling.add(*part));
        filling.finish()
    }

    #[test]
    fn what_is_kept_is_the_same_under_its_number() {
        let last = slots(&["a", "b", "c"]);
        let mut filling = Filling::after(&last);
        filling.keep(2);
        assert_eq!((filling.get(1), filling.before(1)), (None, Some(&"b")));
        let mut now = filling.finish();
        assert!(std::ptr::eq(&now[2], &last[2]));
        assert_eq!((now.len(), now.get(0), now.iter().collect::<Vec<_>>()), (1, None, vec![&"c"]));
        assert_eq!(now.fresh().count(), 0);
        assert_eq!(last.not_in(&now).collect::<Vec<_>>(), [&"a", &"b"]);
    }

    #[test]
    fn what_is_new_never_stands_where_the_last_graph_had_something_else() {
        let last = slots(&["a", "b"]);
        let mut filling = Filling::after(&last);
        assert_eq!(filling.add("c"), 2);
        filling.put(0, "z");
        filling.keep(0);
        let mut now = filling.finish();
        assert_eq!(now.fresh().collect::<Vec<_>>(), [&"z", &"c"]);
        assert_eq!(last.not_in(&now).collect::<Vec<_>>(), [&"a", &"b"]);
        let mut filling = Filling::after(&last);
        filling.add("c");
        let now = filling.finish();
        // By now the first two are free.
        let mut filling = Filling::after(&now);
        filling.keep(2);
        assert_eq!([filling.add("d"), filling.add("e"), filling.add("f")], [0, 1, 3]);
    }

    #[test]
    fn slots_do_not_pile_up_at_the_end() {
        let last = slots(&["a", "b", "c"]);
        let mut filling = Filling::after(&last);
        filling.keep(0);
        let now = filling.finish();
        assert_eq!(now.parts.len(), 1);
        assert!(slots(&[]).is_empty() && !now.is_empty());
    }
}
