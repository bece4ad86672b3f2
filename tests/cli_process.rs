//! The command line as a process: what users see first.

#![allow(clippy::unwrap_used, reason = "a panic here is a failed test")]

mod support;

use std::process::{Child, Command, Output, Stdio};

use clap::CommandFactory;
use support::*;
use tidegate::cli::Cli;

const TIDEGATE: &str = env!("CARGO_BIN_EXE_tidegate");

fn tidegate(args: &[&str], variables: &[(String, &str)]) -> Output {
    let variables = variables.iter().map(|(name, value)| (name, value));
    Command::new(TIDEGATE).args(args).envs(variables).output().unwrap()
}

fn says(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_variable_that_is_empty_is_as_good_as_none() {
    let cli = Cli::command();
    let run = cli.find_subcommand("run").unwrap();
    let names = run.get_arguments().filter_map(|arg| arg.get_env());
    let empty: Vec<_> = names.map(|name| (name.to_string_lossy().into_owned(), "")).collect();
    assert!(empty.len() > 20, "{empty:?}");
    let output = tidegate(&["run", "--from", "/nonexistent", "--admin", "127.0.0.1:0"], &empty);
    assert!(says(&output).starts_with("/nonexistent: cannot be read: "), "{}", says(&output));
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_path_that_does_not_exist_is_named() {
    let output = tidegate(&["validate", "/nonexistent"], &[]);
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(told.starts_with("/nonexistent: cannot be read: "), "{told}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn validate_says_when_it_found_nothing_to_check() {
    let folder = tempfile::tempdir().unwrap();
    let output = tidegate(&["validate", folder.path().to_str().unwrap()], &[]);
    assert!(says(&output).starts_with("no object of a kind that Tidegate reads"));
}

/// Killed when dropped.
struct Demo(Child);

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_demo_leads_to_the_ports_that_it_listens_on() {
    let (gateway, ingress) = (free_port(), free_port());
    let demo = Command::new(TIDEGATE)
        .args(["run", "--demo", "--admin", "127.0.0.1:0", "--workers", "1"])
        .args(["--port-offset", &(gateway - 80).to_string()])
        .args(["--ingress-http-port", &ingress.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let _demo = Demo(demo.unwrap());
    let get = |port: u16, host: &str, path: &str| {
        let mut raw = Raw::connect(([127, 0, 0, 1], port).into());
        raw.send(&format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"));
        raw.rest()
    };
    for port in [gateway, ingress] {
        eventually("the demo listens", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
    }
    let moved = get(gateway, "localhost", "/old/page");
    let expected = format!("http://localhost:{gateway}/new/page");
    assert_eq!(field(&moved, "location"), Some(&*expected));
    let echo = get(gateway, "localhost", "/");
    assert!(body(&echo).contains(&format!("\"x-forwarded-port\": \"{gateway}\"")), "{echo}");
    let answer = get(ingress, "ingress.localhost", "/");
    assert_eq!((status(&answer), field(&answer, "x-served-by")), (200, Some("ingress")));
}
