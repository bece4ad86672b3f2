use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

use super::*;
use crate::controller::peers::PeerReport;
use crate::graph::{Bound, Transport};

fn admin() -> (Arc<Admin>, watch::Sender<Arc<Bound>>) {
    let (bound, listening) = watch::channel(Arc::default());
    let admin = Admin {
        lifecycle: Lifecycle::default(),
        shared: Arc::default(),
        identity: "pod_1".into(),
        listening,
        metrics: Box::new(|| "metric 1\n".into()),
        problems: Box::new(|| serde_json::json!([])),
    };
    (Arc::new(admin), bound)
}

async fn get(admin: &Admin, path: &str, local: bool) -> (StatusCode, String) {
    let response = admin.answer(&Method::GET, path, local).await;
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn ready_only_while_serving_and_alive_always() {
    let (admin, _bound) = admin();
    let phases = [Phase::Starting, Phase::Ready, Phase::Leaving, Phase::Draining, Phase::Stopped];
    for phase in phases {
        admin.lifecycle.advance(phase);
        let ready = get(&admin, "/readyz", false).await.0 == StatusCode::OK;
        assert_eq!(ready, phase == Phase::Ready, "{phase:?}");
        assert_eq!(get(&admin, "/livez", false).await.0, StatusCode::OK);
    }
}

#[tokio::test]
async fn inspection_and_drain_are_for_loopback_only() {
    let (admin, _bound) = admin();
    for (method, path) in
        [(Method::GET, "/problems"), (Method::GET, "/config"), (Method::POST, "/drain")]
    {
        let refused = admin.answer(&method, path, false).await;
        assert_eq!(refused.status(), StatusCode::FORBIDDEN, "{path}");
    }
    assert_eq!(admin.lifecycle.phase(), Phase::Starting);
    assert_eq!(get(&admin, "/config", true).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_get_never_drains() {
    let (admin, _bound) = admin();
    assert_eq!(get(&admin, "/drain", true).await.0, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(admin.lifecycle.phase(), Phase::Starting);
}

#[tokio::test]
async fn drain_answers_when_the_delay_is_over() {
    let (admin, _bound) = admin();
    let drain = admin.answer(&Method::POST, "/drain", true);
    tokio::pin!(drain);
    assert!(futures_util::poll!(drain.as_mut()).is_pending());
    assert_eq!(admin.lifecycle.phase(), Phase::Leaving);
    admin.lifecycle.advance(Phase::Draining);
    assert_eq!(drain.await.status(), StatusCode::OK);
}

#[tokio::test]
async fn metrics_are_for_everyone() {
    let (admin, _bound) = admin();
    assert_eq!(get(&admin, "/metrics", false).await, (StatusCode::OK, "metric 1\n".into()));
}

#[tokio::test]
async fn peers_hear_of_a_change_at_once() {
    let (admin, bound) = admin();
    let mut body = admin.answer(&Method::GET, "/peer", false).await.into_body();
    let mut heard = async || {
        let frame = body.frame().await.unwrap().unwrap();
        serde_json::from_slice::<PeerReport>(frame.data_ref().unwrap()).unwrap()
    };
    assert!(!heard().await.ready);
    admin.lifecycle.advance(Phase::Ready);
    assert!(heard().await.ready);
    let tcp = |port| (Transport::Tcp, port);
    let ports = [(tcp(20000), Ok(())), (tcp(20001), Err("in use".to_owned()))];
    let udp = ((Transport::Udp, 20001), Ok(()));
    bound.send_replace(Arc::new(ports.into_iter().chain([udp]).collect()));
    let report = heard().await;
    assert_eq!((report.ports, report.udp_ports), ([20000].into(), [20001].into()));
    admin.lifecycle.advance(Phase::Leaving);
    assert!(!heard().await.ready);
}

#[test]
fn one_address_cannot_take_all_connections() {
    let guests = Arc::new(Guests::default());
    let noisy = IpAddr::from([10, 0, 0, 1]);
    let held: Vec<_> = (0..MAX_PER_ADDRESS).map(|_| Guests::admit(&guests, noisy)).collect();
    assert!(held.iter().all(Option::is_some));
    assert!(Guests::admit(&guests, noisy).is_none());
    assert!(Guests::admit(&guests, IpAddr::from([10, 0, 0, 2])).is_some());
    drop(held);
    assert!(Guests::admit(&guests, noisy).is_some());
}

#[tokio::test]
async fn it_speaks_http() {
    let (admin, _bound) = admin();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let server = tokio::spawn(admin.serve(listener));
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(b"GET /livez HTTP/1.0\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.0 200 OK\r\n"), "{answer}");
    server.abort();
}
