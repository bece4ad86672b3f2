//! Where an Ingress can be reached: at the addresses of the chart's own Service.

use k8s_openapi::api::networking::v1::{
    Ingress, IngressLoadBalancerIngress, IngressLoadBalancerStatus, IngressStatus,
};

use super::pass::Pass;
use super::{Key, ObjectKind, Ports};

impl Pass<'_> {
    pub fn ingress_status(&mut self, key: &Key, object: &Ingress) {
        let Some(addresses) = self.ingress_addresses() else { return };
        let ingress = (!addresses.is_empty()).then_some(addresses);
        let balancer = ingress.map(|ingress| IngressLoadBalancerStatus { ingress: Some(ingress) });
        let new = IngressStatus { load_balancer: balancer };
        let old = object.status.as_ref();
        // `loadBalancer: {}` says as little as nothing.
        let empty = |status: &IngressStatus| {
            let balancer = status.load_balancer.as_ref();
            balancer.and_then(|b| b.ingress.as_ref()).is_none_or(Vec::is_empty)
        };
        if old.is_none_or(empty) && empty(&new) {
            return;
        }
        self.status(ObjectKind::Ingress, key, &object.metadata, old, new);
    }

    /// None where there is no Service of our own, so that nothing can be said.
    fn ingress_addresses(&self) -> Option<Vec<IngressLoadBalancerIngress>> {
        let settings = &self.snapshot.settings;
        if settings.cluster && matches!(settings.ports, Ports::Own { .. }) {
            let ready = self.snapshot.peers.iter().filter(|peer| peer.is_ready());
            let mut ips: Vec<String> = ready.map(|peer| peer.ip.to_string()).collect();
            ips.sort();
            ips.dedup();
            let at = |ip| IngressLoadBalancerIngress {
                ip: Some(ip),
                ..IngressLoadBalancerIngress::default()
            };
            return Some(ips.into_iter().map(at).collect());
        }
        let service = self.snapshot.services.get(settings.own_service.as_ref()?)?;
        let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
        let ingress = status.and_then(|balancer| balancer.ingress.as_ref());
        let at =
            |from: &k8s_openapi::api::core::v1::LoadBalancerIngress| IngressLoadBalancerIngress {
                hostname: from.hostname.clone(),
                ip: from.ip.clone(),
                ports: None,
            };
        Some(ingress.into_iter().flatten().map(at).collect())
    }
}
