//! Filters of listeners, which run before a route is looked for (GEP-5224).
//!
//! Their order is the order in the list, and none is ever left out: a listener of which one
//! filter is broken keeps its hosts, so that no other listener answers for them, and answers
//! every request with an error.

use super::external_auth::NoPolicy;
use super::gateway::GatewayState;
use super::intake::Intake;
use super::listeners::{ListenerState, Parent};
use super::middleware::{Use, reference};
use super::pass::Pass;
use super::references::From;
use super::status::Problem;
use super::{Key, ObjectKind};
use crate::api::gateway::{GROUP, ListenerFilter, ListenerFilterType, LocalObjectReference};
use crate::graph::{Action, Entry, Matcher, PathMatch, PolicyId, Rule, RuleName, SectionId};
use crate::reason::Reason;

/// Most filters of one listener, as the API has it.
const MAX_FILTERS: usize = 16;

/// Which condition of the listener tells of a filter that is broken.
#[derive(Debug)]
enum Broken {
    Accepted(Problem),
    ResolvedRefs(Problem),
}

impl<'s> Pass<'s> {
    /// Compiles the filters of all listeners.
    pub fn listener_filters(&mut self, gateways: &mut [GatewayState<'s>]) {
        for gateway in gateways.iter_mut().filter(|gateway| gateway.problem.is_none()) {
            for i in 0..gateway.listeners.len() {
                if gateway.listeners[i].refused.is_some() {
                    continue;
                }
                let filters = self.filters_of(gateway, &gateway.listeners[i]);
                let listener = &mut gateway.listeners[i];
                let (filters, broken) = match filters {
                    Ok(filters) => (Some(filters), None),
                    Err(broken) => (None, Some(broken)),
                };
                listener.filters = filters;
                match broken {
                    None => {}
                    Some(Broken::Accepted(problem)) => listener.refused = Some(problem),
                    Some(Broken::ResolvedRefs(problem)) => {
                        listener.unresolved.get_or_insert(problem);
                    }
                }
            }
        }
    }

    fn filters_of(
        &mut self,
        gateway: &GatewayState<'s>,
        listener: &ListenerState<'s>,
    ) -> Result<Vec<PolicyId>, Broken> {
        let filters = listener.spec.filters.as_ref();
        let list = filters.map_or(&[][..], |filters| &filters.requests);
        let at = format!("{}.filters", listener.field);
        let invalid = |message: String| {
            Broken::Accepted(Problem::new("InvalidListenerFilter", at.as_str(), message))
        };
        if filters.is_some() && !matches!(listener.intake, Intake::Http | Intake::Https) {
            let protocol = &listener.spec.protocol;
            return Err(invalid(format!("{protocol} has no requests; use HTTP or HTTPS")));
        }
        if list.len() > MAX_FILTERS {
            return Err(invalid(format!("{} filters, at most {MAX_FILTERS}", list.len())));
        }
        let mut ids = Vec::new();
        for (i, filter) in list.iter().enumerate() {
            let field = format!("{at}.requests[{i}]");
            let uses = self.filter_of(gateway, listener, &field, filter)?;
            ids.extend(uses.into_iter().map(|policy| policy.id));
        }
        Ok(ids)
    }

    fn filter_of(
        &mut self,
        gateway: &GatewayState<'s>,
        listener: &ListenerState<'s>,
        field: &str,
        filter: &ListenerFilter,
    ) -> Result<Vec<Use>, Broken> {
        let refused = |reason, field: String, message: String| {
            Broken::Accepted(Problem::new(reason, field, message))
        };
        let missing = |name: &str| {
            let message = format!("type is {}, but `{name}` is missing; set it", filter.r#type);
            refused("InvalidListenerFilter", field.to_owned(), message)
        };
        match &filter.r#type {
            ListenerFilterType::ExternalAuth => {
                let auth = filter.external_auth.as_ref().ok_or_else(|| missing("externalAuth"))?;
                let (kind, key) = (listener.parent.kind().kind(), listener.parent.key());
                let from = From { group: GROUP, kind, namespace: &key.namespace };
                let made = self.external_auth(from, Some(gateway), key, field, auth);
                let field = format!("{field}.externalAuth");
                made.map(|policy| vec![policy]).map_err(|error| match error {
                    NoPolicy::Invalid(message) => refused("InvalidListenerFilter", field, message),
                    NoPolicy::Unresolved(error) => {
                        unresolved(error.reason, format!("{field}.backendRef"), error.message)
                    }
                })
            }
            ListenerFilterType::ExtensionRef => {
                let named = filter.extension_ref.as_ref();
                let named = named.ok_or_else(|| missing("extensionRef"))?;
                let field = format!("{field}.extensionRef");
                if let Some(message) = self.changes_host(listener.parent, named) {
                    return Err(refused("InvalidListenerFilter", field, message));
                }
                let Key { namespace, .. } = listener.parent.key();
                let section = Some(listener.spec.name.as_str());
                let kind = listener.parent.kind().kind();
                let user = reference(kind, listener.parent.key(), section);
                let uses = self.extension_of(&user, namespace, named);
                uses.map_err(|(reason, message)| unresolved(reason, field, message))
            }
            ListenerFilterType::Other(other) => {
                let message = format!(
                    "filter type {other:?} is not supported here; use ExternalAuth or ExtensionRef"
                );
                Err(refused("UnsupportedValue", format!("{field}.type"), message))
            }
        }
    }

    /// Whether a Middleware would change what the listener was chosen by.
    fn changes_host(&self, parent: Parent<'_>, named: &LocalObjectReference) -> Option<String> {
        if named.kind != ObjectKind::Middleware.kind() {
            return None;
        }
        let key = Key::new(&*parent.key().namespace, &*named.name);
        let rewrite = self.snapshot.middlewares.get(&key)?.spec.rewrite.as_ref()?;
        rewrite.spec.hostname.as_ref().filter(|_| rewrite.mode.is_enforce()).map(|_| {
            format!(
                "Middleware {key} rewrites the host, which a listener's filter must not change; \
                 name one without `rewrite.hostname`"
            )
        })
    }

    /// Puts a listener's filters before its routes.
    pub fn install_filters(&mut self, listener: &ListenerState<'_>, section: SectionId) {
        match &listener.filters {
            Some(filters) => self.graph.filter(section, filters.clone()),
            None => self.close(listener, section),
        }
    }

    /// Answers everything that comes to a section with an error.
    fn close(&mut self, listener: &ListenerState<'_>, section: SectionId) {
        let Key { namespace, name } = listener.parent.key();
        let name = RuleName {
            kind: listener.parent.kind().kind(),
            namespace: namespace.as_str().into(),
            name: name.as_str().into(),
            rule: listener.spec.name.as_str().into(),
        };
        let rule = self.graph.rule(Rule::new(name, Action::Refuse(Reason::InvalidPolicy)));
        let entry = Entry {
            path: PathMatch::Prefix("".into()),
            matcher: Matcher::default(),
            created: 0,
            object: listener.parent.to_string().into(),
            order: (0, 0),
            rule,
        };
        self.graph.route(section, "", entry);
    }
}

fn unresolved(reason: Reason, field: String, message: String) -> Broken {
    let reason = match reason {
        Reason::RefNotPermitted => "RefNotPermitted",
        _ => "InvalidListenerFilterRef",
    };
    Broken::ResolvedRefs(Problem::new(reason, field, message))
}
