//! From a request's head to the rule that it meets.
//!
//! Listener isolation (Gateway API, `Gateway.spec.listeners`): of the sections on a port, the
//! one that claims the host most specifically answers alone, also when it has no route for the
//! request. Only Ingress stands behind all Gateways of a port. Inside a section, a route under
//! a less specific host name answers what those under more specific ones do not match.

use std::sync::Arc;

use http::HeaderMap;
use http::header::CONTENT_TYPE;

use super::{Found, HostMap, INGRESS, Listener, PathTable, RouteGraph, RuleId, Section};
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
        let own = listener.claimed(sni, &head.host)?;
        let in_own = own.iter().find_map(|section| self.find_in(section, head));
        in_own.or_else(|| self.find_ingress(listener, head)).ok_or(Reason::NoRoute)
    }

    /// The rule of this section alone.
    pub fn find_in<'g>(&'g self, section: &'g Section, head: &RequestHead) -> Option<Found<'g>> {
        let (id, prefix) = section.find(head)?;
        Some(Found { id, rule: &self[id], section, prefix })
    }

    /// The rule of Ingress, which stands behind the sections that claim the host.
    pub fn find_ingress<'g>(
        &'g self,
        listener: &'g Listener,
        head: &RequestHead,
    ) -> Option<Found<'g>> {
        let others = listener.sections.matching(&head.host).skip(1).flatten();
        others
            .filter(|section| *section.name == *INGRESS)
            .find_map(|section| self.find_in(section, head))
    }
}

impl Listener {
    /// The sections that claim `host`, in the order in which they are asked.
    ///
    /// # Errors
    /// See [`RouteGraph::find`].
    pub fn claimed(&self, sni: Option<&str>, host: &str) -> Result<&[Arc<Section>], Reason> {
        let own = self.sections.matching(host).next().ok_or(Reason::NoRoute)?;
        if sni.is_some_and(|sni| sni != host && !same(self, sni, own)) {
            return Err(Reason::Misdirected);
        }
        Ok(own)
    }
}

/// Whether `host` too leads to these sections.
fn same(listener: &Listener, host: &str, sections: &Vec<Arc<Section>>) -> bool {
    listener.sections.matching(host).next().is_some_and(|other| std::ptr::eq(other, sections))
}

impl Section {
    fn find(&self, head: &RequestHead) -> Option<(RuleId, &str)> {
        let grpc = !self.grpc.is_empty() && is_call(&head.headers);
        let first = if grpc { under(&self.grpc, head) } else { None };
        first.or_else(|| under(&self.hosts, head))
    }
}

fn under<'h>(hosts: &'h HostMap<Arc<PathTable>>, head: &RequestHead) -> Option<(RuleId, &'h str)> {
    hosts.matching(&head.host).find_map(|table| table.find(head))
}

