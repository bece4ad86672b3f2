//! `tidegate validate`: what a cluster or `run --from` would say about files, one line each.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::builder::BoolishValueParser;

use super::orphans::orphans;
use crate::source::{self, FileProblem, Handle, Origin};
use crate::translate::{Note, Settings, Snapshot, translate};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Files, and folders of *.yaml, *.yml and *.json.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// The GatewayClass `controllerName` whose Gateways are checked.
    #[arg(
        long,
        env = "TIDEGATE_CONTROLLER_NAME",
        value_name = "NAME",
        default_value = "tidegate.dev/gateway-controller"
    )]
    controller_name: String,
    /// Accept keys of issuers over http, as `run --private-issuers` does. Nothing is asked for
    /// here: whether an address is private, only `run` can say.
    #[arg(long, env = "TIDEGATE_PRIVATE_ISSUERS", value_parser = BoolishValueParser::new())]
    private_issuers: bool,
}

/// Prints one line for each problem to `out`: `file:line: Kind ns/name: field: Reason: message`.
pub fn run(args: &Args, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let settings = Settings {
        controller_name: args.controller_name.clone(),
        external_names: true,
        private_issuers: args.private_issuers,
        ..Settings::default()
    };
    let (world, problems) =
        source::read_once(args.paths.clone(), Arc::new(settings), Vec::new(), true);
    let lines = lines(&world, &problems);
    for line in &lines {
        writeln!(out, "{line}")?;
    }
    // For people: scripts read stdout and the exit code.
    match objects(&world.snapshot()) {
        0 => eprintln!("no object of a kind that Tidegate reads was found"),
        objects => eprintln!("{objects} objects, {} problem(s)", lines.len()),
    }
    Ok(if lines.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// How many objects were read. Namespaces do not count: they are made where they are missing.
fn objects(snapshot: &Snapshot) -> usize {
    snapshot.gateway_classes.len()
        + snapshot.gateways.len()
        + snapshot.http_routes.len()
        + snapshot.grpc_routes.len()
        + snapshot.tls_routes.len()
        + snapshot.tcp_routes.len()
        + snapshot.udp_routes.len()
        + snapshot.listener_sets.len()
        + snapshot.backend_tls_policies.len()
        + snapshot.x_backends.len()
        + snapshot.x_backend_traffic_policies.len()
        + snapshot.reference_grants.len()
        + snapshot.ingress_classes.len()
        + snapshot.ingresses.len()
        + snapshot.services.len()
        + snapshot.endpoint_slices.len()
        + snapshot.secrets.len()
        + snapshot.config_maps.len()
        + snapshot.cluster_trust_bundles.len()
        + snapshot.middlewares.len()
        + snapshot.rate_limits.len()
        + snapshot.consumers.len()
}

/// What is wrong, in the order of files and lines; the same is said once.
fn lines(world: &Handle, problems: &[FileProblem]) -> BTreeSet<FileProblem> {
    let snapshot = world.snapshot();
    // Its field and line are among the problems already.
    let undecodable: BTreeSet<_> =
        snapshot.undecodable.iter().map(|u| (u.kind.as_str(), &u.key)).collect();
    let notes = translate(&snapshot).notes.into_iter().chain(orphans(&snapshot));
    let warnings = notes
        .filter(|note| note.warning && !undecodable.contains(&(note.kind.kind(), &note.key)))
        .map(|note| locate(world, &note));
    problems.iter().cloned().chain(warnings).collect()
}

fn locate(world: &Handle, note: &Note) -> FileProblem {
    let origin = match world.origin(note.kind, &note.key) {
        Some(origin) => {
            let line = source::line_of(&origin, note.kind, &note.key, &note.field);
            Origin { line, ..origin }
        }
        // A Namespace that no file holds.
        None => Origin { file: Arc::from("-"), line: 0 },
    };
    let field = match note.field.as_str() {
        "" => String::new(),
        field => format!("{field}: "),
    };
    let message =
        format!("{} {}: {field}{}: {}", note.kind.kind(), note.key, note.reason, note.message);
    FileProblem { origin, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn validate(text: &str) -> (String, ExitCode) {
        validate_with(text, false)
    }

    fn validate_with(text: &str, private_issuers: bool) -> (String, ExitCode) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.yaml");
        std::fs::write(&file, text).unwrap();
        let controller_name = "tidegate.dev/gateway-controller".into();
        let args = Args { paths: vec![file], controller_name, private_issuers };
        let mut out = Vec::new();
        let code = run(&args, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        (text.replace(&format!("{}/", folder.path().display()), ""), code)
    }

    #[test]
    fn nothing_is_said_about_files_that_are_right() {
        let (text, code) = validate(
            "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 80}]}\n",
        );
        assert_eq!(text, "");
        assert_eq!(code, ExitCode::SUCCESS);
    }

    #[test]
    fn a_misspelt_field_and_a_misspelt_kind_are_told_at_their_lines() {
        let (text, code) = validate(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: TCPRoute\nmetadata:\n  name: a\n\
             spec:\n  rules:\n  - backendRefs:\n    - name: s\n      prot: 80\n---\n\
             apiVersion: gateway.networking.k8s.io/v1\nkind: UdpRout\nmetadata:\n  name: b\n",
        );
        let lines: Vec<&str> = text.lines().collect();
        let field = "a.yaml:9: TCPRoute default/a: spec.rules[0].backendRefs[0].prot: there is no \
                     such field; did you mean port?";
        assert!(lines.contains(&field), "{text}");
        let kind = "a.yaml:12: gateway.networking.k8s.io has no kind \"UdpRout\"; did you mean \
                    UDPRoute?";
        assert!(lines.contains(&kind), "{text}");
        assert_eq!(code, ExitCode::FAILURE);
    }

    #[test]
    fn a_parent_and_a_class_that_no_file_has_are_told() {
        let (text, code) = validate(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: a}\n\
             spec:\n  parentRefs:\n  - name: web\n  - {kind: ListenerSet, name: set}\n---\n\
             apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: web}\n\
             spec:\n  gatewayClassName: tidgate\n  \
             listeners: [{name: http, protocol: HTTP, port: 80}]\n",
        );
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        let set = "a.yaml:7: HTTPRoute default/a: spec.parentRefs[1]: NotFound: ListenerSet \
                   default/set is in none of the files; ";
        assert!(lines[0].starts_with(set), "{text}");
        let class = "a.yaml:13: Gateway default/web: spec.gatewayClassName: NotFound: GatewayClass \
                     tidgate is in none of the files; ";
        assert!(lines[1].starts_with(class), "{text}");
        assert_eq!(code, ExitCode::FAILURE);
    }

    #[test]
    fn a_field_that_cannot_be_decoded_is_one_line() {
        let (text, code) = validate(
            "apiVersion: v1\nkind: Service\nmetadata:\n  name: a\nspec:\n  ports:\n  - port: x\n",
        );
        assert!(text.starts_with("a.yaml:7: Service default/a: spec.ports[0].port: "), "{text}");
        assert_eq!(text.lines().count(), 1);
        assert_eq!(code, ExitCode::FAILURE);
    }

    #[test]
    fn an_issuer_in_clear_text_is_told_unless_private_ones_are_accepted() {
        let text = "apiVersion: tidegate.dev/v1alpha1\nkind: Middleware\nmetadata: {name: a}\nspec:\n  \
                    authentication:\n    methods:\n    - jwt:\n        issuer: me\n        \
                    keys: {remote: {uri: http://issuer.example/keys}}\n";
        let (said, code) = validate_with(text, false);
        assert!(said.contains("would be fetched in clear text"), "{said}");
        assert_eq!(code, ExitCode::FAILURE);
        let (said, code) = validate_with(text, true);
        assert_eq!((said.as_str(), code), ("", ExitCode::SUCCESS));
    }

    #[test]
    fn a_mode_that_yaml_reads_as_false_is_told_with_what_to_write() {
        let limit = "apiVersion: tidegate.dev/v1alpha1\nkind: RateLimit\nmetadata: {name: a}\n\
                     spec:\n  mode: Off\n  limits: [{name: a, requests: 1, window: 1m}]\n";
        let middleware = "apiVersion: tidegate.dev/v1alpha1\nkind: Middleware\n\
                          metadata: {name: a}\nspec:\n  ipAccess:\n    mode: off\n    \
                          deny: [10.0.0.0/8]\n";
        for (text, field) in [
            (limit, "a.yaml:5: RateLimit default/a: spec.mode: "),
            (middleware, "a.yaml:6: Middleware default/a: spec.ipAccess.mode: "),
        ] {
            let (said, code) = validate(text);
            assert!(said.starts_with(field) && said.contains("write \"Off\""), "{said}");
            assert_eq!((said.lines().count(), code), (1, ExitCode::FAILURE));
            let (said, _) = validate(&text.replace("Off", "\"Off\"").replace(": off", ": \"Off\""));
            assert!(!said.contains("mode"), "{said}");
        }
    }
}
