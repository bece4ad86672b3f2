//! The parents of routes: Gateways and ListenerSets of ours that they name, and default Gateways
//! that they ask for (GEP-3793).

use super::gateway::{ByKey, GatewayState, by_key, by_set};
use super::listeners::Parent;
use super::routes::RouteSpec;
use super::{Key, ObjectKind};
use crate::api::gateway::{DefaultScope, GROUP, ParentReference};

/// Every object of ours that routes can attach to.
#[derive(Debug)]
pub(super) struct Parents<'s> {
    gateways: ByKey<'s>,
    /// With the place of their Gateway.
    sets: ByKey<'s>,
    defaults: Vec<(&'s Key, usize)>,
}

/// One parent of a route.
#[derive(Debug)]
pub(super) struct Named<'s> {
    /// As the route's status names it.
    pub reference: ParentReference,
    pub parent: Parent<'s>,
    /// Of the Gateway.
    pub place: usize,
}

impl<'s> Parents<'s> {
    pub fn new(gateways: &[GatewayState<'s>]) -> Self {
        let places = gateways.iter().enumerate();
        let defaults = places.filter(|(_, gateway)| gateway.is_default());
        Parents {
            gateways: by_key(gateways),
            sets: by_set(gateways),
            defaults: defaults.map(|(place, gateway)| (gateway.key, place)).collect(),
        }
    }

    /// The parents of a route that are ours, each once: a Gateway that it names is no default
    /// one for it.
    pub fn of(&self, route: &RouteSpec<'s>) -> Vec<Named<'s>> {
        let mut all: Vec<Named<'s>> = Vec::new();
        for reference in route.parents {
            let found = self.find(reference, route.key);
            if let Some((parent, place)) = found
                && all.iter().all(|named| named.reference != *reference)
            {
                all.push(Named { reference: reference.clone(), parent, place });
            }
        }
        if route.default_gateways == Some(&DefaultScope::All) {
            for (key, place) in &self.defaults {
                let parent = Parent::Gateway(key);
                if all.iter().all(|named| named.parent != parent) {
                    all.push(Named { reference: default_of(key), parent, place: *place });
                }
            }
        }
        all
    }

    fn find(&self, reference: &ParentReference, route: &Key) -> Option<(Parent<'s>, usize)> {
        if reference.group.as_deref().is_some_and(|group| group != GROUP) {
            return None;
        }
        let namespace = reference.namespace.as_deref().unwrap_or(&route.namespace);
        let key = Key::new(namespace, &*reference.name);
        match reference.kind.as_deref() {
            None | Some("Gateway") => {
                self.gateways.get_key_value(&key).map(|(key, at)| (Parent::Gateway(key), *at))
            }
            Some("ListenerSet") => {
                self.sets.get_key_value(&key).map(|(key, at)| (Parent::ListenerSet(key), *at))
            }
            Some(_) => None,
        }
    }
}

/// How the status names a default Gateway, which the route does not.
fn default_of(gateway: &Key) -> ParentReference {
    ParentReference {
        group: Some(GROUP.to_owned()),
        kind: Some(ObjectKind::Gateway.kind().to_owned()),
        namespace: Some(gateway.namespace.clone()),
        name: gateway.name.clone(),
        section_name: None,
        port: None,
    }
}
