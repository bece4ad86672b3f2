//! Puts a graph together: what `translate` calls while it walks the objects.
//!
//! Backends and policies are made once for each key, however many rules use them. Nothing is
//! in order before [`GraphBuilder::build`]: that sorts by precedence, so that the result does
//! not depend on the order of calls. What is the same as in the graph before is shared with it:
//! see [`GraphBuilder::after`] and [`Part`].

mod part;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

pub use part::Part;
use part::{Pieces, Recording};

use super::slots::Filling;
use super::{
    Backend, BackendId, BackendKey, Datagrams, Entry, HostMap, INGRESS, Installed, Listener,
    PolicyId, Protocol, RouteGraph, Rule, RuleId, Section, Stream, TlsEnd, TlsUse,
};
use crate::policy::{AnySpec, Invalid, Mode, Refs};

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct GraphBuilder {
    listeners: BTreeMap<u16, (u16, Protocol)>,
    sections: Vec<Draft>,
    streams: Vec<StreamDraft>,
    rules: Filling<Rule>,
    backends: Filling<Backend>,
    backend_ids: HashMap<BackendKey, BackendId>,
    policies: Filling<Installed>,
    policy_ids: HashMap<Arc<str>, Vec<PolicyId>>,
    recording: Option<Recording>,
}

/// A section that is still being filled.
#[derive(Debug)]
struct Draft {
    port: u16,
    hostname: Box<str>,
    name: Arc<str>,
    filters: Vec<PolicyId>,
    hosts: Pieces,
    grpc: Pieces,
}

/// A stream that is still being filled.
#[derive(Debug)]
struct StreamDraft {
    port: u16,
    over: Over,
    name: Arc<str>,
    /// The age and the name of the route that holds a host, and its rule.
    hosts: HostMap<Option<(i64, Box<str>, RuleId)>>,
}

/// What a stream runs over.
#[derive(Debug)]
enum Over {
    Tls(Box<str>, TlsEnd),
    /// With the port that users see.
    Tcp(u16),
    Udp(u16),
}

/// A section's place in the builder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SectionId(usize);

/// A stream's place in the builder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StreamId(usize);

impl GraphBuilder {
    pub fn new() -> Self {
        GraphBuilder::default()
    }

    /// Begins a graph that shares with `last` what stays: parts keep their numbers.
    pub fn after(last: &RouteGraph) -> Self {
        let backends = last.backends.numbered();
        let backend_ids =
            backends.map(|(n, backend)| (backend.key.clone(), BackendId(n))).collect();
        let mut policy_ids: HashMap<Arc<str>, Vec<PolicyId>> = HashMap::new();
        for (n, policy) in last.policies.numbered() {
            policy_ids.entry(Arc::clone(&policy.key)).or_default().push(PolicyId(n));
        }
        GraphBuilder {
            rules: Filling::after(&last.rules),
            backends: Filling::after(&last.backends),
            backend_ids,
            policies: Filling::after(&last.policies),
            policy_ids,
            ..GraphBuilder::default()
        }
    }

    /// The backend of `key`; `make` is called for the first user of the key.
    pub fn backend(&mut self, key: &BackendKey, make: impl FnOnce() -> Backend) -> BackendId {
        let id = match self.backend_ids.get(key).copied() {
            Some(id) => {
                if self.backends.get(id.0).is_none() {
                    self.backends.put(id.0, make());
                }
                id
            }
            None => {
                let id = BackendId(self.backends.add(make()));
                self.backend_ids.insert(key.clone(), id);
                id
            }
        };
        self.record(|recording| recording.backends.push(id));
        id
    }

