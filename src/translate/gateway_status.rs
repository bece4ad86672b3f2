//! What the status of a Gateway and of its listeners says.

use super::addresses::Addresses;
use super::gateway::GatewayState;
use super::infrastructure::service_name;
use super::listeners::{ListenerState, Parent};
use super::pass::Pass;
use super::status::{Problem, Said, conditions};
use super::{ObjectKind, Ports, frontend, listener_set};
use crate::api::gateway::{Condition, GatewayStatus, ListenerStatus};

/// The conditions that are ours in a Gateway's status.
const OWNED: [&str; 6] = [
    "Accepted",
    "Programmed",
    "ResolvedRefs",
    "AddressesAssigned",
    "InsecureFrontendValidationMode",
    "DefaultGateway",
];
/// The conditions that are ours in a listener's status.
const OWNED_OF_LISTENER: [&str; 5] =
    ["Accepted", "Programmed", "ResolvedRefs", "Conflicted", "OverlappingTLSConfig"];
/// Most conditions of an object, of all controllers together.
const MAX_CONDITIONS: usize = 8;

impl ListenerState<'_> {
    /// Everything that is wrong with it.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        [&self.refused, &self.conflict, &self.unresolved].into_iter().flatten()
    }
}

impl<'s> Pass<'s> {
    /// Says of every Gateway what became of it.
    pub fn gateway_statuses(&mut self, gateways: &[GatewayState<'s>]) {
        for gateway in gateways {
            let meta = &gateway.object.metadata;
            let addresses = Addresses::of(self.snapshot, gateway);
            let own = gateway.own();
            let listeners: Vec<ListenerStatus> =
                own.map(|l| self.listener_status(gateway, l, meta.generation)).collect();
            let old = gateway.object.status.as_ref();
            let before = old.map_or(&[][..], |status| &status.conditions);
            let said = self.said(gateway, &addresses, before);
            let new = GatewayStatus {
                conditions: conditions(before, &OWNED, &said, meta.generation, &self.now),
                addresses: addresses.assigned,
                listeners,
                attached_listener_sets: Some(listener_set::attached(gateway)),
                other: old.map(|status| status.other.clone()).unwrap_or_default(),
            };
            let of_listeners = gateway.own().flat_map(|listener| listener.problems());
            let of_gateway = gateway.problem.iter().chain(&gateway.unresolved);
            for problem in of_gateway.chain(of_listeners) {
                self.warn(ObjectKind::Gateway, gateway.key, meta, problem);
            }
            self.status(ObjectKind::Gateway, gateway.key, meta, old, new);
        }
    }

    /// The conditions, the most important first: as many as there is room for.
    fn said(
        &self,
        gateway: &GatewayState<'_>,
        addresses: &Addresses,
        before: &[Condition],
    ) -> Vec<Said> {
        let mut said = vec![accepted(gateway), self.programmed(gateway, addresses)];
        said.push(resolved(gateway));
        if frontend::is_insecure(gateway.object) {
            let message = "clients without a valid certificate are let in (AllowInsecureFallback)";
            said.push(Said::yes("InsecureFrontendValidationMode", "ConfigurationChanged", message));
        }
        let settings = &self.snapshot.settings;
        let own = matches!(settings.ports, Ports::Own { .. });
        // Before the Service is there nothing has been decided.
        if settings.cluster && gateway.problem.is_none() && (own || gateway.service.is_some()) {
            said.push(addresses.said(gateway));
        }
        if gateway.is_default() {
            let message = "Gateway has default scope All";
            said.push(Said::yes("DefaultGateway", "DefaultGateway", message));
        }
        let foreign = before.iter().filter(|c| !OWNED.contains(&c.r#type.as_str())).count();
        said.truncate(MAX_CONDITIONS.saturating_sub(foreign));
        said
    }

    /// The status of one listener of a Gateway or a ListenerSet of this generation.
    pub fn listener_status(
        &self,
        gateway: &GatewayState<'_>,
        listener: &ListenerState<'_>,
        generation: Option<i64>,
    ) -> ListenerStatus {
        let not_programmed = self.not_programmed(gateway, listener);
        let conflicted = match &listener.conflict {
            Some(problem) => Said::yes("Conflicted", problem.reason, problem.to_string()),
            None => Said::no("Conflicted", "NoConflicts", ""),
        };
        let not_accepted = listener.refused.as_ref().or(listener.conflict.as_ref());
        let mut said = vec![
            Said::of("Accepted", "Accepted", not_accepted),
            Said::of("Programmed", "Programmed", not_programmed.as_ref()),
            Said::of("ResolvedRefs", "ResolvedRefs", listener.unresolved.as_ref()),
            conflicted,
        ];
        if !listener.overlaps.is_empty() {
            let names = listener.overlaps.join(", ");
            let message = format!("host names overlap with those of {names}");
            said.push(Said::yes("OverlappingTLSConfig", "OverlappingHostnames", message));
        }
        let before = listener.old.map_or(&[][..], |status| &status.conditions);
        ListenerStatus {
            name: listener.spec.name.clone(),
            supported_kinds: listener.kinds.clone(),
            attached_routes: listener.attached,
            conditions: conditions(before, &OWNED_OF_LISTENER, &said, generation, &self.now),
            other: listener.old.map(|status| status.other.clone()).unwrap_or_default(),
        }
    }

    /// Why a listener is not live on this pod.
    fn not_programmed(
        &self,
        gateway: &GatewayState<'_>,
        listener: &ListenerState<'_>,
    ) -> Option<Problem> {
        if let (None, Some(conflict)) = (&listener.refused, &listener.conflict) {
            return Some(conflict.clone());
        }
        if !listener.serves() {
            let why = listener.why_not().map(Problem::to_string).unwrap_or_default();
            return Some(Problem::new("Invalid", "", why));
        }
        if gateway.problem.is_some() {
            return Some(Problem::new("Invalid", "", "the Gateway is not accepted"));
        }
        let pending = |message: String| Some(Problem::new("Pending", "", message));
        let Some(port) = listener.bound else {
            return pending(match gateway.invalid_service {
                Some(why) => format!("the Gateway's Service cannot be made: {why}"),
                None => "no container port is recorded on the Gateway's Service yet".to_owned(),
            });
        };
        match self.snapshot.listening.get(&(listener.intake.transport(), port)) {
            Some(Ok(())) => None,
            Some(Err(cause)) => pending(format!("port {port} cannot be bound: {cause}")),
            None => pending(format!("port {port} is not bound yet")),
        }
    }

    fn programmed(&self, gateway: &GatewayState<'_>, addresses: &Addresses) -> Said {
        let problem = if let Some(problem) = &gateway.problem {
            Some(Problem::new("Invalid", "", problem.to_string()))
        } else {
            let own = Parent::Gateway(gateway.key);
            self.not_bound(gateway, own)
                .or_else(|| self.not_reachable(gateway, addresses))
                .or_else(|| not_ready(gateway, own))
        };
        Said::of("Programmed", "Programmed", problem.as_ref())
    }

    /// Why an object's listeners are not all live, as far as they can be served.
    pub fn not_live(&self, gateway: &GatewayState<'_>, parent: Parent<'_>) -> Option<Problem> {
        self.not_bound(gateway, parent).or_else(|| not_ready(gateway, parent))
    }

    /// Why an object's listeners are not all bound on this pod.
    fn not_bound(&self, gateway: &GatewayState<'_>, parent: Parent<'_>) -> Option<Problem> {
        let mut serving = 0;
        for listener in gateway.of(parent).filter(|listener| listener.serves()) {
            serving += 1;
            if let Some(problem) = self.not_programmed(gateway, listener) {
                let message = format!("listener {}: {problem}", listener.spec.name);
                return Some(Problem::new("Pending", "", message));
            }
        }
        let message = "no listener can be served; see their conditions";
        (serving == 0).then(|| Problem::new("Invalid", "", message))
    }

    /// Why nobody can reach a Gateway, as it asks for it.
    pub fn not_reachable(
        &self,
        gateway: &GatewayState<'_>,
        addresses: &Addresses,
    ) -> Option<Problem> {
        let settings = &self.snapshot.settings;
        let own = matches!(settings.ports, Ports::Own { .. });
        if !settings.cluster || (own && gateway.object.spec.addresses.is_empty()) {
            return None;
        }
        if gateway.service.is_none() && !own {
            let name = service_name(&gateway.key.name);
            let message = format!("Service {name} does not exist yet, or is somebody else's");
            return Some(Problem::new("AddressNotAssigned", "", message));
        }
        addresses.problem(gateway)
    }
}

/// Why no pod takes what comes for an object's listeners.
fn not_ready(gateway: &GatewayState<'_>, parent: Parent<'_>) -> Option<Problem> {
    let serving = gateway.of(parent).filter(|listener| listener.serves());
    let mut ports = serving.map(|listener| listener.service_port());
    let port = ports.find(|port| gateway.ready.get(port) == Some(&0))?;
    let message = format!("no ready pod listens on {} port {} yet", port.0, port.1);
    Some(Problem::new("Pending", "", message))
}

fn accepted(gateway: &GatewayState<'_>) -> Said {
    if let Some(problem) = &gateway.problem {
        return Said::no("Accepted", problem.reason, problem.to_string());
    }
    let all = gateway.own().count();
    let bad: Vec<&str> =
        gateway.own().filter(|l| !l.is_accepted()).map(|l| &*l.spec.name).collect();
    let message = format!("not accepted: {}; see their conditions", bad.join(", "));
    if bad.is_empty() && all > 0 {
        Said::yes("Accepted", "Accepted", "")
    } else if bad.len() < all {
        Said::yes("Accepted", "ListenersNotValid", message)
    } else {
        Said::no("Accepted", "ListenersNotValid", message)
    }
}

/// Of the Gateway itself and of its listeners.
fn resolved(gateway: &GatewayState<'_>) -> Said {
    let mut listeners = gateway.own().filter(|listener| listener.unresolved.is_some());
    let problem = gateway.unresolved.clone().or_else(|| {
        let name = &listeners.next()?.spec.name;
        let message = format!("not all references of listener {name} lead somewhere; see there");
        Some(Problem::new("ListenersNotResolved", "", message))
    });
    Said::of("ResolvedRefs", "ResolvedRefs", problem.as_ref())
}
