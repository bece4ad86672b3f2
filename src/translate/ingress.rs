//! Ingress v1: rules, TLS, default backend and class; all rules share one section a port.
//!
//! Several Ingresses may add to one host, if they are of one namespace: the namespace of the
//! oldest Ingress that names a host owns it, so that no tenant can take another's traffic.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::networking::v1::{HTTPIngressPath, Ingress, IngressBackend};

use super::annotations::Annotations;
use super::backends::{Port, Traffic, Unresolved};
use super::certificates::EXPIRED;
use super::hostname;
use super::ingress_path::{path_match, spellings};
use super::middleware::Use;
use super::pass::{Pass, created, map_of};
use super::status::Problem;
use super::{Key, ObjectKind};
use crate::graph::{
    Action, BackendId, Entry, INGRESS, Matcher, PathMatch, PolicyId, Rule, RuleId, RuleName,
    SectionId, Split, Target,
};
use crate::policy::{AnySpec, Mode, Refs, redirect};
use crate::reason::Reason;

const KIND: &str = "Ingress";
/// The old way to say the class.
const CLASS: &str = "kubernetes.io/ingress.class";
/// On an IngressClass: for Ingresses without a class.
const DEFAULT_CLASS: &str = "ingressclass.kubernetes.io/is-default-class";
/// Later than every object: default backends come after all rules of the catch-all host.
const LAST: i64 = 1 << 48;

/// The sections that Ingress rules go into.
#[derive(Clone, Copy, Debug, Default)]
struct Sections {
    http: Option<SectionId>,
    https: Option<SectionId>,
    /// Where `ssl-redirect` leads to: the port that users see.
    public_https: u16,
}

/// The namespace that owns a host, and by which Ingress.
type Owners<'s> = HashMap<String, &'s Key>;

/// One Ingress while its rules are made.
struct Source<'s> {
    key: &'s Key,
    object: &'s Ingress,
    annotations: Annotations,
    levels: Result<[Vec<Use>; 2], Reason>,
    sections: Sections,
}

impl<'s> Pass<'s> {
    pub fn ingresses(&mut self) {
        let snapshot = self.snapshot;
        let mut ours: Vec<(&'s Key, &'s Ingress)> = snapshot
            .ingresses
            .iter()
            .map(|(key, object)| (key, &**object))
            .filter(|(_, object)| self.is_our_ingress(object))
            .collect();
        ours.sort_by_key(|(key, object)| (created(&object.metadata), *key));
        let sections = self.open(&ours);
        let mut owners = Owners::new();
        for (key, object) in ours {
            self.ingress(key, object, sections, &mut owners);
            self.ingress_status(key, object);
        }
    }

    fn is_our_ingress(&self, ingress: &Ingress) -> bool {
        let settings = &self.snapshot.settings;
        let classes = &self.snapshot.ingress_classes;
        let ours = |class: &k8s_openapi::api::networking::v1::IngressClass| {
            let controller = class.spec.as_ref().and_then(|spec| spec.controller.as_ref());
            controller == Some(&settings.ingress_controller_name)
        };
        if let Some(name) = ingress.spec.as_ref().and_then(|s| s.ingress_class_name.as_ref()) {
            return match classes.get(&Key::new("", name)) {
                Some(class) => ours(class),
                // Files need not hold the class.
                None => !settings.cluster && *name == settings.ingress_class,
            };
        }
        match map_of(ingress.metadata.annotations.as_ref()).get(CLASS) {
            Some(class) => *class == settings.ingress_class,
            None => classes.values().any(|class| {
                let annotations = map_of(class.metadata.annotations.as_ref());
                ours(class) && annotations.get(DEFAULT_CLASS).is_some_and(|value| value == "true")
            }),
        }
    }