    /// The policy of `key`, compiled for the first user of the key; that of the last graph, if it
    /// was made of the same. By the key, state is found again in the next graph: it names the
    /// object and the place in it. Of a graph that is made after another, the Secrets in `refs`
    /// are those of that one.
    pub fn policy(
        &mut self,
        key: &str,
        spec: &AnySpec,
        mode: Mode,
        refs: &Refs,
    ) -> Result<PolicyId, Invalid> {
        let known = self.policy_ids.get(key).map_or(&[][..], Vec::as_slice);
        let same =
            |policy: Option<&Installed>| policy.is_some_and(|p| p.mode == mode && p.spec == *spec);
        let now = known.iter().find(|id| same(self.policies.get(id.0)));
        let last = known.iter().find(|id| same(self.policies.before(id.0)));
        let id = if let Some(id) = now {
            *id
        } else if let Some(id) = last.copied() {
            let before = self.policies.before(id.0);
            let is_same =
                |p: &Installed| p.services == refs.services && p.replicas == refs.replicas;
            if before.is_some_and(is_same) {
                self.policies.keep(id.0);
            } else {
                self.policies.put(id.0, Installed::new(key.into(), spec, mode, refs)?);
            }
            id
        } else {
            let key: Arc<str> = key.into();
            let made = Installed::new(Arc::clone(&key), spec, mode, refs)?;
            let id = PolicyId(self.policies.add(made));
            self.policy_ids.entry(key).or_default().push(id);
            id
        };
        self.record(|recording| recording.policies.push(id));
        Ok(id)
    }

    /// Adds a rule.
    pub fn rule(&mut self, rule: Rule) -> RuleId {
        let id = RuleId(self.rules.add(rule));
        self.record(|recording| recording.rules.push(id));
        id
    }

    /// Binds `port`. The first call for a port decides.
    pub fn listener(&mut self, port: u16, public_port: u16, protocol: Protocol) {
        self.listeners.entry(port).or_insert((public_port, protocol));
    }

    /// A section on `port` that claims the hosts of `hostname`: a name, `*.suffix`, or empty
    /// for all. Sections that claim the same are tried in the order of these calls, Ingress
    /// (named [`INGRESS`]) after all others. Of a port without listener nothing is kept.
    pub fn section(&mut self, port: u16, hostname: &str, name: Arc<str>) -> SectionId {
        self.sections.push(Draft {
            port,
            hostname: hostname.into(),
            name,
            filters: Vec::new(),
            hosts: Pieces::new(),
            grpc: Pieces::new(),
        });
        SectionId(self.sections.len() - 1)
    }

    /// The filters of a section's listener, in their order.
    pub fn filter(&mut self, section: SectionId, filters: Vec<PolicyId>) {
        self.sections[section.0].filters = filters;
    }

    /// A stream for the TLS connections on `port` whose server name is claimed by `hostname`: a
    /// name, `*.suffix`, or empty for all. Of a port that is not bound with TLS nothing is kept.
    pub fn tls_stream(
        &mut self,
        port: u16,
        hostname: &str,
        end: TlsEnd,
        name: Arc<str>,
    ) -> StreamId {
        self.stream(port, Over::Tls(hostname.into(), end), name)
    }

    /// Binds `port` for TCP. The first user of the port has it.
    pub fn tcp_stream(&mut self, port: u16, public_port: u16, name: Arc<str>) -> StreamId {
        self.stream(port, Over::Tcp(public_port), name)
    }

    /// Binds `port` for UDP. The first user of the port has it.
    pub fn udp_stream(&mut self, port: u16, public_port: u16, name: Arc<str>) -> StreamId {
        self.stream(port, Over::Udp(public_port), name)
    }

    fn stream(&mut self, port: u16, over: Over, name: Arc<str>) -> StreamId {
        self.streams.push(StreamDraft { port, over, name, hosts: HostMap::default() });
        StreamId(self.streams.len() - 1)
    }

    /// Sends what comes for `hostname` (empty for TCP and UDP) to `rule`. Of several routes the
    /// oldest has it: the one of the smallest `created` (seconds) and `object`.
    pub fn stream_route(
        &mut self,
        stream: StreamId,
        hostname: &str,
        (created, object): (i64, &str),
        rule: RuleId,
    ) {
        let holder = self.streams[stream.0].hosts.entry(hostname);
        let older = holder.as_ref().is_some_and(|(c, o, _)| (*c, &**o) <= (created, object));
        if !older {
            *holder = Some((created, object.into(), rule));
        }
    }

    /// Adds a match to `section`, under `hostname`: a name, `*.suffix`, or empty for all.
    pub fn route(&mut self, section: SectionId, hostname: &str, entry: Entry) {
        self.entry(section, false, hostname, entry);
    }

