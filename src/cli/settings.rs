//! What the flags of `run` come to, with the environment asked once.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use anyhow::Context;

use super::run::Args;
use crate::translate::{Ports, Settings};

const ADMIN_PORT: u16 = 9901;
/// What privileged ports are shifted by for those who cannot bind them.
const SHIFT: u16 = 8000;

/// The demo's port for Ingress, before the offset: its Gateway claims every host of port 80. In
/// a cluster Ingresses have an address of their own, too.
const DEMO_INGRESS: u16 = 81;

/// What `run` is to do, in one of two modes.
#[derive(Clone, Debug)]
pub struct Plan {
    pub settings: Settings,
    pub admin: SocketAddr,
    pub workers: usize,
    pub pod: Pod,
}

/// Who this process is.
#[derive(Clone, Debug)]
pub struct Pod {
    pub name: Option<String>,
    pub ip: Option<IpAddr>,
    /// None: the client's default.
    pub namespace: Option<String>,
    /// The pod's or host's name and a random part: new for each process.
    pub identity: String,
}

/// What the machine says, as far as defaults depend on it.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// The process runs in a pod.
    pub in_pod: bool,
    pub privileged_ports: bool,
    /// CPUs that the cgroup (v1 or v2) and the affinity mask allow; at least 1.
    pub cpus: usize,
}