    /// Binds the ports of Ingress: the clear one in a cluster always, because the chart's
    /// Service leads there; the one with TLS where there is a certificate.
    fn open(&mut self, ours: &[(&'s Key, &'s Ingress)]) -> Sections {
        let settings = Arc::clone(&self.snapshot.settings);
        let (http, https) = (settings.ingress_http_port, settings.ingress_https_port);
        let behind_service = settings.own_service.is_some();
        let public = |own: u16, bound: u16| if behind_service { own } else { bound };
        let public_https = public(443, https);
        let mut sections = Sections { public_https, ..Sections::default() };
        if http != 0
            && (settings.cluster || !ours.is_empty())
            && self.binds.bind(http, public(80, http), false)
        {
            sections.http = Some(self.graph.section(http, "", INGRESS.into()));
        }
        let secrets: Vec<Key> =
            ours.iter().flat_map(|(key, object)| secrets(key, object)).collect();
        let mut certified =
            |key: &Key| self.certificates.of(self.snapshot, &mut self.memo, key).shown.is_some();
        let any = secrets.iter().map(&mut certified).fold(false, |any, one| any | one);
        if https != 0 && any && self.binds.bind(https, public_https, true) {
            sections.https = Some(self.graph.section(https, "", INGRESS.into()));
        }
        sections
    }

    fn ingress(
        &mut self,
        key: &'s Key,
        object: &'s Ingress,
        sections: Sections,
        owners: &mut Owners<'s>,
    ) {
        let annotations = map_of(object.metadata.annotations.as_ref());
        let (annotations, problems) = Annotations::read(annotations);
        for problem in &problems {
            self.warn(ObjectKind::Ingress, key, &object.metadata, problem);
        }
        if sections.http.is_none() && self.snapshot.settings.ingress_http_port != 0 {
            let port = self.snapshot.settings.ingress_http_port;
            let message = format!("port {port} of Ingress is a Gateway's, with HTTPS; change one");
            let problem = Problem::new("PortUnavailable", "", message);
            self.warn(ObjectKind::Ingress, key, &object.metadata, &problem);
        }
        let levels = self.ingress_policies(key, object, &annotations);
        let source = Source { key, object, annotations, levels, sections };
        let Some(spec) = &object.spec else { return };
        for (i, rule) in spec.rules.iter().flatten().enumerate() {
            let at = format!("spec.rules[{i}]");
            let host = rule.host.as_deref().unwrap_or_default();
            let Some(host) = self.own(&source, &format!("{at}.host"), host, owners) else {
                continue;
            };
            for (j, path) in rule.http.iter().flat_map(|http| &http.paths).enumerate() {
                let at = format!("{at}.http.paths[{j}]");
                self.path(&source, &at, &host, path, (index(i), index(j)));
            }
        }
        self.ingress_tls(&source, owners);
        if let Some(backend) = &spec.default_backend
            && let Some(host) = self.own(&source, "spec.defaultBackend", "", owners)
        {
            let path = PathMatch::Prefix("".into());
            self.serve_path(&source, "spec.defaultBackend", &host, path, backend, (u32::MAX, 0));
        }
    }

    /// The host in lower case, if this namespace owns it or nobody did.
    fn own(
        &mut self,
        source: &Source<'s>,
        at: &str,
        host: &str,
        owners: &mut Owners<'s>,
    ) -> Option<String> {
        let parsed = if host.is_empty() { Ok(String::new()) } else { hostname::parse(host) };
        let problem = match parsed {
            Ok(host) => {
                let owner = *owners.entry(host.clone()).or_insert(source.key);
                if owner.namespace == source.key.namespace {
                    return Some(host);
                }
                let name = if host.is_empty() { "the host for everything else" } else { &host };
                let message = format!(
                    "{name} belongs to namespace {}, by the older Ingress {owner}; use another",
                    owner.namespace
                );
                Problem::new("HostConflict", at, message)
            }
            Err(message) => Problem::new("UnsupportedValue", at, message),
        };
        self.warn(ObjectKind::Ingress, source.key, &source.object.metadata, &problem);
        None
    }

