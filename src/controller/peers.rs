//! The other Tidegate pods: which are ready, on which ports they listen, which are gone.
//!
//! The EndpointSlices of our own Service say who they are; what they are doing they say
//! themselves, over one `/peer` stream each (see [`crate::admin`]). So a pod that leaves or dies
//! is known at once, and the Gateways' EndpointSlices follow without the kubelet. A process
//! that has closed its stream and cannot be reached any more is gone: its Lease is free.

mod follow;
mod report;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use tokio::sync::{mpsc, watch};
use tokio_util::task::AbortOnDropHandle;

use super::Passes;
use super::leader::Gone;
use crate::health::Health;
use crate::lifecycle::Lifecycle;
use crate::source::Handle;
use crate::translate::{Key, Peer, PeerState, Snapshot};
pub use follow::Heard;
pub use report::{BEAT, Listening, PeerReport};

/// More pods than this are not followed: streams are from all to all.
const MOST_MEMBERS: usize = 200;
/// Identities that are remembered as gone.
const MOST_GONE: usize = 256;

/// A Tidegate pod, as an EndpointSlice of our own Service names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    pub ip: IpAddr,
    pub pod_name: Option<String>,
    pub node_name: Option<String>,
    pub terminating: bool,
}

/// The pods behind `own_service`, ordered by address, each once.
pub fn members(snapshot: &Snapshot) -> Vec<Member> {
    let Some(service) = &snapshot.settings.own_service else { return Vec::new() };
    let slices = snapshot.endpoint_slices.iter();
    let ours = slices.filter(|(key, slice)| belongs(key, slice, service));
    let mut members: Vec<Member> =
        ours.flat_map(|(_, slice)| slice.endpoints.iter().flatten()).filter_map(member).collect();
    members.sort();
    members.dedup_by(|a, b| a.ip == b.ip);
    members.truncate(MOST_MEMBERS);
    members
}

fn belongs(key: &Key, slice: &EndpointSlice, service: &Key) -> bool {
    let labels = slice.metadata.labels.as_ref();
    let name = labels.and_then(|labels| labels.get("kubernetes.io/service-name"));
    key.namespace == service.namespace && name == Some(&service.name)
}

fn member(endpoint: &Endpoint) -> Option<Member> {
    let conditions = endpoint.conditions.as_ref();
    Some(Member {
        ip: endpoint.addresses.first()?.parse().ok()?,
        pod_name: endpoint.target_ref.as_ref().and_then(|target| target.name.clone()),
        node_name: endpoint.node_name.clone(),
        terminating: conditions.and_then(|c| c.terminating).unwrap_or(false),
    })
}

/// Who we are, and where what we learn goes.
#[derive(Clone, Debug)]
pub struct Peers {
    pub identity: String,
    /// None where this process is no pod: then it is no peer either.
    pub pod_ip: Option<IpAddr>,
    pub pod_name: Option<String>,
    /// Of all pods alike.
    pub admin_port: u16,
    pub lifecycle: Lifecycle,
    pub listening: Listening,
    pub source: Handle,
    pub health: Arc<Health>,
    /// Empty at first.
    pub gone: watch::Sender<Arc<BTreeSet<String>>>,
}

impl Peers {
    /// The processes that are known to be gone.
    pub fn gone(&self) -> Gone {
        self.gone.subscribe()
    }

    /// Follows the members of the newest pass, and tells the source what they say.
    pub async fn run(self, mut passes: Passes) {
        let (sender, mut heard) = mpsc::channel(64);
        let mut phase = self.lifecycle.subscribe();
        let mut listening = self.listening.clone();
        let mut circle = Circle::default();
        loop {
            let members = passes.borrow_and_update().members.clone();
            circle.follow(&members, self.pod_ip, |ip| {
                let task = follow::follow(ip, self.admin_port, sender.clone());
                AbortOnDropHandle::new(tokio::spawn(task))
            });
            self.tell(&circle, members);
            tokio::select! {
                changed = passes.changed() => if changed.is_err() { return },
                Ok(()) = phase.changed() => {}
                Ok(()) = listening.changed() => {}
                Some((ip, news)) = heard.recv() => {
                    if let Heard::Gone(identity) = &news {
                        self.declare_gone(identity);
                    }
                    circle.hear(ip, news);
                }
            }
        }
    }

    fn tell(&self, circle: &Circle, mut members: Vec<Member>) {
        if let Some(ip) = self.pod_ip.filter(|ip| members.iter().all(|m| m.ip != *ip)) {
            // The EndpointSlice that names this pod may be still to come.
            let pod_name = self.pod_name.clone();
            members.push(Member { ip, pod_name, node_name: None, terminating: false });
            members.sort();
        }
        let peers: Vec<Peer> = members
            .into_iter()
            .map(|member| {
                let own = (Some(member.ip) == self.pod_ip)
                    .then(|| PeerReport::now(&self.identity, &self.lifecycle, &self.listening));
                let says = own.or_else(|| circle.says.get(&member.ip).cloned());
                peer(member, says)
            })
            .collect();
        self.health.ready_peers.set(peers.iter().filter(|peer| peer.is_ready()).count() as u64);
        self.source.set_peers(peers);
    }

    fn declare_gone(&self, identity: &str) {
        tracing::info!(identity, "a Tidegate pod is gone");
        self.gone.send_modify(|gone| {
            let mut all = BTreeSet::clone(gone);
            if all.len() >= MOST_GONE {
                all.clear();
            }
            all.insert(identity.to_owned());
            *gone = Arc::new(all);
        });
    }
}

fn peer(member: Member, says: Option<PeerReport>) -> Peer {
    let state = match &says {
        Some(report) if report.ready && !member.terminating => PeerState::Ready,
        // Its end has been decided, whether or not it has heard of it.
        Some(report) if report.ready || report.leaving => PeerState::Leaving,
        _ => PeerState::Away,
    };
    Peer {
        ip: member.ip,
        pod_name: member.pod_name,
        node_name: member.node_name,
        state,
        ports: says.map(|report| report.bound()).unwrap_or_default(),
    }
}

/// Those that are followed, and their last word.
#[derive(Default)]
struct Circle {
    followed: HashMap<IpAddr, AbortOnDropHandle<()>>,
    says: BTreeMap<IpAddr, PeerReport>,
}

impl Circle {
    fn follow(
        &mut self,
        members: &[Member],
        own: Option<IpAddr>,
        start: impl Fn(IpAddr) -> AbortOnDropHandle<()>,
    ) {
        let wanted: BTreeSet<IpAddr> =
            members.iter().map(|m| m.ip).filter(|ip| Some(*ip) != own).collect();
        self.followed.retain(|ip, _| wanted.contains(ip));
        self.says.retain(|ip, _| wanted.contains(ip));
        for ip in wanted {
            self.followed.entry(ip).or_insert_with(|| start(ip));
        }
    }

    fn hear(&mut self, ip: IpAddr, news: Heard) {
        // News of somebody who has left the circle may still have been on the way.
        if !self.followed.contains_key(&ip) {
            return;
        }
        match news {
            Heard::Says(report) => {
                self.says.insert(ip, report);
            }
            Heard::Silent | Heard::Gone(_) => {
                self.says.remove(&ip);
            }
        }
    }
}

#[cfg(test)]
mod tests;