impl Machine {
    pub fn ask() -> Self {
        Machine {
            in_pod: std::env::var_os("KUBERNETES_SERVICE_HOST").is_some(),
            privileged_ports: may_bind_privileged_ports(),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

/// Asks the kernel by trying: root, capabilities and sysctls all count.
fn may_bind_privileged_ports() -> bool {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, 1023)) {
        Ok(_) => true,
        Err(error) => error.kind() != ErrorKind::PermissionDenied,
    }
}

impl Plan {
    pub fn new(args: &Args, machine: Machine) -> anyhow::Result<Self> {
        let files = args.demo || !args.from.is_empty();
        let pod = Pod::new(args)?;
        let default_admin = if machine.in_pod && !files {
            IpAddr::from(Ipv4Addr::UNSPECIFIED)
        } else {
            IpAddr::from(Ipv4Addr::LOCALHOST)
        };
        Ok(Plan {
            settings: settings(args, machine, files),
            admin: args.admin.unwrap_or(SocketAddr::new(default_admin, ADMIN_PORT)),
            workers: args.workers.filter(|n| *n > 0).map_or(machine.cpus, usize::from),
            pod,
        })
    }
}

fn settings(args: &Args, machine: Machine, files: bool) -> Settings {
    let shift = if machine.privileged_ports && !args.demo { 0 } else { SHIFT };
    let offset = args.port_offset.unwrap_or(shift);
    let own = files || args.host_ports;
    let ports = if own {
        Ports::Own { offset }
    } else {
        Ports::Container { first: args.gateway_ports.first, last: args.gateway_ports.last }
    };
    let ingress = |given: Option<u16>, port: u16| {
        given.unwrap_or(if own { port.saturating_add(offset) } else { port + SHIFT })
    };
    let ingress_http = if args.demo { DEMO_INGRESS } else { 80 };
    Settings {
        controller_name: args.controller_name.clone(),
        ingress_controller_name: args.ingress_controller_name.clone(),
        ingress_class: args.ingress_class.clone(),
        ports,
        ingress_http_port: ingress(args.ingress_http_port, ingress_http),
        ingress_https_port: ingress(args.ingress_https_port, 443),
        // The namespace may be known only by the client.
        own_service: None,
        external_names: files || args.enable_external_name,
        private_issuers: args.private_issuers,
        cluster: !files,
        statuses: !files,
        watch_namespaces: names(&args.watch_namespaces),
        trusted_proxies: args.trusted_proxies.clone(),
    }
}

/// Without the blanks of a list that was written as text: an empty one names nobody.
fn names(list: &[String]) -> Vec<String> {
    list.iter().map(|name| name.trim()).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

impl Pod {
    fn new(args: &Args) -> anyhow::Result<Self> {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let ip = match (args.pod_ip, variable("POD_IP")) {
            (Some(ip), _) => Some(ip),
            (None, Some(text)) => Some(
                text.parse().with_context(|| format!("POD_IP: {text:?} is not an IP address"))?,
            ),
            (None, None) => None,
        };
        let name = args.pod_name.clone().or_else(|| variable("POD_NAME"));
        let host = name.clone().or_else(|| variable("HOSTNAME")).unwrap_or("tidegate".into());
        Ok(Pod {
            identity: format!("{host}_{:016x}", fastrand::u64(..)),
            name,
            ip,
            namespace: args.namespace.clone().or_else(|| variable("POD_NAMESPACE")),
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    const LAPTOP: Machine = Machine { in_pod: false, privileged_ports: false, cpus: 4 };
    const ROOT: Machine = Machine { privileged_ports: true, ..LAPTOP };
    const IN_POD: Machine = Machine { in_pod: true, ..LAPTOP };

    fn plan(machine: Machine, flags: &[&str]) -> Plan {
        let line = ["tidegate", "run"].iter().chain(flags);
        let Command::Run(args) = Cli::try_parse_from(line).unwrap().command else {
            panic!("not run")
        };
        Plan::new(&args, machine).unwrap()
    }

    fn http_port(machine: Machine, flags: &[&str]) -> u16 {
        plan(machine, flags).settings.ingress_http_port
    }

    #[test]
    fn files_keep_their_ports_where_that_is_allowed_and_the_demo_never_does() {
        assert_eq!(http_port(LAPTOP, &["--from", "."]), 8080);
        assert_eq!(http_port(ROOT, &["--from", "."]), 80);
        assert_eq!(plan(ROOT, &["--demo"]).settings.ports, Ports::Own { offset: 8000 });
        let own = plan(ROOT, &["--demo", "--port-offset", "0"]).settings.ports;
        assert_eq!(own, Ports::Own { offset: 0 });
    }

    #[test]
    fn the_demo_has_a_port_for_ingress_that_no_gateway_claims() {
        assert_eq!(http_port(ROOT, &["--demo"]), 8081);
        assert_eq!(http_port(LAPTOP, &["--demo", "--ingress-http-port", "9000"]), 9000);
    }

    #[test]
    fn an_empty_list_of_namespaces_means_all() {
        let watched = |list: &str| plan(IN_POD, &["--watch-namespaces", list]).settings;
        assert!(watched("").watch_namespaces.is_empty());
        assert_eq!(watched("a, b,").watch_namespaces, ["a", "b"]);
    }

    #[test]
    fn a_cluster_has_container_ports() {
        let settings = plan(ROOT, &[]).settings;
        assert_eq!(settings.ports, Ports::Container { first: 20000, last: 29999 });
        assert_eq!((settings.ingress_http_port, settings.ingress_https_port), (8080, 8443));
        assert!(settings.cluster && !settings.external_names);
    }

    #[test]
    fn host_ports_are_the_listeners_own() {
        let flags = ["--host-ports", "--port-offset", "8000"];
        assert_eq!(plan(IN_POD, &flags).settings.ports, Ports::Own { offset: 8000 });
    }

    #[test]
    fn the_admin_address_is_open_only_in_a_pod() {
        assert_eq!(plan(LAPTOP, &["--demo"]).admin.to_string(), "127.0.0.1:9901");
        assert_eq!(plan(IN_POD, &[]).admin.to_string(), "0.0.0.0:9901");
        assert_eq!(plan(IN_POD, &["--demo"]).admin.to_string(), "127.0.0.1:9901");
    }

    #[test]
    fn every_process_has_an_identity_of_its_own() {
        let flags = ["--pod-name", "tidegate-1"];
        let (one, other) = (plan(LAPTOP, &flags).pod, plan(LAPTOP, &flags).pod);
        assert!(one.identity.starts_with("tidegate-1_"));
        assert_ne!(one.identity, other.identity);
    }

    #[test]
    fn a_worker_for_each_cpu_unless_told_otherwise() {
        assert_eq!(plan(LAPTOP, &["--demo"]).workers, 4);
        assert_eq!(plan(LAPTOP, &["--demo", "--workers", "1"]).workers, 1);
        assert_eq!(plan(LAPTOP, &["--workers", "0"]).workers, 4, "as the chart says it");
    }
}
