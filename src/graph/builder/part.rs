//! What one object put into a graph, kept to be put into the next one as it is.

use std::collections::HashMap;
use std::sync::Arc;

use super::{GraphBuilder, SectionId};
use crate::graph::{BackendId, Entry, HostMap, PathTable, Pattern, PolicyId, RuleId};

/// What was put into a graph between [`GraphBuilder::record_part`] and [`GraphBuilder::part`], by
/// the numbers under which that graph has it.
#[derive(Debug, Default)]
pub struct Part {
    rules: Box<[RuleId]>,
    backends: Box<[BackendId]>,
    policies: Box<[PolicyId]>,
    tables: Box<[Placed]>,
}

/// The matches of a part under one host name of a section.
#[derive(Debug)]
struct Placed {
    section: SectionId,
    grpc: bool,
    hostname: Pattern,
    table: Arc<PathTable>,
}

/// A part that is being put in.
#[derive(Debug, Default)]
pub(super) struct Recording {
    pub rules: Vec<RuleId>,
    pub backends: Vec<BackendId>,
    pub policies: Vec<PolicyId>,
    entries: Vec<(SectionId, bool, Pattern, Vec<Entry>)>,
}

/// What a section has, by host names.
pub(super) type Pieces = Vec<(Pattern, Piece)>;

/// The table of a part, or an entry that belongs to none.
#[derive(Debug)]
pub(super) enum Piece {
    Table(Arc<PathTable>),
    Entry(Box<Entry>),
}

/// One table for each host name.
pub(super) fn hosts(pieces: Pieces) -> HostMap<Arc<PathTable>> {
    let mut hosts = HostMap::with_capacity(pieces.len());
    let mut of_several: HashMap<Pattern, Vec<Piece>> = HashMap::new();
    for (pattern, piece) in pieces {
        if let Some(all) = of_several.get_mut(&pattern) {
            all.push(piece);
            continue;
        }
        // Most hosts are one part's: then its table is the host's.
        let table = match &piece {
            Piece::Table(table) => Arc::clone(table),
            Piece::Entry(_) => Arc::default(),
        };
        let before = hosts.insert(pattern.clone(), table).map(Piece::Table);
        if before.is_some() || matches!(piece, Piece::Entry(_)) {
            of_several.insert(pattern, before.into_iter().chain([piece]).collect());
        }
    }
    for (pattern, pieces) in of_several {
        hosts.insert(pattern, Arc::new(merged(pieces)));
    }
    hosts
}

fn merged(pieces: Vec<Piece>) -> PathTable {
    let mut entries = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Table(table) => entries.extend(table.entries().cloned()),
            Piece::Entry(entry) => entries.push(*entry),
        }
    }
    PathTable::new(entries)
}

impl GraphBuilder {
    /// What is put in from here on is one part, until [`GraphBuilder::part`].
    pub fn record_part(&mut self) {
        self.recording = Some(Recording::default());
    }

    /// The part that was put in. Streams are not among it.
    pub fn part(&mut self) -> Part {
        let Recording { rules, mut backends, policies, entries } =
            self.recording.take().unwrap_or_default();
        backends.sort_unstable();
        backends.dedup();
        let placed = entries.into_iter().map(|(section, grpc, hostname, entries)| {
            let table = Arc::new(PathTable::new(entries));
            Placed { section, grpc, hostname, table }
        });
        let tables: Box<[Placed]> = placed.collect();
        tables.iter().for_each(|placed| self.place(placed));
        Part { rules: rules.into(), backends: backends.into(), policies: policies.into(), tables }
    }

    /// Puts in what the last graph had of `part`: the builder began after that graph, and the
    /// sections are the same.
    pub fn keep(&mut self, part: &Part) {
        part.rules.iter().for_each(|id| self.rules.keep(id.0));
        part.backends.iter().for_each(|id| self.backends.keep(id.0));
        part.policies.iter().for_each(|id| self.policies.keep(id.0));
        part.tables.iter().for_each(|placed| self.place(placed));
    }

    fn place(&mut self, Placed { section, grpc, hostname, table }: &Placed) {
        self.piece(*section, *grpc, hostname.clone(), Piece::Table(Arc::clone(table)));
    }