    /// The same for a GRPCRoute.
    pub fn grpc_route(&mut self, section: SectionId, hostname: &str, entry: Entry) {
        self.entry(section, true, hostname, entry);
    }

    pub fn build(self) -> RouteGraph {
        let GraphBuilder { listeners, mut sections, streams, rules, backends, policies, .. } = self;
        let mut listeners: BTreeMap<u16, Listener> = listeners
            .into_iter()
            .map(|(port, (public, protocol))| (port, listener(port, public, protocol)))
            .collect();
        let datagrams = install(streams, &mut listeners);
        sections.sort_by_key(|draft| *draft.name == *INGRESS);
        for draft in sections {
            let Some(listener) = listeners.get_mut(&draft.port) else { continue };
            let [hosts, grpc] = [draft.hosts, draft.grpc].map(part::hosts);
            if !listener.streams.is_empty() && listener.streams.get_exact(&draft.hostname).is_none()
            {
                listener.streams.insert(&*draft.hostname, TlsUse::Http);
            }
            let section = Section { name: draft.name, filters: draft.filters, hosts, grpc };
            listener.sections.entry(&draft.hostname).push(Arc::new(section));
        }
        let listeners = listeners.into_iter().map(|(port, l)| (port, Arc::new(l))).collect();
        RouteGraph {
            listeners,
            datagrams,
            rules: rules.finish(),
            backends: backends.finish(),
            policies: policies.finish(),
            ..RouteGraph::default()
        }
    }
}

fn listener(port: u16, public_port: u16, protocol: Protocol) -> Listener {
    let (sections, streams) = (HostMap::default(), HostMap::default());
    Listener { port, public_port, protocol, sections, streams }
}

