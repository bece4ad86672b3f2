//! `tidegate run`: the flags. What they come to is in `settings`, what is started in `serve`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use ipnet::IpNet;

use super::logging;
use super::parse::{self, PortRange};
use super::serve::serve;
use super::settings::{Machine, Plan};

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Serve from these files and folders of YAML instead of a cluster; changes are taken up
    /// while running. In the environment, paths are separated by commas.
    #[arg(long, env = "TIDEGATE_FROM", value_name = "PATH", num_args = 1.., value_delimiter = ',',
          help_heading = "Source")]
    pub from: Vec<PathBuf>,
    /// Serve the quickstart's manifests, compiled in, with an echo backend.
    #[arg(long, env = "TIDEGATE_DEMO", conflicts_with = "from", help_heading = "Source",
          value_parser = BoolishValueParser::new())]
    pub demo: bool,
    /// Only look at these namespaces; by default at all of them.
    #[arg(
        long,
        env = "TIDEGATE_WATCH_NAMESPACES",
        value_name = "NAME",
        value_delimiter = ',',
        help_heading = "Source"
    )]
    pub watch_namespaces: Vec<String>,
    /// The `spec.controllerName` of the GatewayClasses that are ours.
    #[arg(
        long,
        env = "TIDEGATE_CONTROLLER_NAME",
        value_name = "NAME",
        default_value = "tidegate.dev/gateway-controller",
        help_heading = "Source"
    )]
    pub controller_name: String,
    /// The `spec.controller` of the IngressClasses that are ours.
    #[arg(
        long,
        env = "TIDEGATE_INGRESS_CONTROLLER_NAME",
        value_name = "NAME",
        default_value = "tidegate.dev/ingress-controller",
        help_heading = "Source"
    )]
    pub ingress_controller_name: String,
    /// The value of the old annotation `kubernetes.io/ingress.class` that is ours.
    #[arg(
        long,
        env = "TIDEGATE_INGRESS_CLASS",
        value_name = "NAME",
        default_value = "tidegate",
        help_heading = "Source"
    )]
    pub ingress_class: String,
    /// Accept Services of type ExternalName as backends. Always on with --from. In a cluster it
    /// lets whoever may write a Service send traffic to any name that the pods can reach.
    #[arg(long, env = "TIDEGATE_ENABLE_EXTERNAL_NAME", help_heading = "Source",
          value_parser = BoolishValueParser::new())]
    pub enable_external_name: bool,
    /// Accept keys of issuers from private addresses, from this machine and over http. It lets
    /// whoever may write a Middleware make these pods ask any address that they can reach.
    #[arg(long, env = "TIDEGATE_PRIVATE_ISSUERS", help_heading = "Source",
          value_parser = BoolishValueParser::new())]
    pub private_issuers: bool,

    /// Where /livez, /readyz and /metrics are served; what shows or changes more answers
    /// loopback only. Default: 127.0.0.1:9901, in a pod 0.0.0.0:9901.
    #[arg(long, env = "TIDEGATE_ADMIN", value_name = "ADDR", value_parser = parse::address,
          help_heading = "Ports")]
    pub admin: Option<SocketAddr>,
    /// Added to the privileged ports (below 1024) of listeners with --from, --demo and
    /// --host-ports: with 8000, 80 becomes 8080 and 443 becomes 8443. Default: 0 if this
    /// process may bind privileged ports, else 8000; with --demo always 8000.
    #[arg(long, env = "TIDEGATE_PORT_OFFSET", value_name = "N",
          value_parser = clap::value_parser!(u16).range(..=64512), help_heading = "Ports")]
    pub port_offset: Option<u16>,
    /// The port for Ingress without TLS. Default: 8080, with --from 80 and the offset, with
    /// --demo 81 and the offset (its Gateway claims every host of port 80). 0: none.
    #[arg(long, env = "TIDEGATE_INGRESS_HTTP_PORT", value_name = "PORT", help_heading = "Ports")]
    pub ingress_http_port: Option<u16>,
    /// The port for Ingress with TLS. Default: 8443, with --from and --demo 443 and the
    /// offset. 0: none.
    #[arg(long, env = "TIDEGATE_INGRESS_HTTPS_PORT", value_name = "PORT", help_heading = "Ports")]
    pub ingress_https_port: Option<u16>,
    /// Container ports, of which each listener port of each Gateway in a cluster gets one.
    #[arg(long, env = "TIDEGATE_GATEWAY_PORTS", value_name = "FIRST-LAST",
          default_value = "20000-29999", value_parser = parse::port_range, help_heading = "Ports")]
    pub gateway_ports: PortRange,
    /// In a cluster: bind the listeners' own ports (and the offset) instead of --gateway-ports.
    /// For DaemonSets with host ports.
    #[arg(long, env = "TIDEGATE_HOST_PORTS", help_heading = "Ports",
          value_parser = BoolishValueParser::new())]
    pub host_ports: bool,

    /// Threads that serve traffic. Default, and what 0 stands for: as many as the CPUs that the
    /// cgroup and the affinity mask allow.
    #[arg(long, env = "TIDEGATE_WORKERS", value_name = "N",
          value_parser = clap::value_parser!(u16).range(..=1024), help_heading = "Serving")]
    pub workers: Option<u16>,
    /// Peers (CIDRs) whose X-Forwarded-* headers are believed; from others they are overwritten.
    #[arg(long, env = "TIDEGATE_TRUSTED_PROXIES", value_name = "CIDR", value_delimiter = ',',
          value_parser = parse::network, help_heading = "Serving")]
    pub trusted_proxies: Vec<IpNet>,
    /// After SIGTERM or `tidegate drain`: how long new work is still accepted while load
    /// balancers notice that this process is not ready.
    #[arg(long, env = "TIDEGATE_DRAIN_DELAY", value_name = "TIME", default_value = "10s",
          value_parser = parse::duration, help_heading = "Serving")]
    pub drain_delay: Duration,
    /// After the delay: how long what is held may take to finish, at most.
    #[arg(long, env = "TIDEGATE_DRAIN_TIMEOUT", value_name = "TIME", default_value = "60s",
          value_parser = parse::duration, help_heading = "Serving")]
    pub drain_timeout: Duration,

    /// The form of log lines on stderr and of access-log lines on stdout.
    #[arg(
        long,
        env = "TIDEGATE_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "text",
        help_heading = "Logging"
    )]
    pub log_format: LogFormat,
    /// error, warn, info, debug, trace, or a filter such as info,tidegate::translate=debug.
    #[arg(
        long,
        env = "TIDEGATE_LOG_LEVEL",
        value_name = "FILTER",
        default_value = "info",
        help_heading = "Logging"
    )]
    pub log_level: String,
    /// One line on stdout for each request.
    #[arg(long, env = "TIDEGATE_ACCESS_LOG", value_name = "BOOL", default_value_t = true,
          action = clap::ArgAction::Set, value_parser = BoolishValueParser::new(),
          help_heading = "Logging")]
    pub access_log: bool,

    /// The namespace of this pod, where its Service and Lease are. Default: POD_NAMESPACE, then
    /// the namespace of the service account or the kubeconfig.
    #[arg(long, env = "TIDEGATE_NAMESPACE", value_name = "NAME", help_heading = "This pod")]
    pub namespace: Option<String>,
    /// The name of this pod. Default: POD_NAME, then the host's name.
    #[arg(long, env = "TIDEGATE_POD_NAME", value_name = "NAME", help_heading = "This pod")]
    pub pod_name: Option<String>,
    /// The address of this pod. Default: POD_IP.
    #[arg(long, env = "TIDEGATE_POD_IP", value_name = "IP", help_heading = "This pod")]
    pub pod_ip: Option<IpAddr>,
    /// The Service in front of all Tidegate pods: its EndpointSlices say which pods there are,
    /// and its addresses go into the status of Ingresses.
    #[arg(long, env = "TIDEGATE_SERVICE", value_name = "NAME", help_heading = "This pod")]
    pub service: Option<String>,
    /// The Lease that decides which pod writes to the cluster.
    #[arg(
        long,
        env = "TIDEGATE_LEASE_NAME",
        value_name = "NAME",
        default_value = "tidegate",
        help_heading = "This pod"
    )]
    pub lease_name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

/// Serves until the process is told to leave, and all that it held is finished.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    logging::start(args.log_format, &args.log_level)?;
    let plan = Plan::new(args, Machine::ask())?;
    // The control plane's own threads: the proxy's workers are others, so that no reconcile can
    // delay a request.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("control")
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(serve(args, plan));
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}
