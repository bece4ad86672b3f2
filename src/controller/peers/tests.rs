use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::discovery::v1::EndpointConditions;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::*;
use crate::admin::Admin;
use crate::graph::Bound;
use crate::lifecycle::Phase;
use crate::translate::Settings;

fn endpoint(ip: &str, terminating: bool) -> Endpoint {
    Endpoint {
        addresses: vec![ip.into()],
        conditions: Some(EndpointConditions {
            terminating: Some(terminating),
            ..EndpointConditions::default()
        }),
        target_ref: Some(ObjectReference {
            name: Some(format!("pod-{ip}")),
            ..ObjectReference::default()
        }),
        ..Endpoint::default()
    }
}

fn slice(namespace: &str, service: &str, endpoints: Vec<Endpoint>) -> (Key, Arc<EndpointSlice>) {
    let labels = [("kubernetes.io/service-name".to_owned(), service.to_owned())];
    let slice = EndpointSlice {
        metadata: ObjectMeta { labels: Some(labels.into()), ..ObjectMeta::default() },
        endpoints: Some(endpoints),
        ..EndpointSlice::default()
    };
    (Key::new(namespace, format!("{service}-{}", fastrand::u64(..))), Arc::new(slice))
}

#[test]
fn members_are_the_pods_of_our_own_service() {
    let settings =
        Settings { own_service: Some(Key::new("own", "tidegate")), ..Settings::default() };
    let slices = [
        slice("own", "tidegate", vec![endpoint("10.0.0.2", true), endpoint("10.0.0.1", false)]),
        slice("own", "tidegate", vec![endpoint("10.0.0.1", false)]),
        slice("own", "other", vec![endpoint("10.0.0.3", false)]),
        slice("tenant", "tidegate", vec![endpoint("10.0.0.4", false)]),
    ];
    let snapshot = Snapshot {
        settings: Arc::new(settings),
        endpoint_slices: Arc::new(slices.into()),
        ..Snapshot::default()
    };
    let found: Vec<_> =
        members(&snapshot).into_iter().map(|m| (m.ip.to_string(), m.terminating)).collect();
    assert_eq!(found, [("10.0.0.1".to_owned(), false), ("10.0.0.2".to_owned(), true)]);
}

fn report(ready: bool) -> PeerReport {
    PeerReport {
        identity: "p".into(),
        ready,
        leaving: false,
        ports: [20000].into(),
        udp_ports: [53].into(),
    }
}

#[test]
fn a_pod_on_its_way_out_is_leaving_as_long_as_it_serves() {
    let member = |terminating| Member {
        ip: IpAddr::from([10, 0, 0, 1]),
        pod_name: None,
        node_name: None,
        terminating,
    };
    let leaving = || PeerReport { leaving: true, ..report(false) };
    for (terminating, says, state) in [
        (false, Some(report(true)), PeerState::Ready),
        (true, Some(report(true)), PeerState::Leaving),
        (false, Some(leaving()), PeerState::Leaving),
        (true, Some(leaving()), PeerState::Leaving),
        (false, Some(report(false)), PeerState::Away),
        (true, Some(report(false)), PeerState::Away),
        (false, None, PeerState::Away),
    ] {
        assert_eq!(peer(member(terminating), says.clone()).state, state, "{terminating} {says:?}");
    }
}

struct Pod {
    lifecycle: Lifecycle,
    _bound: watch::Sender<Arc<Bound>>,
    server: tokio::task::JoinHandle<()>,
    addr: std::net::SocketAddr,
}

async fn pod(identity: &str, addr: &str) -> Pod {
    let listener = TcpListener::bind(addr).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let lifecycle = Lifecycle::default();
    lifecycle.advance(Phase::Ready);
    let (bound, listening) = watch::channel(Arc::default());
    let admin = Arc::new(Admin {
        lifecycle: lifecycle.clone(),
        shared: Arc::default(),
        identity: identity.into(),
        listening,
        metrics: Box::new(String::new),
        problems: Box::new(|| serde_json::Value::Null),
    });
    let server = tokio::spawn(admin.serve(listener));
    Pod { lifecycle, _bound: bound, server, addr }
}

async fn next(heard: &mut mpsc::Receiver<(IpAddr, Heard)>) -> Heard {
    timeout(Duration::from_secs(10), heard.recv()).await.unwrap().unwrap().1
}

#[tokio::test]
async fn a_leaving_peer_is_heard_at_once() {
    let pod = pod("pod_1", "127.0.0.1:0").await;
    let (sender, mut heard) = mpsc::channel(64);
    let task = tokio::spawn(follow::follow(pod.addr.ip(), pod.addr.port(), sender));
    let Heard::Says(first) = next(&mut heard).await else { panic!("said nothing") };
    assert!(first.ready);
    pod.lifecycle.advance(Phase::Leaving);
    loop {
        match next(&mut heard).await {
            Heard::Says(report) if report.ready => {}
            Heard::Says(_) => break,
            other => panic!("{other:?}"),
        }
    }
    task.abort();
    pod.server.abort();
}

#[tokio::test]
async fn a_process_that_closed_its_stream_and_its_port_is_gone() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let process = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 1024];
        let _ = stream.read(&mut request).unwrap();
        let line = serde_json::to_string(&report(true)).unwrap();
        write!(stream, "HTTP/1.1 200 OK\r\n\r\n{line}\n").unwrap();
        // Both are closed here, as at the end of a process.
    });
    let (sender, mut heard) = mpsc::channel(64);
    let task = tokio::spawn(follow::follow(addr.ip(), addr.port(), sender));
    assert_eq!(next(&mut heard).await, Heard::Says(report(true)));
    assert_eq!(next(&mut heard).await, Heard::Silent);
    assert_eq!(next(&mut heard).await, Heard::Gone("p".into()));
    task.abort();
    process.join().unwrap();
}
