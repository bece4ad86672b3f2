//! An issuer that publishes a key set over HTTP, and does it as badly as a test wants.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// What the issuer answers.
#[derive(Clone, Debug)]
pub enum Answer {
    /// 200 with this body.
    Keys(String),
    /// This status, these fields and this body.
    Other(u16, Vec<(String, String)>, Vec<u8>),
    /// Bytes as they are.
    Raw(Vec<u8>),
    /// 200 and a body of so many bytes.
    Huge(usize),
    /// Takes the request and says nothing.
    Hang,
    /// A head, and then a byte every so often.
    Drip(Duration),
}

/// A running issuer. Its thread ends with the process.
pub struct IssuerServer {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

struct State {
    answer: Answer,
    asked: Vec<Instant>,
}

impl IssuerServer {
    pub fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State { answer, asked: Vec::new() }));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let shared = Arc::clone(&shared);
                thread::spawn(move || serve(stream, &shared));
            }
        });
        IssuerServer { address, state }
    }

    pub fn url(&self) -> String {
        format!("http://{}/jwks.json", self.address)
    }

    pub fn answer(&self, answer: Answer) {
        self.state.lock().unwrap().answer = answer;
    }

    /// When it was asked.
    pub fn asked(&self) -> Vec<Instant> {
        self.state.lock().unwrap().asked.clone()
    }
}

fn serve(mut stream: TcpStream, state: &Mutex<State>) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return,
        }
    }
    let answer = {
        let mut state = state.lock().unwrap();
        state.asked.push(Instant::now());
        state.answer.clone()
    };
    // Whoever asked may have gone.
    let _ = write(&mut stream, answer);
}

fn write(stream: &mut TcpStream, answer: Answer) -> std::io::Result<()> {
    match answer {
        Answer::Keys(body) => {
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            stream.write_all(head.as_bytes())?;
            stream.write_all(body.as_bytes())
        }
        Answer::Other(status, fields, body) => {
            let fields: String = fields.iter().map(|(n, v)| format!("{n}: {v}\r\n")).collect();
            let head =
                format!("HTTP/1.1 {status} X\r\n{fields}content-length: {}\r\n\r\n", body.len());
            stream.write_all(head.as_bytes())?;
            stream.write_all(&body)
        }
        Answer::Raw(bytes) => stream.write_all(&bytes),
        Answer::Huge(length) => {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{{\"keys\":[");
            stream.write_all(head.as_bytes())?;
            let spaces = vec![b' '; 64 * 1024];
            (0..length / spaces.len()).try_for_each(|_| stream.write_all(&spaces))
        }
        Answer::Hang => {
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).map(drop)
        }
        Answer::Drip(pause) => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")?;
            loop {
                stream.write_all(b" ")?;
                thread::sleep(pause);
            }
        }
    }
}
