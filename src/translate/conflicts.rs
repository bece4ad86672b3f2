//! Listeners that are in each other's way.
//!
//! All listeners of a Gateway and of its ListenerSets are one list, in the order of their
//! precedence (GEP-1713): the Gateway's, then those of the sets by age. Against an object that
//! stands before it a listener loses; of listeners of one object that cannot be told apart none
//! may win (Gateway API, `Gateway.spec.listeners`).

use std::collections::{BTreeMap, HashMap, HashSet};

use super::gateway::Port;
use super::intake::Intake;
use super::listeners::ListenerState;
use super::status::Problem;

/// Most listeners of a Gateway and its sets: all of them are looked at in every pass.
const MAX_LISTENERS: usize = 1024;

/// Most ports of a Gateway and its sets: in a cluster each takes one of those that all Gateways
/// share, and ListenerSets may be strangers'.
const MAX_PORTS: usize = 128;

/// Most names in the message of an overlap.
const MAX_NAMES: usize = 8;

/// What can share a port, told apart by host names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Group {
    Http,
    Tls,
    /// Nothing tells connections or datagrams apart.
    Raw,
}

fn group(intake: Intake) -> Group {
    match intake {
        Intake::Http => Group::Http,
        Intake::Https | Intake::TlsTerminate | Intake::TlsPassthrough => Group::Tls,
        Intake::Tcp | Intake::Udp | Intake::Unknown => Group::Raw,
    }
}

/// Which group has a port, and which hosts there are taken by HTTPS or else.
#[derive(Debug)]
struct Taken {
    group: Group,
    hosts: HashMap<String, bool>,
}