/// Puts streams where they belong; those over UDP are returned.
fn install(
    drafts: Vec<StreamDraft>,
    listeners: &mut BTreeMap<u16, Listener>,
) -> BTreeMap<u16, Arc<Datagrams>> {
    let mut datagrams = BTreeMap::new();
    for StreamDraft { port, over, name, hosts } in drafts {
        let rule = |held: Option<(i64, Box<str>, RuleId)>| {
            held.expect("an entry is made only to be filled").2
        };
        let stream = Arc::new(Stream { name, hosts: hosts.map(rule) });
        match over {
            Over::Tls(hostname, end) => {
                let on_tls = |l: &&mut Listener| matches!(l.protocol, Protocol::Tls(_));
                let Some(listener) = listeners.get_mut(&port).filter(on_tls) else { continue };
                let to = match end {
                    TlsEnd::Here => TlsUse::Terminate(stream),
                    TlsEnd::Backend => TlsUse::Passthrough(stream),
                };
                if listener.streams.get_exact(&hostname).is_none() {
                    listener.streams.insert(&*hostname, to);
                }
            }
            Over::Tcp(public) => {
                let tcp = || listener(port, public, Protocol::Tcp(stream));
                listeners.entry(port).or_insert_with(tcp);
            }
            Over::Udp(public_port) => {
                let udp = || Arc::new(Datagrams { port, public_port, stream });
                datagrams.entry(port).or_insert_with(udp);
            }
        }
    }
    datagrams
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::testing::{backend, key, rule};
    use crate::graph::{ClientAuth, ListenerTls};
    use crate::policy::direct_response;

    fn answer(status_code: i32) -> AnySpec {
        let spec = direct_response::Spec { status_code, ..Default::default() };
        AnySpec::DirectResponse(spec)
    }

    #[test]
    fn a_backend_is_made_once_for_its_key_and_found_by_its_service() {
        let mut builder = GraphBuilder::new();
        let one = builder.backend(&key("web", 80), || backend("web", 80, &[]));
        assert_eq!(builder.backend(&key("web", 80), || unreachable!()), one);
        let other = builder.backend(&key("web", 81), || backend("web", 81, &[]));
        builder.backend(&key("api", 80), || backend("api", 80, &[]));
        assert_ne!(one, other);
        let graph = builder.build();
        let ports: Vec<_> = graph.backends_of("ns", "web").map(|b| b.key.port).collect();
        assert_eq!(ports, [80, 81]);
        assert_eq!(graph.backends_of("other", "web").count(), 0);
    }

    #[test]
    fn a_policy_is_compiled_once_for_its_key_and_spec() {
        let (mut builder, refs) = (GraphBuilder::new(), Refs::default());
        let one = builder.policy("Middleware/ns/a", &answer(200), Mode::Enforce, &refs).unwrap();
        assert_eq!(builder.policy("Middleware/ns/a", &answer(200), Mode::Enforce, &refs), Ok(one));
        assert_ne!(builder.policy("Middleware/ns/a", &answer(201), Mode::Enforce, &refs), Ok(one));
        assert_ne!(builder.policy("Middleware/ns/b", &answer(200), Mode::Enforce, &refs), Ok(one));
        assert!(builder.policy("Middleware/ns/c", &answer(0), Mode::Enforce, &refs).is_err());
        assert_eq!(builder.build().policies.len(), 3);
    }

    #[test]
    fn a_section_of_a_port_that_is_not_bound_is_dropped() {
        let mut builder = GraphBuilder::new();
        builder.listener(80, 8000, Protocol::Http);
        builder.section(80, "", "a".into());
        builder.section(81, "", "b".into());
        let graph = builder.build();
        assert_eq!(graph.listeners.keys().collect::<Vec<_>>(), [&80]);
        assert_eq!(graph.listeners[&80].public_port, 8000);
    }

    fn tls() -> Protocol {
        Protocol::Tls(Arc::new(ListenerTls::new(443, HostMap::default(), None, &ClientAuth::None)))
    }

    #[test]
    fn the_server_name_tells_streams_and_http_of_one_port_apart() {
        let mut builder = GraphBuilder::new();
        builder.listener(443, 443, tls());
        builder.tls_stream(443, "*.example.com", TlsEnd::Backend, "wild".into());
        builder.tls_stream(443, "b.example.com", TlsEnd::Here, "b".into());
        builder.section(443, "a.example.com", "http".into());
        let graph = builder.build();
        let of = |host: &str| match graph.listeners[&443].streams.matching(host).next() {
            None => "none",
            Some(TlsUse::Http) => "http",
            Some(TlsUse::Terminate(_)) => "terminate",
            Some(TlsUse::Passthrough(_)) => "passthrough",
        };
        assert_eq!(of("a.example.com"), "http");
        assert_eq!(of("b.example.com"), "terminate");
        assert_eq!(of("c.example.com"), "passthrough");
        assert_eq!(of("example.org"), "none");
    }

    #[test]
    fn a_port_without_streams_needs_no_look_at_the_server_name() {
        let mut builder = GraphBuilder::new();
        builder.listener(443, 443, tls());
        builder.section(443, "a.example.com", "http".into());
        assert!(builder.build().listeners[&443].streams.is_empty());
    }

    #[test]
    fn the_oldest_route_has_the_host_of_a_stream() {
        let mut builder = GraphBuilder::new();
        let stream = builder.tcp_stream(9000, 90, "tcp".into());
        let [old, new, same] = ["old", "new", "same"].map(|name| builder.rule(rule(name)));
        builder.stream_route(stream, "", (2, "ns/new"), new);
        builder.stream_route(stream, "", (1, "ns/old"), old);
        builder.stream_route(stream, "", (1, "ns/same"), same);
        let graph = builder.build();
        let Protocol::Tcp(stream) = &graph.listeners[&9000].protocol else { panic!() };
        assert_eq!(stream.find(""), Some(old));
        assert_eq!(graph.listeners[&9000].public_port, 90);
    }

    #[test]
    fn tcp_and_udp_may_have_the_same_port() {
        let mut builder = GraphBuilder::new();
        builder.tcp_stream(53, 53, "tcp".into());
        builder.udp_stream(53, 53, "udp".into());
        let graph = builder.build();
        assert_eq!(&*graph.datagrams[&53].stream.name, "udp");
        assert!(matches!(graph.listeners[&53].protocol, Protocol::Tcp(_)));
    }
}
