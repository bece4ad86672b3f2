//! Everything that `run` starts, wired together, and its end.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::demo;
use super::run::{Args, LogFormat};
use super::settings::{Plan, Pod};
use crate::admin::{Admin, ControlPlane};
use crate::controller::Controller;
use crate::controller::peers::{Listening, Peers};
use crate::graph::{Bound, Shared, Transport};
use crate::health::Health;
use crate::lifecycle::{self, Lifecycle, Phase, Timetable};
use crate::proxy;
use crate::reconcile::Reconciler;
use crate::source::{self, ClusterSource, Embedded, FileSource, Handle, Source};
use crate::telemetry::{AccessLog, Format, Telemetry};
use crate::translate::{Key, Settings};

/// After everything has stopped: for the last call to the API server and the last log lines.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What all parts share.
#[derive(Clone)]
struct House {
    lifecycle: Lifecycle,
    shared: Arc<Shared>,
    health: Arc<Health>,
}

/// The API server, and where in it this process is at home.
struct Cluster {
    client: kube::Client,
    namespace: String,
}

pub(super) async fn serve(args: &Args, plan: Plan) -> anyhow::Result<ExitCode> {
    let Plan { mut settings, admin: admin_address, workers, pod } = plan;
    let signals = lifecycle::signals().context("signal handlers cannot be installed")?;
    let socket = TcpListener::bind(admin_address).await.with_context(|| {
        format!("the admin address {admin_address} cannot be listened on; choose one with --admin")
    })?;
    let house =
        House { lifecycle: Lifecycle::default(), shared: Arc::default(), health: Arc::default() };
    let cluster = if settings.cluster {
        let cluster = Cluster::connect(&pod).await?;
        settings.own_service =
            args.service.as_ref().map(|name| Key::new(cluster.namespace.clone(), name.clone()));
        Some(cluster)
    } else {
        None
    };
    let http_port = settings.ingress_http_port;
    let gateway_port = settings.ports.own(80);
    let trusted_proxies = settings.trusted_proxies.clone();
    let Some(source) = start_source(args, settings, cluster.as_ref(), &house).await? else {
        return Ok(ExitCode::FAILURE);
    };
    let handle = source.handle().clone();

    let telemetry = start_telemetry(args, &house, &handle)?;
    let config = proxy::Config { workers, trusted_proxies, ..proxy::Config::default() };
    let proxy = proxy::start(
        config,
        Arc::clone(&house.shared),
        house.lifecycle.clone(),
        Arc::clone(&telemetry),
    )
    .context("the proxy cannot be started")?;
    let listening = proxy.listening();

    let admin = start_admin(socket, &house, &pod, &listening, telemetry, handle.clone());
    let House { lifecycle, shared, health } = house.clone();
    let reconciler = Reconciler::new(source, shared, lifecycle, listening.clone(), health);
    let passes = reconciler.passes();
    let reconciling = tokio::spawn(reconciler.run());
    let controlling = cluster.map(|cluster| {
        let peers = peers(&house, &pod, listening, handle.clone(), admin_address.port());
        let controller = controller(args, cluster, &house, &pod, peers, handle, passes);
        tokio::spawn(controller.run())
    });
    if args.demo {
        let ports = (gateway_port, http_port, admin_address.port());
        tokio::spawn(invite(house.lifecycle.clone(), proxy.listening(), ports));
    }

    let timetable = Timetable { delay: args.drain_delay, timeout: args.drain_timeout };
    lifecycle::depart(&house.lifecycle, timetable, signals, proxy.drained()).await;
    if let Some(controlling) = controlling {
        let _ = timeout(LAST_WORDS, controlling).await;
    }
    reconciling.abort();
    admin.abort();
    let _ = timeout(LAST_WORDS, tokio::task::spawn_blocking(move || proxy.join())).await;
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

impl Cluster {
    async fn connect(pod: &Pod) -> anyhow::Result<Self> {
        // Its causes repeat what it says itself.
        let client = source::connect().await.map_err(|error| {
            anyhow::anyhow!(
                "no cluster can be found; set KUBECONFIG, or serve files with --from PATH or the \
                 quickstart with --demo: {error}"
            )
        })?;
        let namespace = pod.namespace.clone();
        let namespace = namespace.unwrap_or_else(|| client.default_namespace().to_owned());
        Ok(Cluster { client, namespace })
    }
}

/// None: the files have problems, which have been told.
async fn start_source(
    args: &Args,
    settings: Settings,
    cluster: Option<&Cluster>,
    house: &House,
) -> anyhow::Result<Option<Source>> {
    let settings = Arc::new(settings);
    if let Some(cluster) = cluster {
        let shared = Arc::clone(&house.shared);
        let source = ClusterSource::start(cluster.client.clone(), settings, shared);
        return Ok(Some(Source::Cluster(source)));
    }
    let embedded = if args.demo { start_demo().await? } else { Vec::new() };
    match FileSource::start(args.from.clone(), settings, embedded) {
        Ok(source) => Ok(Some(Source::Files(source))),
        Err(problems) => {
            for problem in &problems {
                eprintln!("{problem}");
            }
            eprintln!(
                "tidegate: nothing is started, because files have problems: {}",
                problems.len()
            );
            Ok(None)
        }
    }
}

/// Starts the echo backend; returns the quickstart's manifests and its endpoints.
async fn start_demo() -> anyhow::Result<Vec<Embedded>> {
    let listener =
        TcpListener::bind("127.0.0.1:0").await.context("no port for the echo backend")?;
    let endpoints = demo::endpoints(listener.local_addr()?);
    tokio::spawn(demo::echo(listener));
    let manifests = demo::MANIFESTS.iter();
    let mut embedded: Vec<Embedded> = manifests
        .map(|(name, text)| Embedded { name: (*name).to_owned(), text: (*text).to_owned() })
        .collect();
    embedded.push(Embedded { name: "echo-endpoints".into(), text: endpoints });
    Ok(embedded)
}

fn start_telemetry(args: &Args, house: &House, handle: &Handle) -> anyhow::Result<Arc<Telemetry>> {
    let format = match args.log_format {
        LogFormat::Text => Format::Text,
        LogFormat::Json => Format::Json,
    };
    let access_log = args
        .access_log
        .then(|| AccessLog::start(format, std::io::stdout()))
        .transpose()
        .context("the access log cannot be started")?;
    let telemetry = Telemetry::new(Arc::clone(&house.shared), access_log);
    telemetry.register(Box::new(ControlPlane {
        health: Arc::clone(&house.health),
        source: handle.clone(),
    }));
    Ok(telemetry)
}

fn start_admin(
    socket: TcpListener,
    house: &House,
    pod: &Pod,
    listening: &Listening,
    telemetry: Arc<Telemetry>,
    handle: Handle,
) -> tokio::task::JoinHandle<()> {
    let admin = Admin {
        lifecycle: house.lifecycle.clone(),
        shared: Arc::clone(&house.shared),
        identity: pod.identity.clone(),
        listening: listening.clone(),
        metrics: Box::new(move || telemetry.render()),
        problems: Box::new(move || crate::admin::problems(&handle)),
    };
    tokio::spawn(Arc::new(admin).serve(socket))
}

fn peers(house: &House, pod: &Pod, listening: Listening, source: Handle, admin_port: u16) -> Peers {
    Peers {
        identity: pod.identity.clone(),
        pod_ip: pod.ip,
        pod_name: pod.name.clone(),
        admin_port,
        lifecycle: house.lifecycle.clone(),
        listening,
        source,
        health: Arc::clone(&house.health),
        gone: Default::default(),
    }
}

fn controller(
    args: &Args,
    cluster: Cluster,
    house: &House,
    pod: &Pod,
    peers: Peers,
    source: Handle,
    passes: crate::controller::Passes,
) -> Controller {
    Controller {
        client: cluster.client,
        namespace: cluster.namespace,
        lease_name: args.lease_name.clone(),
        identity: pod.identity.clone(),
        peers,
        source,
        lifecycle: house.lifecycle.clone(),
        health: Arc::clone(&house.health),
        passes,
    }
}

/// Says what to try, once it works, or which port is taken. The ports: of the Gateway, of
/// Ingress, of admin.
async fn invite(
    lifecycle: Lifecycle,
    mut listening: Listening,
    (gateway, ingress, admin): (u16, u16, u16),
) {
    let ports = [gateway, ingress].map(|port| (Transport::Tcp, port));
    let all_tried = |tried: &Arc<Bound>| ports.iter().all(|port| tried.contains_key(port));
    let Ok(tried) = listening.wait_for(all_tried).await.map(|tried| Arc::clone(&tried)) else {
        return;
    };
    for ((_, port), _) in tried.iter().filter(|(_, bound)| bound.is_err()) {
        eprintln!(
            "tidegate: port {port} is taken: free it (it is tried again every second), or start \
             with another --port-offset"
        );
    }
    lifecycle.reached(Phase::Ready).await;
    let all_bound =
        |tried: &Arc<Bound>| ports.iter().all(|port| matches!(tried.get(port), Some(Ok(()))));
    if listening.wait_for(all_bound).await.is_ok() && lifecycle.phase() == Phase::Ready {
        eprintln!("\n{}\n", demo::hints(gateway, ingress, admin));
    }
}
