//! The store that a RateLimit counts in, from what its owner writes and the Secrets that are named
//! there. It is the same store for every RateLimit that means the same, and in every pass, as
//! long as anybody counts in it; nothing connects to it before a request does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::policy::rate_limit::spec::{self, RedisStore, StoreType};
use crate::policy::{Invalid, duration};
use crate::services::store::Store;
use crate::services::store::redis::{ConfigError, Credentials, Redis, RedisConfig, Tls, Topology};

/// The data of a Secret.
pub(super) type Data = BTreeMap<String, Vec<u8>>;

/// The store, if it is not the pod itself. `secret` gives the data of a Secret by its name.
///
/// # Errors
/// What is wrong with the store, or the Secret that is missing.
pub(super) fn store(
    spec: &spec::Store,
    secret: impl Fn(&str) -> Option<Data>,
) -> Result<Option<Arc<dyn Store>>, Invalid> {
    let Some(redis) = spec.redis.as_ref().filter(|_| spec.r#type == StoreType::Redis) else {
        return Ok(None);
    };
    let config = config(redis, secret)?;
    Ok(Some(Redis::shared(&config).map_err(|error| invalid(&error))?))
}

fn config(
    spec: &RedisStore,
    secret: impl Fn(&str) -> Option<Data>,
) -> Result<RedisConfig, Invalid> {
    let mut config = RedisConfig::new(topology(spec)?);
    let secret = |field: &str, name: &str| {
        let missing = || {
            let message = format!("Secret {name:?} does not exist in this namespace; create it");
            Invalid::new(format!("store.redis.{field}.name"), message)
        };
        secret(name).ok_or_else(missing)
    };
    if let Some(named) = &spec.secret_ref {
        let data = secret("secretRef", &named.name)?;
        let text = |key: &str| text(&data, key);
        let credentials = |username, password| -> Result<Credentials, Invalid> {
            Ok(Credentials { username: text(username)?, password: text(password)? })
        };
        config.credentials = credentials("username", "password")?;
        config.sentinel_credentials = credentials("sentinelUsername", "sentinelPassword")?;
    }
    if let Some(tls) = &spec.tls {
        let ca = |named: &spec::ObjectName| {
            let mut data = secret("tls.caCertificateRef", &named.name)?;
            let message = format!("Secret {:?} has no `ca.crt`; put the CA there", named.name);
            let missing = || Invalid::new("store.redis.tls.caCertificateRef", message);
            data.remove("ca.crt").ok_or_else(missing)
        };
        let ca = tls.ca_certificate_ref.as_ref().map(ca).transpose()?;
        config.tls = Some(Tls { ca, server_name: tls.server_name.clone() });
    }
    config.database = u32::try_from(spec.database.unwrap_or_default()).unwrap_or_default();
    config.key_prefix = spec.key_prefix.clone().unwrap_or(config.key_prefix);
    config.timeout = time("timeout", spec.timeout.as_deref())?.unwrap_or(config.timeout);
    let connect = time("connectTimeout", spec.connect_timeout.as_deref())?;
    config.connect_timeout = connect.unwrap_or(config.connect_timeout);
    let connections = spec.connections.and_then(|n| u32::try_from(n).ok());
    config.connections = connections.unwrap_or(config.connections);
    Ok(config)
}

fn topology(spec: &RedisStore) -> Result<Topology, Invalid> {
    let parsed = spec.addresses.iter().map(|address| address.parse());
    let addresses: Vec<_> = parsed.collect::<Result<_, _>>().map_err(|error| invalid(&error))?;
    match (spec.topology, addresses.as_slice()) {
        (spec::Topology::Cluster, _) => Ok(Topology::Cluster(addresses)),
        (spec::Topology::Sentinel, _) => {
            let master = spec.sentinel_master.clone().unwrap_or_default();
            Ok(Topology::Sentinel { master, sentinels: addresses })
        }
        (spec::Topology::Single, [one]) => Ok(Topology::Single(one.clone())),
        (spec::Topology::Single, _) => {
            let message = "there must be one address; for several set topology Sentinel or Cluster";
            Err(Invalid::new("store.redis.addresses", message))
        }
    }
}

