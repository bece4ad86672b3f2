//! Why a Redis server gave no verdict: finer than what a limit has to know, for the metrics and
//! for deciding what to do about the connection.

use redis::{ErrorKind, RedisError, ServerErrorKind};

use super::super::StoreError;
use super::config::Address;

macro_rules! failures {
    ($($(#[$doc:meta])* $name:ident $(($inner:ty))? = $label:literal, $error:ident;)*) => {
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Failure { $($(#[$doc])* $name $(($inner))?,)* }

        /// Every kind of failure: the bounded label set of the metric.
        pub const KINDS: &[&str] = &[$($label),*];

        impl Failure {
            /// The place in [`KINDS`].
            pub fn kind(&self) -> usize {
                let name = self.as_str();
                KINDS.iter().position(|kind| *kind == name).unwrap_or_default()
            }

            pub fn as_str(&self) -> &'static str {
                match self { $(failures!(@pattern $name $($inner)?) => $label,)* }
            }
        }

        impl From<&Failure> for StoreError {
            fn from(failure: &Failure) -> Self {
                match failure { $(failures!(@pattern $name $($inner)?) => StoreError::$error,)* }
            }
        }
    };
    (@pattern $name:ident $inner:ty) => { Failure::$name(_) };
    (@pattern $name:ident) => { Failure::$name };
}

failures! {
    /// There is no connection.
    Down = "down", Down;
    /// The circuit is open.
    Open = "open", Open;
    /// No answer in time.
    Timeout = "timeout", Timeout;
    /// The connection broke, or could not be made.
    Broken = "connection", Down;
    /// The server's certificate is not one to believe, or there is no TLS.
    Tls = "tls", Down;
    /// Wrong password, no password, or the user may not do what the script does.
    Denied = "denied", Down;
    /// A replica, or a master that was made one.
    ReadOnly = "read_only", Down;
    /// It is loading its data, or its master is away.
    Loading = "loading", Down;
    /// It is full and may not evict anything.
    OutOfMemory = "out_of_memory", Down;
    /// The Cluster does not serve the slot.
    ClusterDown = "cluster_down", Down;
    /// The slot is another node's.
    Moved(Address) = "moved", Down;
    /// The slot is on its way to another node.
    Ask(Address) = "ask", Down;
    /// Anything else that the server says or that cannot be understood.
    Protocol = "protocol", Protocol;
}

impl Failure {
    pub fn of(error: &RedisError) -> Failure {
        match error.kind() {
            ErrorKind::Io => Failure::Broken,
            ErrorKind::AuthenticationFailed => Failure::Denied,
            ErrorKind::Server(kind) => match kind {
                ServerErrorKind::BusyLoading | ServerErrorKind::MasterDown => Failure::Loading,
                ServerErrorKind::ReadOnly => Failure::ReadOnly,
                ServerErrorKind::NoPerm => Failure::Denied,
                ServerErrorKind::ClusterDown | ServerErrorKind::TryAgain => Failure::ClusterDown,
                ServerErrorKind::Moved => redirected(error, Failure::Moved),
                ServerErrorKind::Ask => redirected(error, Failure::Ask),
                _ => by_words(error),
            },
            _ => by_words(error),
        }
    }

    /// Whether another server may be the right one, so that it has to be found again.
    pub fn is_wrong_server(&self) -> bool {
        matches!(self, Failure::ReadOnly | Failure::Broken | Failure::Down)
    }

    /// The server lives, and serves other slots than this one.
    pub fn redirect(&self) -> Option<&Address> {
        match self {
            Failure::Moved(address) | Failure::Ask(address) => Some(address),
            _ => None,
        }
    }
}

fn redirected(error: &RedisError, to: fn(Address) -> Failure) -> Failure {
    let address = error.redirect_node().and_then(|(address, _)| address.parse().ok());
    address.map_or(Failure::ClusterDown, to)
}

/// Errors without a kind of their own, and those that older servers wrap in a script's.
fn by_words(error: &RedisError) -> Failure {
    let text = error.to_string();
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if says(&["READONLY"]) {
        Failure::ReadOnly
    } else if says(&["OOM"]) {
        Failure::OutOfMemory
    } else if says(&["NOAUTH", "WRONGPASS", "NOPERM"]) {
        Failure::Denied
    } else if says(&["LOADING", "MASTERDOWN", "MISCONF", "BUSY", "NOREPLICAS"]) {
        Failure::Loading
    } else {
        Failure::Protocol
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_kind_has_a_label_of_its_own() {
        assert_eq!(KINDS.iter().collect::<BTreeSet<_>>().len(), KINDS.len());
        assert_eq!(KINDS[Failure::Protocol.kind()], "protocol");
        assert_eq!(KINDS[Failure::Down.kind()], "down");
    }
}
