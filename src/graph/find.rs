//! From a request's head to the rule that it meets.
//!
//! Listener isolation (Gateway API, `Gateway.spec.listeners`): of the sections on a port, the
//! one that claims the host most specifically answers alone, also when it has no route for the
//! request. Only Ingress stands behind all Gateways of a port. Inside a section, a route under
//! a less specific host name answers what those under more specific ones do not match.

use std::sync::Arc;

use super::{Found, INGRESS, Listener, RouteGraph, RuleId, Section};
use crate::policy::RequestHead;
use crate::reason::Reason;

impl RouteGraph {
    /// The rule for a request that came in by `listener`. `sni` is the server name of its TLS
    /// connection, in lower case, where the client sent one.
    ///
    /// # Errors
    /// [`Reason::Misdirected`] when the server name leads to other sections than the request's
    /// host does: the connection was opened for another listener, maybe under other TLS rules
    /// (RFC 9110, 15.5.20). [`Reason::NoRoute`] when nothing matches.
    pub fn find<'g>(
        &'g self,
        listener: &'g Listener,
        sni: Option<&str>,
        head: &RequestHead,
    ) -> Result<Found<'g>, Reason> {
        let mut claims = listener.sections.matching(&head.host);
        let own = claims.next().ok_or(Reason::NoRoute)?;
        if sni.is_some_and(|sni| sni != &*head.host && !same(listener, sni, own)) {
            return Err(Reason::Misdirected);
        }
        let ingress = claims.flatten().filter(|section| *section.name == *INGRESS);
        own.iter()
            .chain(ingress)
            .find_map(|section| section.find(head).map(|found| self.found(section, found)))
            .ok_or(Reason::NoRoute)
    }

    fn found<'g>(&'g self, section: &'g Section, (rule, prefix): (RuleId, &'g str)) -> Found<'g> {
        Found { rule: &self[rule], section, prefix }
    }
}

/// Whether `host` too leads to these sections.
fn same(listener: &Listener, host: &str, sections: &Vec<Arc<Section>>) -> bool {
    listener.sections.matching(host).next().is_some_and(|other| std::ptr::eq(other, sections))
}

impl Section {
    fn find(&self, head: &RequestHead) -> Option<(RuleId, &str)> {
        self.hosts.matching(&head.host).find_map(|table| table.find(head))
    }
}
