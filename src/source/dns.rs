//! Addresses of host names (ExternalName Services, XBackends), asked again as their TTL says.
//!
//! A name that cannot be resolved keeps its last addresses. Never on the request path.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use hickory_resolver::TokioResolver;
use tokio::time::{Instant, timeout};
use tracing::{debug, error, warn};

use super::state::Awaited;
use super::world::Handle;

/// An answer is used at least so long, whatever its TTL: also the pause after a failure.
const SHORTEST: Duration = Duration::from_secs(5);
/// An answer is used at most so long.
const LONGEST: Duration = Duration::from_secs(60);
/// Names asked for at the same time, and how long one may take: more than one namespace may have
/// of them, so that no zone whose servers are silent keeps the names of others waiting.
const AT_ONCE: usize = 128;
const PATIENCE: Duration = Duration::from_secs(5);
/// Names that are looked at, by the alphabet.
const MOST: usize = 1000;
/// Addresses of one name, the smallest first.
const MOST_ADDRESSES: usize = 64;

/// What is known of a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Known {
    addresses: Option<Vec<IpAddr>>,
    again: Option<Instant>,
}

/// Keeps the addresses of the names that are wanted, until it is dropped.
pub(super) async fn run(world: Handle) {
    let resolver = resolver();
    let mut wanted = world.subscribe_wanted();
    let mut known: BTreeMap<String, Known> = BTreeMap::new();
    loop {
        wanted.mark_unchanged();
        let (hosts, left_out) = world.wanted_hosts();
        if hosts.len() > MOST || left_out > 0 {
            let names = hosts.len();
            warn!(names, left_out, "too many external names: the rest stay unresolved");
        }
        round(&resolver, hosts.into_iter().take(MOST).collect(), &mut known).await;
        publish(&world, &known);
        match known.values().filter_map(|known| known.again).min() {
            Some(again) => {
                // Whichever comes first: the next round looks at everything.
                let _ = tokio::time::timeout_at(again, wanted.changed()).await;
            }
            None => {
                // The sender lives as long as the world that we hold.
                let _ = wanted.changed().await;
            }
        }
    }
}

/// What the system says. None: only numeric names can be resolved.
pub(super) fn resolver() -> Option<TokioResolver> {
    let built = TokioResolver::builder_tokio().and_then(|builder| builder.build());
    let unusable = "DNS cannot be used, only numeric external names are resolved";
    built.inspect_err(|error| error!("{unusable}: {error}")).ok()
}

/// The addresses of a name, asked for now.
pub(super) async fn lookup(resolver: Option<&TokioResolver>, host: &str) -> Option<Vec<IpAddr>> {
    resolve(resolver, host).await?.addresses
}

/// Asks for every name whose time has come, and forgets those that nobody wants.
async fn round(
    resolver: &Option<TokioResolver>,
    hosts: BTreeSet<String>,
    known: &mut BTreeMap<String, Known>,
) {
    known.retain(|host, _| hosts.contains(host));
    let now = Instant::now();
    let due = hosts.into_iter().filter(|host| {
        known.get(host).is_none_or(|known| known.again.is_some_and(|again| again <= now))
    });
    let answers: Vec<(String, Option<Known>)> = stream::iter(due)
        .map(async |host| {
            let answer = resolve(resolver.as_ref(), &host).await;
            (host, answer)
        })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    for (host, answer) in answers {
        let entry = known.entry(host).or_default();
        match answer {
            Some(answer) => *entry = answer,
            None => entry.again = Some(Instant::now() + SHORTEST),
        }
    }
}

async fn resolve(resolver: Option<&TokioResolver>, host: &str) -> Option<Known> {
    if let Some(addresses) = literal(host) {
        return Some(Known { addresses: Some(addresses), again: None });
    }
    let asked = timeout(PATIENCE, resolver?.lookup_ip(absolute(host))).await;
    match asked.inspect_err(|_| debug!(host, "cannot be resolved in time")).ok()? {
        Ok(found) => {
            let ttl = found.valid_until().saturating_duration_since(std::time::Instant::now());
            let mut addresses: Vec<IpAddr> = found.iter().collect();
            // Sorted, so that an answer in another order is no change.
            addresses.sort();
            addresses.dedup();
            addresses.truncate(MOST_ADDRESSES);
            let again = Instant::now() + ttl.clamp(SHORTEST, LONGEST);
            Some(Known { addresses: Some(addresses), again: Some(again) })
        }
        Err(error) => {
            debug!(host, "cannot be resolved, its last addresses stay: {error}");
            None
        }
    }
}

/// Names that need nobody to ask: addresses, and `localhost` (RFC 6761, 6.3).
fn literal(host: &str) -> Option<Vec<IpAddr>> {
    if host.trim_end_matches('.').eq_ignore_ascii_case("localhost") {
        return Some(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.parse().ok().map(|address| vec![address])
}

/// An external name stands for itself: search domains are only for names without a dot.
fn absolute(host: &str) -> String {
    match host.ends_with('.') || !host.contains('.') {
        true => host.to_owned(),
        false => format!("{host}."),
    }
}

fn publish(world: &Handle, known: &BTreeMap<String, Known>) {
    let resolved: BTreeMap<String, Vec<IpAddr>> = known
        .iter()
        .filter_map(|(host, known)| Some((host.clone(), known.addresses.clone()?)))
        .collect();
    world.edit(|snapshot| {
        let changed = *snapshot.resolved != resolved;
        if changed {
            snapshot.resolved = Arc::new(resolved);
        }
        changed
    });
    for host in known.keys() {
        world.has_come(&Awaited::Host(host.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numeric_addresses_and_localhost_need_no_server() {
        let literal = |host| literal(host).map(|a| a[0].to_string());
        assert_eq!(literal("192.0.2.7").as_deref(), Some("192.0.2.7"));
        assert_eq!(literal("[2001:db8::1]").as_deref(), Some("2001:db8::1"));
        assert_eq!(literal("LocalHost.").as_deref(), Some("127.0.0.1"));
        assert_eq!(literal("example.com"), None);
    }

    #[test]
    fn search_domains_are_not_tried_for_names_with_a_dot() {
        assert_eq!(absolute("example.com"), "example.com.");
        assert_eq!(absolute("example.com."), "example.com.");
        assert_eq!(absolute("db"), "db");
    }

    #[tokio::test]
    async fn a_name_that_fails_keeps_its_addresses_and_is_asked_again() {
        let addresses = Some(vec![IpAddr::from(Ipv4Addr::new(192, 0, 2, 1))]);
        let old = Known { addresses: addresses.clone(), again: Some(Instant::now()) };
        let mut known = BTreeMap::from([("a.test".to_owned(), old)]);
        round(&None, BTreeSet::from(["a.test".to_owned()]), &mut known).await;
        assert_eq!(known["a.test"].addresses, addresses);
        assert!(known["a.test"].again.is_some_and(|again| again > Instant::now()));
    }

    #[tokio::test]
    async fn a_name_that_nobody_wants_is_forgotten() {
        let mut known = BTreeMap::from([("a.test".to_owned(), Known::default())]);
        round(&None, BTreeSet::from(["127.0.0.1".to_owned()]), &mut known).await;
        assert_eq!(known.keys().collect::<Vec<_>>(), ["127.0.0.1"]);
    }
}
