//! One pass over a snapshot: the indexes that every kind needs, and what is collected.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::backend_tls_policy::TlsPolicies;
use super::backends::Backends;
use super::binds::Binds;
use super::carry::Carrying;
use super::certificates::Certificates;
use super::consumers::Directory;
use super::memo::Recall;
use super::middleware::Attached;
use super::references::Grants;
use super::status::Problem;
use super::traffic_policy::TrafficPolicies;
use super::x_backend::XBackends;
use super::{InfrastructureWrite, Key, Note, ObjectKind, Snapshot, StatusWrite, Translation};
use crate::graph::{GraphBuilder, SectionId};

/// See the module's documentation.
pub(super) struct Pass<'s> {
    pub snapshot: &'s Snapshot,
    /// The time of the snapshot, as conditions write it.
    pub now: String,
    pub graph: GraphBuilder,
    pub grants: Grants<'s>,
    pub backends: Backends<'s>,
    pub certificates: Certificates,
    pub memo: Recall<'s>,
    pub binds: Binds,
    pub directory: Directory<'s>,
    pub policies: Attached<'s>,
    pub tls_policies: TlsPolicies<'s>,
    pub traffic_policies: TrafficPolicies<'s>,
    pub x_backends: XBackends<'s>,
    /// The routes that have a parent of ours.
    pub our_routes: HashSet<(ObjectKind, &'s Key)>,
    /// Regular expressions of each host of a section.
    pub expressions: HashMap<(SectionId, String), usize>,
    /// Regular expressions of all routes of a namespace.
    pub expressions_of: HashMap<&'s str, usize>,
    /// Services that there is a note about.
    pub noted_services: HashSet<Key>,
    pub carrying: Carrying,
    pub statuses: Vec<StatusWrite>,
    pub infrastructure: Vec<InfrastructureWrite>,
    pub notes: BTreeSet<Note>,
}

impl<'s> Pass<'s> {
    pub fn new(snapshot: &'s Snapshot) -> Self {
        let (carrying, graph) = Carrying::new(snapshot);
        Pass {
            snapshot,
            now: snapshot.taken.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            graph,
            grants: Grants::new(snapshot),
            backends: Backends::new(snapshot),
            certificates: Certificates::default(),
            memo: snapshot.memo.recall(),
            binds: Binds::default(),
            directory: Directory::default(),
            policies: Attached::default(),
            tls_policies: TlsPolicies::default(),
            traffic_policies: TrafficPolicies::default(),
            x_backends: XBackends::default(),
            our_routes: HashSet::new(),
            expressions: HashMap::new(),
            expressions_of: HashMap::new(),
            noted_services: HashSet::new(),
            carrying,
            statuses: Vec::new(),
            infrastructure: Vec::new(),
            notes: BTreeSet::new(),
        }
    }

    /// Tells the owner of an object of a problem with it.
    pub fn warn(&mut self, kind: ObjectKind, key: &Key, meta: &ObjectMeta, problem: &Problem) {
        if kind == ObjectKind::Service {
            self.noted_services.insert(key.clone());
        }
        self.note(Note {
            kind,
            key: key.clone(),
            uid: meta.uid.clone(),
            warning: true,
            reason: problem.reason.to_owned(),
            field: problem.field.clone(),
            message: problem.message.clone(),
        });
    }

    /// Tells of objects that could not be read.
    pub fn undecodable(&mut self) {
        for object in self.snapshot.undecodable.iter() {
            let known = ObjectKind::ALL.iter().find(|kind| kind.kind() == object.kind);
            let Some(kind) = known else { continue };
            let at = object.origin.as_ref().map(|at| format!("{at}: ")).unwrap_or_default();
            self.notes.insert(Note {
                kind: *kind,
                key: object.key.clone(),
                uid: object.uid.clone(),
                warning: true,
                reason: "Undecodable".to_owned(),
                field: String::new(),
                message: format!("{at}{}; its last good version is kept, if any", object.message),
            });
        }
    }

    pub fn finish(mut self) -> Translation {
        self.binds.install(&mut self.graph);
        self.memo.keep(self.carrying.goes_on());
        let mut graph = self.graph.build();
        let number = self.carrying.finish(&self.snapshot.memo);
        graph.pass = number.unwrap_or_default();
        Translation {
            graph,
            graph_is_new: number.is_some(),
            statuses: self.statuses,
            infrastructure: self.infrastructure,
            notes: self.notes.into_iter().collect(),
            good_certificates: self.certificates.good().cloned().collect(),
        }
    }
}

/// The labels or annotations of an object, empty if it has none.
pub(super) fn map_of(map: Option<&BTreeMap<String, String>>) -> &BTreeMap<String, String> {
    static EMPTY: BTreeMap<String, String> = BTreeMap::new();
    map.unwrap_or(&EMPTY)
}

/// Seconds since the epoch at which an object was made; 0 if that is not known (files).
pub(super) fn created(meta: &ObjectMeta) -> i64 {
    meta.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second())
}
