//! Where a Redis store is and how it is spoken to.

use std::fmt;
use std::net::Ipv6Addr;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

/// Shortest and longest time for an answer.
pub const TIMEOUT_MS: RangeInclusive<u64> = 1..=1000;
/// Shortest and longest time for connecting.
pub const CONNECT_TIMEOUT_MS: RangeInclusive<u64> = 10..=10_000;
/// Most connections of one worker to one server.
pub const MAX_CONNECTIONS: u32 = 8;

/// One store. Equal configurations are one store, whoever asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisConfig {
    pub topology: Topology,
    pub tls: Option<Tls>,
    pub credentials: Credentials,
    /// For the Sentinels themselves, which have users of their own.
    pub sentinel_credentials: Credentials,
    /// Number of the database; a Cluster has only number 0.
    pub database: u32,
    /// What every key begins with, without braces: they would choose a Cluster's slot.
    pub key_prefix: String,
    /// From the question to the answer, [`TIMEOUT_MS`]. Nobody ever waits for a connection.
    pub timeout: Duration,
    /// For connecting, TLS and login together, [`CONNECT_TIMEOUT_MS`]; it happens in the
    /// background.
    pub connect_timeout: Duration,
    /// Connections of each worker to each server, 1 to [`MAX_CONNECTIONS`].
    pub connections: u32,
}

/// How the server to ask is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Topology {
    /// It is this one.
    Single(Address),
    /// Sentinels know it by the name of the group that it is master of.
    Sentinel { master: String, sentinels: Vec<Address> },
    /// Any of these tells which node has which slots.
    Cluster(Vec<Address>),
}

/// TLS to all servers, Sentinels included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// Certificates of the authorities to believe, PEM; without any those of the system.
    pub ca: Option<Vec<u8>>,
    /// The name that certificates must have; without it the host that is connected to.
    pub server_name: Option<String>,
}

/// Who we are. Nothing of it is ever printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    pub username: Option<String>,
    pub password: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_set = self.username.is_some() || self.password.is_some();
        f.write_str(if is_set { "Credentials(..)" } else { "Credentials(none)" })
    }
}

/// `host:port`; an IPv6 address stands in brackets.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    /// A name or an address, without brackets.
    pub host: String,
    pub port: u16,
}

impl FromStr for Address {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let wrong = || ConfigError::Address(text.chars().take(100).collect());
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let is_host = match bracketed {
            Some(host) => host.parse::<Ipv6Addr>().is_ok(),
            None => {
                let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
                !host.is_empty() && host.len() <= 253 && host.bytes().all(allowed)
            }
        };
        let port = port.parse().ok().filter(|port| *port != 0).filter(|_| is_host);
        let host = bracketed.unwrap_or(host).to_owned();
        Ok(Address { host, port: port.ok_or_else(wrong)? })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Why a configuration is none: the field, the cause and the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("addresses: `{0}` is not host:port, such as redis.default.svc:6379 or [::1]:6379")]
    Address(String),
    #[error("addresses: there is none; name at least one server as host:port")]
    NoAddress,
    #[error(
        "sentinelMaster: it is empty; put the name there that the Sentinels know the master by"
    )]
    NoMaster,
    #[error("database: a Cluster has only database 0; leave the field out")]
    Database,
    #[error("keyPrefix: it has a brace, which would choose a Cluster's slot; leave braces out")]
    Prefix,
    #[error("timeout: it is not between 1ms and 1s")]
    Timeout,
    #[error("connectTimeout: it is not between 10ms and 10s")]
    ConnectTimeout,
    #[error("connections: it is not between 1 and {MAX_CONNECTIONS}")]
    Connections,
    #[error("tls.caCertificateRef: {0}")]
    Ca(String),
    #[error("tls.serverName: `{0}` is neither a host name nor an address")]
    ServerName(String),
}

impl RedisConfig {
    /// A single server with the defaults of everything else.
    pub fn single(address: Address) -> Self {
        RedisConfig::new(Topology::Single(address))
    }

    /// The defaults of everything but the topology.
    pub fn new(topology: Topology) -> Self {
        RedisConfig {
            topology,
            tls: None,
            credentials: Credentials::default(),
            sentinel_credentials: Credentials::default(),
            database: 0,
            key_prefix: "tidegate:".into(),
            timeout: Duration::from_millis(10),
            connect_timeout: Duration::from_secs(1),
            connections: 1,
        }
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        match &self.topology {
            Topology::Single(_) => {}
            Topology::Sentinel { master, .. } if master.is_empty() => {
                return Err(ConfigError::NoMaster);
            }
            Topology::Sentinel { sentinels: addresses, .. } | Topology::Cluster(addresses)
                if addresses.is_empty() =>
            {
                return Err(ConfigError::NoAddress);
            }
            Topology::Cluster(_) if self.database != 0 => return Err(ConfigError::Database),
            Topology::Sentinel { .. } | Topology::Cluster(_) => {}
        }
        if self.key_prefix.contains(['{', '}']) {
            return Err(ConfigError::Prefix);
        }
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        if !TIMEOUT_MS.contains(&ms(self.timeout)) {
            return Err(ConfigError::Timeout);
        }
        if !CONNECT_TIMEOUT_MS.contains(&ms(self.connect_timeout)) {
            return Err(ConfigError::ConnectTimeout);
        }
        if !(1..=MAX_CONNECTIONS).contains(&self.connections) {
            return Err(ConfigError::Connections);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for text in ["redis:6379", "10.0.0.1:1", "[::1]:6379", "a-b.c_d.svc:65535"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        let wrong = ["", "redis", ":6379", "redis:", "redis:0", "redis:65536", "::1:6379"];
        for text in wrong.into_iter().chain(["redis://a:1", "a b:1", "[a]:1", "a/b:1", "a@b:1"]) {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }

    #[test]
    fn credentials_are_never_printed() {
        let mut config = RedisConfig::single("a:1".parse().unwrap());
        config.credentials.password = Some("hidden".into());
        config.sentinel_credentials.username = Some("hidden".into());
        assert!(!format!("{config:?}").contains("hidden"));
    }

    #[test]
    fn what_cannot_work_is_refused_with_the_field() {
        let good = RedisConfig::new(Topology::Cluster(vec!["a:1".parse().unwrap()]));
        assert_eq!(good.check(), Ok(()));
        let with = |change: fn(&mut RedisConfig)| {
            let mut config = good.clone();
            change(&mut config);
            config.check().unwrap_err()
        };
        assert_eq!(with(|c| c.database = 1), ConfigError::Database);
        assert_eq!(with(|c| c.key_prefix = "a{b".into()), ConfigError::Prefix);
        assert_eq!(with(|c| c.timeout = Duration::ZERO), ConfigError::Timeout);
        assert_eq!(with(|c| c.connections = 0), ConfigError::Connections);
        assert_eq!(with(|c| c.topology = Topology::Cluster(vec![])), ConfigError::NoAddress);
        let nameless = |c: &mut RedisConfig| {
            c.topology = Topology::Sentinel { master: String::new(), sentinels: vec![] };
        };
        assert_eq!(with(nameless), ConfigError::NoMaster);
    }
}