    fn path(
        &mut self,
        source: &Source<'s>,
        at: &str,
        host: &str,
        path: &HTTPIngressPath,
        order: (u32, u32),
    ) {
        let value = path.path.as_deref().filter(|path| !path.is_empty()).unwrap_or("/");
        for value in spellings(value) {
            match path_match(&path.path_type, &value) {
                Ok(matched) => self.serve_path(source, at, host, matched, &path.backend, order),
                Err(message) => {
                    let problem = Problem::new("UnsupportedValue", format!("{at}.path"), message);
                    self.warn(ObjectKind::Ingress, source.key, &source.object.metadata, &problem);
                }
            }
        }
    }

    fn serve_path(
        &mut self,
        source: &Source<'s>,
        at: &str,
        host: &str,
        path: PathMatch,
        backend: &IngressBackend,
        order: (u32, u32),
    ) {
        let rule = self.ingress_rule(source, at, backend);
        let redirect = match source.annotations.ssl_redirect {
            true => Some(self.redirect_rule(source, at)),
            false => None,
        };
        // By the Ingress API a wildcard stands for one label.
        let labels = host.starts_with('*').then(|| host.split('.').count());
        let host_labels = labels.and_then(|labels| u8::try_from(labels).ok());
        let made = created(&source.object.metadata);
        let entry = |rule| Entry {
            path: path.clone(),
            matcher: Matcher { host_labels, ..Matcher::default() },
            created: if order.0 == u32::MAX { made.saturating_add(LAST) } else { made },
            object: source.key.to_string().into(),
            order,
            rule,
        };
        if let Some(section) = source.sections.http {
            self.graph.route(section, host, entry(redirect.unwrap_or(rule)));
        }
        if let Some(section) = source.sections.https {
            self.graph.route(section, host, entry(rule));
        }
    }

    fn ingress_rule(&mut self, source: &Source<'s>, at: &str, backend: &IngressBackend) -> RuleId {
        let to = self.ingress_backend(source, backend);
        if let Err(error) = &to {
            let (reason, message) = (error.reason.as_str(), error.message.clone());
            let problem = Problem::new(reason, format!("{at}.backend"), message);
            self.warn(ObjectKind::Ingress, source.key, &source.object.metadata, &problem);
        }
        let mut rule = rule(source.key, at);
        match &source.levels {
            Err(reason) => rule.action = Action::Refuse(*reason),
            Ok(levels) => {
                let [own, targeting] = levels.clone();
                let place = format!("{KIND} {}", source.key);
                let merged = self.policies.merge(&[own, targeting], &source.key.namespace, &place);
                (rule.gates, rule.transforms) = (merged.gates, merged.transforms);
                let to = to.map_err(|error| error.reason);
                let target = Target { weight: 1, to, transforms: Vec::new() };
                rule.action = Action::Forward(Split { targets: vec![target], total: 1 });
            }
        }
        self.graph.rule(rule)
    }

    fn ingress_backend(
        &mut self,
        source: &Source<'s>,
        backend: &IngressBackend,
    ) -> Result<BackendId, Unresolved> {
        let Some(service) = &backend.service else {
            let message = "a resource cannot be a backend; name a Service";
            return Err(Unresolved::new(Reason::InvalidKind, message));
        };
        let port = match service.port.as_ref().map(|port| (port.number, port.name.as_deref())) {
            Some((Some(number), _)) => Port::Number(number),
            Some((None, Some(name))) => Port::Name(name),
            _ => {
                let message = format!("Service {} is named without a port; set it", service.name);
                return Err(Unresolved::new(Reason::BackendNotFound, message));
            }
        };
        let key = Key::new(&*source.key.namespace, &*service.name);
        self.service_port(&key, port, source.annotations.speaks, Traffic::Http, None)
    }

    /// Where `ssl-redirect` is set, the clear port answers with this instead.
    fn redirect_rule(&mut self, source: &Source<'s>, at: &str) -> RuleId {
        let spec = AnySpec::Redirect(redirect::Spec {
            scheme: Some(redirect::RedirectScheme::Https),
            port: Some(i32::from(source.sections.public_https)),
            status_code: Some(308),
            ..redirect::Spec::default()
        });
        let mut rule = rule(source.key, at);
        let refs = Refs::default();
        let policy = self.graph.policy("Ingress/ssl-redirect", &spec, Mode::Enforce, &refs);
        rule.transforms = policy.into_iter().collect::<Vec<PolicyId>>();
        self.graph.rule(rule)
    }