/// Whether GRPCRoutes are for a request: gRPC, and gRPC-Web for backends that know it.
fn is_call(headers: &HeaderMap) -> bool {
    let r#type = headers.get(CONTENT_TYPE);
    r#type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::testing::{entry, rule};
    use crate::graph::{GraphBuilder, PathMatch, Protocol};
    use crate::policy::testing::head;

    /// A graph with one port. Of each route: section, its host, the route's host, the prefix.
    fn graph(routes: &[(&str, &str, &str, &str)]) -> RouteGraph {
        let mut builder = GraphBuilder::new();
        builder.listener(80, 80, Protocol::Http);
        let mut sections = std::collections::HashMap::new();
        for (section, claim, host, prefix) in routes {
            let id = *sections
                .entry((*section, *claim))
                .or_insert_with(|| builder.section(80, claim, (*section).into()));
            let rule = builder.rule(rule(&format!("{section} {host} {prefix}")));
            builder.route(id, host, entry(PathMatch::Prefix((*prefix).into()), rule.0));
        }
        builder.build()
    }

    fn find(graph: &RouteGraph, sni: Option<&str>, url: &str) -> Result<String, Reason> {
        let head = head("GET", url, &[]);
        let found = graph.find(&graph.listeners[&80], sni, &head)?;
        Ok(found.rule.name.name.to_string())
    }

    #[test]
    fn the_most_specific_section_answers_alone() {
        let graph = graph(&[
            ("any", "", "", ""),
            ("wild", "*.example.com", "*.example.com", "/w"),
            ("exact", "a.example.com", "a.example.com", "/e"),
        ]);
        for (url, expected) in [
            ("http://a.example.com/e", Ok("exact a.example.com /e")),
            ("http://a.example.com/w", Err(Reason::NoRoute)),
            ("http://b.example.com/w", Ok("wild *.example.com /w")),
            ("http://b.example.com/x", Err(Reason::NoRoute)),
            ("http://example.com/x", Ok("any  ")),
        ] {
            assert_eq!(find(&graph, None, url).as_deref(), expected.as_ref().copied(), "{url}");
        }
    }

    #[test]
    fn inside_a_section_less_specific_hosts_answer_what_is_left() {
        let graph = graph(&[
            ("any", "", "", ""),
            ("any", "", "*.example.com", "/w"),
            ("any", "", "a.example.com", "/e"),
        ]);
        for (url, expected) in [
            ("http://a.example.com/e", "any a.example.com /e"),
            ("http://a.example.com/w", "any *.example.com /w"),
            ("http://a.example.com/x", "any  "),
            ("http://example.com/w", "any  "),
        ] {
            assert_eq!(find(&graph, None, url).as_deref(), Ok(expected), "{url}");
        }
    }

    #[test]
    fn sections_of_one_host_are_tried_in_order_and_ingress_is_last() {
        let graph = graph(&[
            (INGRESS, "", "a.example", "/i"),
            (INGRESS, "", "a.example", "/one"),
            ("one", "", "a.example", "/one"),
            ("two", "", "a.example", "/one"),
            ("two", "", "a.example", "/two"),
            ("own", "b.example", "b.example", "/own"),
            (INGRESS, "", "b.example", "/i"),
        ]);
        for (url, expected) in [
            ("http://a.example/one", Ok("one a.example /one")),
            ("http://a.example/two", Ok("two a.example /two")),
            ("http://a.example/i", Ok("ingress a.example /i")),
            ("http://b.example/own", Ok("own b.example /own")),
            ("http://b.example/i", Ok("ingress b.example /i")),
            ("http://b.example/two", Err(Reason::NoRoute)),
        ] {
            assert_eq!(find(&graph, None, url).as_deref(), expected.as_ref().copied(), "{url}");
        }
    }

    /// The table of the conformance test HTTPRouteHTTPSListenerDetectMisdirectedRequests.
    #[test]
    fn a_connection_for_another_section_is_misdirected() {
        let graph = graph(&[
            ("any", "", "example.org", ""),
            ("second", "second-example.org", "", ""),
            ("wild", "*.wildcard.org", "", ""),
            ("fourth", "fourth-example.wildcard.org", "", ""),
        ]);
        for (sni, host, code) in [
            ("example.org", "example.org", 200),
            ("example.org", "second-example.org", 421),
            ("example.org", "unknown-example.org", 404),
            ("second-example.org", "second-example.org", 200),
            ("second-example.org", "example.org", 421),
            ("second-example.org", "unknown-example.org", 421),
            ("third-example.wildcard.org", "third-example.wildcard.org", 200),
            ("third-example.wildcard.org", "fith-example.wildcard.org", 200),
            ("third-example.wildcard.org", "fourth-example.wildcard.org", 421),
            ("third-example.wildcard.org", "second-example.org", 421),
            ("fourth-example.wildcard.org", "fourth-example.wildcard.org", 200),
            ("fourth-example.wildcard.org", "fith-example.wildcard.org", 421),
            ("unknown-example.org", "example.org", 200),
            ("unknown-example.org", "unknown-example.org", 404),
        ] {
            let result = find(&graph, Some(sni), &format!("https://{host}/x"));
            let status = result.map_or_else(|reason| reason.status().as_u16(), |_| 200);
            assert_eq!(status, code, "{sni} {host}");
        }
        assert!(find(&graph, None, "https://second-example.org/x").is_ok());
    }

    #[test]
    fn grpc_routes_stand_before_the_others_and_only_for_grpc() {
        let mut builder = GraphBuilder::new();
        builder.listener(80, 80, Protocol::Http);
        let section = builder.section(80, "", "s".into());
        let mut add = |name: &str, grpc: bool, host: &str, path: PathMatch| {
            let id = builder.rule(rule(name));
            let add = if grpc { GraphBuilder::grpc_route } else { GraphBuilder::route };
            add(&mut builder, section, host, entry(path, id.0));
        };
        add("grpc", true, "", PathMatch::Prefix("/a.Svc".into()));
        add("http", false, "a.example", PathMatch::Exact("/a.Svc/Get".into()));
        let graph = builder.build();
        let of = |kind: &str, path: &str| {
            let url = format!("http://a.example{path}");
            let head = head("POST", &url, &[("content-type", kind)]);
            let found = graph.find(&graph.listeners[&80], None, &head);
            found.map(|found| found.rule.name.name.to_string())
        };
        for kind in ["application/grpc", "application/grpc+proto", "application/grpc-web"] {
            assert_eq!(of(kind, "/a.Svc/Get").as_deref(), Ok("grpc"), "{kind}");
        }
        assert_eq!(of("application/json", "/a.Svc/Get").as_deref(), Ok("http"));
        assert_eq!(of("application/json", "/a.Svc/Put"), Err(Reason::NoRoute));
        assert_eq!(of("application/grpc", "/b.Svc/Get"), Err(Reason::NoRoute));
    }

    #[test]
    fn the_prefix_that_matched_is_told() {
        let graph = graph(&[("any", "", "", "/a/b/")]);
        let head = head("GET", "http://x.example/a/b/c", &[]);
        let found = graph.find(&graph.listeners[&80], None, &head).unwrap();
        assert_eq!((found.prefix, &*found.section.name), ("/a/b", "any"));
    }
}