/// Finds the conflicts in a list that is in the order of precedence.
pub(super) fn find(listeners: &mut [ListenerState<'_>]) {
    bound(listeners);
    let mut taken: BTreeMap<Port, Taken> = BTreeMap::new();
    for of_one in listeners.chunk_by_mut(|a, b| a.parent == b.parent) {
        for listener in of_one.iter_mut().filter(|l| l.refused.is_none()) {
            if let Some(taken) = taken.get(&listener.service_port()) {
                listener.conflict = with_older(listener, taken);
            }
        }
        among_equals(of_one);
        for listener in of_one.iter().filter(|l| l.is_accepted()) {
            let port = listener.service_port();
            let group = group(listener.intake);
            let taken = taken.entry(port).or_insert_with(|| Taken { group, hosts: HashMap::new() });
            taken.hosts.insert(listener.hostname.clone(), listener.intake == Intake::Https);
        }
    }
    overlaps(listeners);
}

/// Refuses what is too much.
fn bound(listeners: &mut [ListenerState<'_>]) {
    let mut ports: HashSet<Port> = HashSet::new();
    let mut count = 0;
    for listener in listeners.iter_mut().filter(|l| l.refused.is_none()) {
        let port = listener.service_port();
        let (most, of) = if count >= MAX_LISTENERS {
            (MAX_LISTENERS, "listeners")
        } else if ports.len() >= MAX_PORTS && !ports.contains(&port) {
            (MAX_PORTS, "ports")
        } else {
            count += 1;
            ports.insert(port);
            continue;
        };
        let message = format!(
            "the Gateway and its ListenerSets have {most} {of} already, which is the most that is \
             served; remove some or use another Gateway"
        );
        listener.refused = Some(Problem::new("TooManyListeners", &*listener.field, message));
    }
}

/// Names nobody: the other object may be a stranger's.
fn with_older(listener: &ListenerState<'_>, taken: &Taken) -> Option<Problem> {
    let ListenerState { spec, port, hostname, intake, field, .. } = listener;
    let who = "a listener of the Gateway or of an older ListenerSet";
    if taken.group != group(*intake) {
        let message = format!(
            "{who} uses port {port} with another protocol than {}; use another port",
            spec.protocol
        );
        return Some(Problem::new("ProtocolConflict", format!("{field}.port"), message));
    }
    let https = *taken.hosts.get(hostname)?;
    Some(same_host(listener, who, https == (*intake == Intake::Https)))
}

/// Listeners of one object that are in each other's way.
fn among_equals(listeners: &mut [ListenerState<'_>]) {
    let mut ports: BTreeMap<Port, Vec<usize>> = BTreeMap::new();
    for (i, listener) in listeners.iter().enumerate().filter(|(_, l)| l.is_accepted()) {
        ports.entry(listener.service_port()).or_default().push(i);
    }
    for ((_, port), on_port) in ports {
        let first = group(listeners[on_port[0]].intake);
        let mixed = on_port.iter().any(|i| group(listeners[*i].intake) != first);
        // By host: how many, and how many of them for HTTPS.
        let mut hosts: HashMap<String, (usize, usize)> = HashMap::new();
        for i in &on_port {
            let (all, https) = hosts.entry(listeners[*i].hostname.clone()).or_default();
            *all += 1;
            *https += usize::from(listeners[*i].intake == Intake::Https);
        }
        for i in on_port {
            let listener = &mut listeners[i];
            let (count, https) = hosts[&listener.hostname];
            let problem = if mixed {
                let message = format!(
                    "port {port} is used with {} and with another protocol; separate them",
                    listener.spec.protocol
                );
                Problem::new("ProtocolConflict", format!("{}.port", listener.field), message)
            } else if count > 1 {
                same_host(listener, "another listener", https == 0 || https == count)
            } else {
                continue;
            };
            listener.conflict = Some(problem);
        }
    }
}

/// Two listeners of one port and host; `alike`: both or neither are for HTTPS.
fn same_host(listener: &ListenerState<'_>, who: &str, alike: bool) -> Problem {
    let ListenerState { spec, port, hostname, intake, field, .. } = listener;
    if group(*intake) == Group::Raw {
        let message = format!("{who} has {} port {port} already; use another", spec.protocol);
        return Problem::new("HostnameConflict", format!("{field}.port"), message);
    }
    let message = format!("{who} has the same port {port} and hostname {hostname:?}; change one");
    let reason = if alike { "HostnameConflict" } else { "ProtocolConflict" };
    Problem::new(reason, format!("{field}.hostname"), message)
}

/// HTTPS listeners on one port of which one claims hosts of another: clients may come to one
/// over a connection that was opened for the other.
fn overlaps(listeners: &mut [ListenerState<'_>]) {
    let mut by_host: HashMap<(u16, String), usize> = HashMap::new();
    let https = |l: &ListenerState<'_>| l.intake == Intake::Https && l.is_accepted();
    for (i, listener) in listeners.iter().enumerate().filter(|(_, l)| https(l)) {
        by_host.insert((listener.port, listener.hostname.clone()), i);
    }
    let mut pairs = Vec::new();
    for (i, listener) in listeners.iter().enumerate().filter(|(_, l)| https(l)) {
        for wider in wider(&listener.hostname) {
            if let Some(other) = by_host.get(&(listener.port, wider)) {
                pairs.push((i, *other));
                pairs.push((*other, i));
            }
        }
    }
    for (one, other) in pairs {
        let name = if listeners[one].parent == listeners[other].parent {
            listeners[other].spec.name.clone()
        } else {
            "a listener of another object".to_owned()
        };
        let names = &mut listeners[one].overlaps;
        if names.len() < MAX_NAMES && !names.contains(&name) {
            names.push(name);
            names.sort_unstable();
        }
    }
}

/// The patterns that match all hosts of `host` and more.
fn wider(host: &str) -> Vec<String> {
    let mut wider = Vec::new();
    let mut rest = host.strip_prefix("*.").unwrap_or(host);
    // A wildcard's own suffix is itself.
    while let Some((_, suffix)) = rest.split_once('.') {
        wider.push(format!("*.{suffix}"));
        rest = suffix;
    }
    if !host.is_empty() {
        wider.push(String::new());
    }
    wider
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wider_patterns_are_the_wildcards_of_all_suffixes() {
        assert_eq!(wider("a.b.example"), ["*.b.example", "*.example", ""]);
        assert_eq!(wider("*.b.example"), ["*.example", ""]);
        assert_eq!(wider("localhost"), [""]);
        assert_eq!(wider(""), [""; 0]);
    }
}