fn text(data: &Data, key: &str) -> Result<Option<String>, Invalid> {
    let wrong = |_| {
        let message = format!("the Secret's `{key}` is not UTF-8 text; write it again");
        Invalid::new("store.redis.secretRef", message)
    };
    data.get(key).map(|bytes| String::from_utf8(bytes.clone()).map_err(wrong)).transpose()
}

fn time(field: &str, text: Option<&str>) -> Result<Option<Duration>, Invalid> {
    let wrong = |message| Invalid::new(format!("store.redis.{field}"), message);
    text.map(|text| duration::parse(text).map_err(wrong)).transpose()
}

fn invalid(error: &ConfigError) -> Invalid {
    let text = error.to_string();
    let (field, message) = text.split_once(": ").unwrap_or(("addresses", &text));
    Invalid::new(format!("store.redis.{field}"), message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(redis: serde_json::Value) -> spec::Store {
        serde_json::from_value(serde_json::json!({"type": "Redis", "redis": redis})).unwrap()
    }

    fn secrets(name: &str) -> Option<Data> {
        let data = [("username", "app"), ("password", "pw"), ("sentinelPassword", "spw")];
        let data = data.map(|(key, value)| (key.to_owned(), value.as_bytes().to_vec()));
        (name == "redis").then(|| BTreeMap::from(data))
    }

    fn config_of(redis: serde_json::Value) -> Result<RedisConfig, Invalid> {
        config(spec(redis).redis.as_ref().unwrap(), secrets)
    }

    #[test]
    fn everything_that_is_written_arrives() {
        let config = config_of(serde_json::json!({
            "topology": "Sentinel",
            "addresses": ["a:26379", "[::1]:26379"],
            "sentinelMaster": "mymaster",
            "tls": {"serverName": "redis.example"},
            "secretRef": {"name": "redis"},
            "database": 3,
            "keyPrefix": "own:",
            "timeout": "20ms",
            "connectTimeout": "2s",
            "connections": 2,
        }));
        let config = config.unwrap();
        let sentinels = vec!["a:26379".parse().unwrap(), "[::1]:26379".parse().unwrap()];
        let topology = Topology::Sentinel { master: "mymaster".into(), sentinels };
        let credentials = |username: Option<&str>, password: &str| Credentials {
            username: username.map(str::to_owned),
            password: Some(password.to_owned()),
        };
        let expected = RedisConfig {
            topology,
            tls: Some(Tls { ca: None, server_name: Some("redis.example".into()) }),
            credentials: credentials(Some("app"), "pw"),
            sentinel_credentials: credentials(None, "spw"),
            database: 3,
            key_prefix: "own:".into(),
            timeout: Duration::from_millis(20),
            connect_timeout: Duration::from_secs(2),
            connections: 2,
        };
        assert_eq!(config, expected);
    }

    #[test]
    fn equal_stores_are_one_and_a_local_one_is_none() {
        let one = || store(&spec(serde_json::json!({"addresses": ["a:1"]})), secrets);
        let (first, second) = (one().unwrap().unwrap(), one().unwrap().unwrap());
        assert!(Arc::ptr_eq(&first, &second));
        assert!(store(&spec::Store::default(), secrets).unwrap().is_none());
    }

    #[test]
    fn what_is_wrong_is_told_with_its_field() {
        use serde_json::json;
        for (redis, field) in [
            (json!({"addresses": ["a"]}), "store.redis.addresses"),
            (json!({"addresses": ["a:1", "b:1"]}), "store.redis.addresses"),
            (json!({"addresses": [], "topology": "Cluster"}), "store.redis.addresses"),
            (json!({"addresses": ["a:1"], "topology": "Sentinel"}), "store.redis.sentinelMaster"),
            (json!({"addresses": ["a:1"], "timeout": "soon"}), "store.redis.timeout"),
            (json!({"addresses": ["a:1"], "timeout": "1m"}), "store.redis.timeout"),
            (
                json!({"addresses": ["a:1"], "secretRef": {"name": "x"}}),
                "store.redis.secretRef.name",
            ),
            (
                json!({"addresses": ["a:1"], "tls": {"caCertificateRef": {"name": "redis"}}}),
                "store.redis.tls.caCertificateRef",
            ),
        ] {
            let error = store(&spec(redis.clone()), secrets).unwrap_err();
            assert_eq!(error.field, field, "{redis}: {error}");
        }
    }
}
