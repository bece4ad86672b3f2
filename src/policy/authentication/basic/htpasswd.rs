//! htpasswd lines, `USER:HASH`: parsed once, checked for each login.
//!
//! Known are bcrypt (`$2y$`, `$2a$`, `$2b$`), Apache's MD5 (`$apr1$`) and `{SHA}`. Plain text
//! and crypt(3) are refused: the first is no hash, the second is broken.

use std::collections::HashMap;
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest, Md5};

/// Most users of one Secret.
const MAX_USERS: usize = 10_000;
/// Highest cost of bcrypt: about a second of a CPU for each check.
const MAX_COST: u32 = 14;

/// The users of a Secret, at least one.
#[derive(Debug)]
pub struct Users {
    by_name: HashMap<Box<str>, Arc<Hash>>,
    decoy: Arc<Hash>,
}

/// A password's hash.
pub struct Hash {
    text: Box<str>,
    kind: Kind,
}

enum Kind {
    Sha1([u8; 20]),
    /// The salt; the digest stands behind the last `$` of the text.
    Apr1(Box<str>),
    Bcrypt {
        cost: u32,
    },
}

impl Users {
    /// Empty lines and lines that begin with `#` are skipped; of a user that stands there twice
    /// the first line counts, as in Apache.
    ///
    /// # Errors
    /// The number of the line and what is wrong with it, without anything of the line.
    pub fn parse(lines: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(lines).map_err(|_| "not UTF-8; save it as UTF-8")?;
        let mut by_name = HashMap::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (user, hash) = line
                .split_once(':')
                .ok_or_else(|| format!("line {number} has no `:`; write USER:HASH"))?;
            let hash = Hash::parse(hash).map_err(|error| format!("line {number}: {error}"))?;
            by_name.entry(user.into()).or_insert_with(|| Arc::new(hash));
            if by_name.len() > MAX_USERS {
                return Err(format!("more than {MAX_USERS} users; split them"));
            }
        }
        let decoy = by_name.values().max_by_key(|hash| hash.cost()).cloned();
        let decoy = decoy.ok_or("there is no user; add a line by `htpasswd -nB USER`")?;
        Ok(Users { by_name, decoy })
    }

    pub fn get(&self, user: &str) -> Option<&Arc<Hash>> {
        self.by_name.get(user)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Arc<Hash>)> {
        self.by_name.iter().map(|(name, hash)| (&**name, hash))
    }

    /// The hash that takes longest to check, for users that do not exist.
    pub fn decoy(&self) -> &Arc<Hash> {
        &self.decoy
    }
}

impl Hash {
    fn parse(text: &str) -> Result<Self, String> {
        let kind = if let Some(digest) = text.strip_prefix("{SHA}") {
            let digest = STANDARD.decode(digest).ok().and_then(|bytes| bytes.try_into().ok());
            Kind::Sha1(digest.ok_or("{SHA} is not followed by 20 bytes in base64")?)
        } else if let Some(rest) = text.strip_prefix("$apr1$") {
            match rest.split_once('$') {
                Some((salt, digest)) if salt.len() <= 8 && digest.len() == 22 => {
                    Kind::Apr1(salt.into())
                }
                _ => return Err("not $apr1$SALT$DIGEST; make it anew by `htpasswd -nB`".into()),
            }
        } else if ["$2y$", "$2a$", "$2b$"].iter().any(|prefix| text.starts_with(prefix)) {
            let parts: bcrypt::HashParts =
                text.parse().map_err(|_| "not a bcrypt hash; make it anew by `htpasswd -nB`")?;
            let cost = parts.get_cost();
            if cost > MAX_COST {
                return Err(format!("bcrypt of cost {cost}, at most {MAX_COST}; lower it"));
            }
            Kind::Bcrypt { cost }
        } else {
            return Err("neither bcrypt, $apr1$ nor {SHA}; make it by `htpasswd -nB`".into());
        };
        Ok(Hash { text: text.into(), kind })
    }

    /// As it stands in the Secret.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Takes as long as the hash is made for: up to a second.
    pub fn verify(&self, password: &[u8]) -> bool {
        match &self.kind {
            Kind::Sha1(expected) => {
                equal(digest(&SHA1_FOR_LEGACY_USE_ONLY, password).as_ref(), expected)
            }
            Kind::Apr1(salt) => equal(apr1(password, salt).as_bytes(), self.text.as_bytes()),
            Kind::Bcrypt { .. } => bcrypt::verify(password, &self.text).unwrap_or(false),
        }
    }

    /// For comparing: what checking costs.
    pub fn cost(&self) -> u32 {
        match self.kind {
            Kind::Sha1(_) => 0,
            Kind::Apr1(_) => 1,
            Kind::Bcrypt { cost } => 2 + cost,
        }
    }
}

