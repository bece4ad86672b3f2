//! Leaving: nothing is refused while load balancers still send, and what is held is finished.

#![allow(clippy::unwrap_used, reason = "a panic here is a failed test")]

mod support;

use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use support::*;
use tidegate::graph::Transport;
use tidegate::lifecycle::Phase;

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

fn quick(config: &mut tidegate::proxy::Config) {
    config.limits.move_after = Duration::from_millis(50);
    config.limits.drain_idle = Duration::from_millis(300);
}

fn drained_within(proxy: &Proxy, time: Duration) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let drained = proxy.handle.as_ref().unwrap().drained();
    runtime.block_on(async { tokio::time::timeout(time, drained).await }).is_ok()
}

#[test]
fn while_leaving_everything_is_served_and_clients_are_asked_to_move() {
    let backend = RawBackend::echo();
    let proxy = Proxy::start_with(Graph::http(free_port()).all_to(&[backend.addr]), quick);
    let mut kept = proxy.connect();
    kept.send(GET);
    assert_eq!(field(&kept.message(), "connection"), None);
    proxy.lifecycle.advance(Phase::Leaving);
    thread::sleep(Duration::from_millis(150));
    kept.send(GET);
    let response = kept.message();
    assert_eq!((status(&response), field(&response, "connection")), (200, Some("close")));
    assert!(kept.closes_within(SOON));
    for _ in 0..10 {
        let mut new = proxy.connect();
        new.send(GET);
        assert_eq!(status(&new.message()), 200);
    }
}

#[test]
fn a_held_request_is_finished_and_an_idle_connection_still_gets_an_answer() {
    let backend = RawBackend::start(|mut raw, _| {
        while let request = raw.message()
            && !request.is_empty()
        {
            if request.starts_with("GET /slow") {
                thread::sleep(Duration::from_millis(800));
            }
            raw.send(&ok("done"));
        }
    });
    let proxy = Proxy::start_with(Graph::http(free_port()).all_to(&[backend.addr]), quick);
    let mut held = proxy.connect();
    held.send("GET /slow HTTP/1.1\r\nhost: a\r\n\r\n");
    let mut idle = proxy.connect();
    idle.send(GET);
    assert_eq!(status(&idle.message()), 200);
    let mut forgotten = proxy.connect();
    forgotten.send(GET);
    assert_eq!(status(&forgotten.message()), 200);
    proxy.lifecycle.advance(Phase::Draining);
    proxy.wait("the port is closed", |proxy| TcpStream::connect(proxy.addr()).is_err());
    idle.send(GET);
    let response = idle.message();
    assert_eq!((status(&response), field(&response, "connection")), (200, Some("close")));
    assert!(forgotten.closes_within(SOON));
    assert!(!drained_within(&proxy, Duration::from_millis(50)));
    let response = held.message();
    assert_eq!((body(&response), field(&response, "connection")), ("done", Some("close")));
    assert!(drained_within(&proxy, SOON));
}

#[test]
fn what_is_still_held_is_cut_when_the_process_stops() {
    let backend = RawBackend::start(|mut raw, _| {
        raw.message();
        raw.rest();
    });
    let mut proxy = Proxy::start_with(Graph::http(free_port()).all_to(&[backend.addr]), quick);
    let mut held = proxy.connect();
    held.send(GET);
    thread::sleep(Duration::from_millis(50));
    proxy.lifecycle.advance(Phase::Stopped);
    let start = Instant::now();
    proxy.handle.take().unwrap().join();
    assert!(start.elapsed() < SOON);
    assert_eq!(held.rest(), "");
}

#[test]
fn under_load_no_request_is_lost_while_one_of_two_leaves() {
    let backend = RawBackend::named("ok");
    let leaving = Proxy::start_with(Graph::http(free_port()).all_to(&[backend.addr]), quick);
    let staying = Proxy::start(Graph::http(free_port()).all_to(&[backend.addr]));
    let withdrawn = AtomicBool::new(false);
    let stop = AtomicBool::new(false);
    let served = thread::scope(|scope| {
        let clients: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let mut served = 0;
                    while !stop.load(Ordering::SeqCst) {
                        let to = if withdrawn.load(Ordering::SeqCst) { &staying } else { &leaving };
                        let mut client = to.connect();
                        loop {
                            client.send(GET);
                            let response = client.message();
                            assert_eq!(body(&response), "ok");
                            served += 1;
                            if field(&response, "connection").is_some()
                                || stop.load(Ordering::SeqCst)
                            {
                                break;
                            }
                        }
                    }
                    served
                })
            })
            .collect();
        thread::sleep(Duration::from_millis(200));
        leaving.lifecycle.advance(Phase::Leaving);
        thread::sleep(Duration::from_millis(200));
        withdrawn.store(true, Ordering::SeqCst);
        thread::sleep(Duration::from_millis(200));
        leaving.lifecycle.advance(Phase::Draining);
        assert!(drained_within(&leaving, SOON));
        thread::sleep(Duration::from_millis(100));
        stop.store(true, Ordering::SeqCst);
        clients.into_iter().map(|client| client.join().unwrap()).sum::<u32>()
    });
    assert!(served > 100, "{served}");
}

#[test]
fn ports_come_and_go_with_the_graph_and_a_taken_one_is_told() {
    let backend = RawBackend::echo();
    let (first, second) = (free_port(), free_port());
    let [first_key, second_key] = [first, second].map(|port| (Transport::Tcp, port));
    let proxy = Proxy::start(Graph::http(first).all_to(&[backend.addr]));
    let listening = proxy.handle.as_ref().unwrap().listening();
    let taken = std::net::TcpListener::bind(("0.0.0.0", second)).unwrap();
    proxy.shared.publish(Graph::http(second).all_to(&[backend.addr]));
    eventually("the taken port is reported", || {
        let listening = listening.borrow().clone();
        matches!(listening.get(&second_key), Some(Err(why)) if why.contains("in use"))
            && !listening.contains_key(&first_key)
    });
    eventually("the old port is closed", || TcpStream::connect(proxy.addr()).is_err());
    drop(taken);
    eventually("the port is bound once it is free", || {
        listening.borrow().get(&second_key) == Some(&Ok(()))
    });
}