    pub(super) fn entry(&mut self, section: SectionId, grpc: bool, hostname: &str, entry: Entry) {
        let pattern = Pattern::from(hostname);
        let Some(recording) = &mut self.recording else {
            return self.piece(section, grpc, pattern, Piece::Entry(Box::new(entry)));
        };
        let here = |(s, g, p, _): &&mut (SectionId, bool, Pattern, _)| {
            (*s, *g, p) == (section, grpc, &pattern)
        };
        match recording.entries.iter_mut().find(here) {
            Some((_, _, _, entries)) => entries.push(entry),
            None => recording.entries.push((section, grpc, pattern, vec![entry])),
        }
    }

    fn piece(&mut self, section: SectionId, grpc: bool, pattern: Pattern, piece: Piece) {
        let draft = &mut self.sections[section.0];
        let pieces = if grpc { &mut draft.grpc } else { &mut draft.hosts };
        pieces.push((pattern, piece));
    }

    /// The part that is put in needs a backend that was made for another.
    pub fn uses(&mut self, backend: BackendId) {
        self.record(|recording| recording.backends.push(backend));
    }

    pub(super) fn record(&mut self, what: impl FnOnce(&mut Recording)) {
        if let Some(recording) = &mut self.recording {
            what(recording);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::testing::{backend, entry, key, rule};
    use crate::graph::{PathMatch, Protocol, RouteGraph};
    use crate::policy::testing::head;

    fn begin(mut builder: GraphBuilder) -> (GraphBuilder, SectionId) {
        builder.listener(80, 80, Protocol::Http);
        let section = builder.section(80, "", "a".into());
        (builder, section)
    }

    /// A route to a backend of its name, under this host.
    fn put(builder: &mut GraphBuilder, section: SectionId, name: &str, host: &str) -> Part {
        builder.record_part();
        builder.backend(&key(name, 80), || backend(name, 80, &[1]));
        let id = builder.rule(rule(name));
        builder.route(section, host, entry(PathMatch::Prefix(format!("/{name}").into()), id.0));
        builder.part()
    }

    fn found(graph: &RouteGraph, host: &str, path: &str) -> Option<String> {
        let head = head("GET", &format!("http://{host}{path}"), &[]);
        let found = graph.find(&graph.listeners[&80], None, &head).ok()?;
        Some(found.rule.name.name.to_string())
    }

    #[test]
    fn a_part_that_is_kept_is_shared_with_the_last_graph() {
        let (mut builder, section) = begin(GraphBuilder::new());
        let gone = put(&mut builder, section, "gone", "a.example");
        let kept = put(&mut builder, section, "kept", "b.example");
        let last = builder.build();
        assert_eq!(gone.rules.len(), 1);
        let (mut builder, section) = begin(GraphBuilder::after(&last));
        builder.keep(&kept);
        put(&mut builder, section, "new", "c.example");
        let now = builder.build();
        assert!(std::ptr::eq(&now.rules[1], &last.rules[1]));
        assert!(std::ptr::eq(&now.backends[1], &last.backends[1]));
        assert_eq!((now.rules.len(), now.backends.len()), (2, 2));
        assert_eq!(found(&now, "a.example", "/gone"), None);
        assert_eq!(found(&now, "b.example", "/kept").as_deref(), Some("kept"));
        assert_eq!(found(&now, "c.example", "/new").as_deref(), Some("new"));
    }

    #[test]
    fn a_host_of_several_parts_has_the_matches_of_all() {
        let (mut builder, section) = begin(GraphBuilder::new());
        let kept = put(&mut builder, section, "one", "a.example");
        let last = builder.build();
        let (mut builder, section) = begin(GraphBuilder::after(&last));
        builder.keep(&kept);
        put(&mut builder, section, "two", "a.example");
        let id = builder.rule(rule("loose"));
        builder.route(section, "a.example", entry(PathMatch::Prefix("".into()), id.0));
        let now = builder.build();
        for (path, name) in [("/one", "one"), ("/two", "two"), ("/three", "loose")] {
            assert_eq!(found(&now, "a.example", path).as_deref(), Some(name));
        }
    }

    #[test]
    fn a_backend_that_is_made_anew_stands_where_it_was() {
        let (mut builder, section) = begin(GraphBuilder::new());
        put(&mut builder, section, "one", "a.example");
        let kept = put(&mut builder, section, "two", "a.example");
        let last = builder.build();
        let (mut builder, section) = begin(GraphBuilder::after(&last));
        put(&mut builder, section, "one", "a.example");
        builder.keep(&kept);
        let mut now = builder.build();
        assert_eq!(now.backends[0].key, last.backends[0].key);
        assert!(!std::ptr::eq(&now.backends[0], &last.backends[0]));
        assert_eq!(now.backends.fresh().count(), 1);
    }
}