/// Without what could be guessed from: logs must not help to guess.
impl std::fmt::Debug for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.kind {
            Kind::Sha1(_) => "Hash(SHA)",
            Kind::Apr1(_) => "Hash(apr1)",
            Kind::Bcrypt { .. } => "Hash(bcrypt)",
        })
    }
}

fn equal(a: &[u8], b: &[u8]) -> bool {
    verify_slices_are_equal(a, b).is_ok()
}

/// `$apr1$SALT$DIGEST` of a password: Apache's variant of the MD5-based crypt of FreeBSD, which
/// mixes password and salt a thousand times in an order given by the bits of the counter.
fn apr1(password: &[u8], salt: &str) -> String {
    let salt_bytes = salt.as_bytes();
    let inner = md5(&[password, salt_bytes, password]);
    let mut first = Md5::new();
    first.update(password);
    first.update(b"$apr1$");
    first.update(salt_bytes);
    for chunk in password.chunks(16) {
        first.update(&inner[..chunk.len()]);
    }
    let mut bits = password.len();
    while bits > 0 {
        first.update(if bits & 1 == 1 { &[0][..] } else { &password[..1] });
        bits >>= 1;
    }
    let mut digest: [u8; 16] = first.finalize().into();
    for round in 0..1000 {
        let (head, tail): (&[u8], &[u8]) =
            if round % 2 == 1 { (password, &digest) } else { (&digest, password) };
        let salt = if round % 3 == 0 { &[][..] } else { salt_bytes };
        let again = if round % 7 == 0 { &[][..] } else { password };
        digest = md5(&[head, salt, again, tail]);
    }
    format!("$apr1${salt}${}", crypt_base64(&digest))
}

fn md5(parts: &[&[u8]]) -> [u8; 16] {
    let mut hasher = Md5::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// The digits and the order of bytes that crypt(3) uses: six bits each, the lowest first.
fn crypt_base64(digest: &[u8; 16]) -> String {
    const DIGITS: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    const ORDER: [[usize; 3]; 5] = [[0, 6, 12], [1, 7, 13], [2, 8, 14], [3, 9, 15], [4, 10, 5]];
    let mut text = String::with_capacity(22);
    let mut push = |mut bits: u32, digits: usize| {
        for _ in 0..digits {
            text.push(char::from(DIGITS[(bits & 63) as usize]));
            bits >>= 6;
        }
    };
    for [high, middle, low] in ORDER {
        let byte = |at: usize| u32::from(digest[at]);
        push(byte(high) << 16 | byte(middle) << 8 | byte(low), 4);
    }
    push(u32::from(digest[11]), 2);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by `openssl passwd -apr1`.
    const APR1_VECTORS: [(&str, &str); 4] = [
        ("myPassword", "$apr1$r31.....$HqJZimcKQFAMYayBlzkrA/"),
        ("a", "$apr1$saltsalt$OEnK0QmmvoDzFw9W2yFYT/"),
        ("0123456789abcdefghijklmnopqrstuvwxyz", "$apr1$ab$lmG7gty99GUL5bWLzSIf3/"),
        ("", "$apr1$xyz$Pix4eE3fQHxJjb6LqtyMK1"),
    ];

    #[test]
    fn apr1_gives_the_known_hashes() {
        for (password, hash) in APR1_VECTORS {
            let salt = hash.split('$').nth(2).unwrap();
            assert_eq!(apr1(password.as_bytes(), salt), hash, "{password:?}");
        }
    }

    #[test]
    fn lines_are_named_by_number_and_never_shown() {
        for (lines, expected) in [
            ("a:{SHA}tiY7sUhYKUwI5L3866kDY+ENcrQ=\nsecretline", "line 2 has no `:`"),
            ("a:$6$salt$abc", "line 1: neither"),
            ("a:{SHA}short", "line 1: {SHA}"),
            ("a:$apr1$saltsaltsalt$abc", "line 1: not $apr1$"),
            ("a:$2y$05$short", "line 1: not a bcrypt"),
            ("# nobody", "there is no user"),
        ] {
            let error = Users::parse(lines.as_bytes()).unwrap_err();
            assert!(error.starts_with(expected), "{lines:?}: {error}");
            assert!(!error.contains("secretline") && !error.contains("short"), "{error}");
        }
    }

    #[test]
    fn a_cost_that_would_take_minutes_is_refused() {
        let dear = "$2y$20$C6UzMDM.H6dfI/f/IKcEe.4S8c5xO4CO3yjyp2PZqFPHj9qCfb7Jm";
        assert!(Users::parse(format!("a:{dear}").as_bytes()).unwrap_err().contains("cost 20"));
    }

    #[test]
    fn the_decoy_is_the_costliest_hash() {
        let bcrypt = bcrypt::hash("x", 4).unwrap();
        let lines = format!("a:{{SHA}}tiY7sUhYKUwI5L3866kDY+ENcrQ=\nb:{bcrypt}");
        assert_eq!(Users::parse(lines.as_bytes()).unwrap().decoy().text(), bcrypt);
    }
}