    /// The policies by annotation, and those that target the Ingress.
    fn ingress_policies(
        &mut self,
        key: &Key,
        object: &Ingress,
        annotations: &Annotations,
    ) -> Result<[Vec<Use>; 2], Reason> {
        let closed = |pass: &mut Self, field: &str, message: String| {
            let problem = Problem::new(Reason::InvalidPolicy.as_str(), field, message);
            pass.warn(ObjectKind::Ingress, key, &object.metadata, &problem);
            Reason::InvalidPolicy
        };
        let user = super::middleware::reference(KIND, key, None);
        let mut own = Vec::new();
        for (field, kind, name) in &annotations.policies {
            let policy = Key::new(&*key.namespace, name);
            match self.policies.named(*kind, &policy, &user) {
                Ok(uses) => own.extend(uses),
                Err((_, message)) => return Err(closed(self, field, message)),
            }
        }
        if let Some(reason) = annotations.refused {
            return Err(reason);
        }
        let target = (KIND, &*key.namespace, &*key.name, None);
        match self.policies.targeting(target) {
            Ok(uses) => Ok([own, uses]),
            Err(message) => Err(closed(self, "", message)),
        }
    }

    fn ingress_tls(&mut self, source: &Source<'s>, owners: &mut Owners<'s>) {
        let https = self.snapshot.settings.ingress_https_port;
        let Some(spec) = &source.object.spec else { return };
        for (i, tls) in spec.tls.iter().flatten().enumerate() {
            let Some(name) = tls.secret_name.as_deref().filter(|name| !name.is_empty()) else {
                continue;
            };
            let at = format!("spec.tls[{i}]");
            let secret = Key::new(&*source.key.namespace, name);
            let certificate = self.certificates.of(self.snapshot, &mut self.memo, &secret).clone();
            let problems =
                [("InvalidCertificateRef", certificate.problem), (EXPIRED, certificate.expired)];
            for (reason, message) in problems {
                let Some(message) = message else { continue };
                let problem = Problem::new(reason, format!("{at}.secretName"), message);
                self.warn(ObjectKind::Ingress, source.key, &source.object.metadata, &problem);
            }
            let listed = tls.hosts.as_deref().unwrap_or_default();
            let of_rules = spec.rules.iter().flatten().filter_map(|rule| rule.host.clone());
            let hosts: Vec<String> =
                if listed.is_empty() { of_rules.collect() } else { listed.to_vec() };
            for (j, host) in hosts.iter().enumerate() {
                let field = format!("{at}.hosts[{j}]");
                let owned = self.own(source, &field, host, owners);
                if let (Some(host), Some(certificate)) = (owned, &certificate.shown)
                    && source.sections.https.is_some()
                {
                    self.binds.certify(https, &host, &certificate.key);
                }
            }
        }
    }
}

/// A rule of an Ingress that answers nothing yet.
fn rule(key: &Key, at: &str) -> Rule {
    let name = RuleName {
        kind: KIND,
        namespace: key.namespace.as_str().into(),
        name: key.name.as_str().into(),
        rule: at.strip_prefix("spec.").unwrap_or(at).into(),
    };
    Rule::new(name, Action::Refuse(Reason::NoBackend))
}

fn secrets(key: &Key, object: &Ingress) -> Vec<Key> {
    let tls = object.spec.iter().flat_map(|spec| spec.tls.iter().flatten());
    let names = tls.filter_map(|tls| tls.secret_name.as_ref()).filter(|name| !name.is_empty());
    names.map(|name| Key::new(&*key.namespace, name)).collect()
}

fn index(i: usize) -> u32 {
    u32::try_from(i).unwrap_or(u32::MAX - 1)
}
