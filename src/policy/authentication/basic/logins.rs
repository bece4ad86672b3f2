//! Logins that were good, so that a slow hash is not checked for each request.
//!
//! A table of fixed size without locks. Nothing of a password is kept: an entry is 64 bits of an
//! HMAC, under a key that never leaves the process, over the user, the password and the stored
//! hash. So a changed hash ends a login, and a wrong password passes by chance once in 2^62
//! tries.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use aws_lc_rs::hmac::{self, HMAC_SHA256};

/// Places that an entry may have.
const WAYS: usize = 4;
/// Entries of one policy: 8 KiB.
const ENTRIES: usize = 1024;

/// See the module's documentation.
pub struct Logins {
    /// None, if the machine gave no randomness: then nothing is remembered.
    key: Option<hmac::Key>,
    entries: Box<[AtomicU64]>,
}

/// A login, as it is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(Option<u64>);

impl Default for Logins {
    fn default() -> Self {
        let random = aws_lc_rs::rand::SystemRandom::new();
        Logins {
            key: hmac::Key::generate(HMAC_SHA256, &random).ok(),
            entries: (0..ENTRIES).map(|_| AtomicU64::new(0)).collect(),
        }
    }
}

impl std::fmt::Debug for Logins {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Logins")
    }
}

impl Logins {
    pub fn fingerprint(&self, user: &str, password: &[u8], hash: &str) -> Fingerprint {
        let Some(key) = &self.key else { return Fingerprint(None) };
        let mut context = hmac::Context::with_key(key);
        for part in [user.as_bytes(), password, hash.as_bytes()] {
            // With its length, so that no part can reach into the next.
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part);
        }
        let tag = context.sign();
        let bytes = tag.as_ref().first_chunk().copied();
        Fingerprint(bytes.map(|bytes| u64::from_le_bytes(bytes).max(1)))
    }

    pub fn remembers(&self, login: Fingerprint) -> bool {
        let Fingerprint(Some(login)) = login else { return false };
        self.places(login).iter().any(|place| place.load(Relaxed) == login)
    }

    /// Takes a free place, or one by chance.
    pub fn remember(&self, login: Fingerprint) {
        let Fingerprint(Some(login)) = login else { return };
        let places = self.places(login);
        let free = places.iter().find(|place| place.load(Relaxed) == 0);
        let place = free.unwrap_or_else(|| &places[fastrand::usize(..WAYS)]);
        place.store(login, Relaxed);
    }

    fn places(&self, login: u64) -> &[AtomicU64] {
        let set = (login as usize) % (ENTRIES / WAYS);
        &self.entries[set * WAYS..(set + 1) * WAYS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_login_is_remembered() {
        let logins = Logins::default();
        logins.remember(logins.fingerprint("bob", b"password", "hash"));
        assert!(logins.remembers(logins.fingerprint("bob", b"password", "hash")));
        for (user, password, hash) in
            [("bob", "password", "hash2"), ("bob", "passwor", "dhash"), ("bo", "bpassword", "hash")]
        {
            assert!(!logins.remembers(logins.fingerprint(user, password.as_bytes(), hash)));
        }
    }

    #[test]
    fn the_key_is_the_policy_s_own() {
        let (one, two) = (Logins::default(), Logins::default());
        assert_ne!(one.fingerprint("a", b"b", "c"), two.fingerprint("a", b"b", "c"));
    }

    #[test]
    fn more_logins_than_places_forget_some() {
        let logins = Logins::default();
        let all: Vec<_> = (0..5000).map(|n: u32| n.to_le_bytes()).collect();
        for password in &all {
            logins.remember(logins.fingerprint("a", password, ""));
        }
        let kept = all.iter().filter(|p| logins.remembers(logins.fingerprint("a", *p, ""))).count();
        assert!(kept > ENTRIES / 2 && kept <= ENTRIES, "{kept}");
    }
}
