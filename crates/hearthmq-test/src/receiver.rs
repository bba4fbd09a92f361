//! An HTTP server that receives webhooks: a test sees each call, and decides when and how it is
//! answered.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use serde_json::Value;

/// How long a test waits for a call. Only a busy machine needs more than a moment.
const PATIENCE: Duration = Duration::from_secs(60);

/// A byte stream.
pub trait Stream: Read + Write {}

impl<S: Read + Write> Stream for S {}

/// The server. It ends with the process.
pub struct Receiver {
    pub address: SocketAddr,
    calls: mpsc::Receiver<Call>,
}

/// A call that waits for its answer. Without one, its connection is closed.
#[derive(Debug)]
pub struct Call {
    /// The request line.
    pub line: String,
    headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
    /// Counts the connections of the server, from 1.
    pub connection: usize,
    answer: mpsc::Sender<String>,
}

impl Receiver {
    /// Starts a server for HTTP.
    pub fn start() -> Self {
        Self::start_with(|stream| Ok(Box::new(stream) as Box<dyn Stream>))
    }

    /// Starts a server on streams with a further layer.
    pub fn start_with(
        wrap: impl Fn(TcpStream) -> io::Result<Box<dyn Stream>> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (calling, calls) = mpsc::channel();
        let wrap = Arc::new(wrap);
        // A thread for each connection: a test may leave one unanswered.
        thread::spawn(move || {
            for (number, stream) in listener.incoming().map_while(Result::ok).enumerate() {
                let (wrap, calling) = (Arc::clone(&wrap), calling.clone());
                thread::spawn(move || {
                    // A caller that closes in the middle is not served any more.
                    let _ = wrap(stream).and_then(|stream| serve(stream, number + 1, &calling));
                });
            }
        });
        Self { address, calls }
    }

    /// Waits for the next call.
    pub fn next(&self) -> Call {
        self.calls.recv_timeout(PATIENCE).expect("a call comes")
    }

    /// Waits for the next call for at most this time.
    pub fn next_within(&self, time: Duration) -> Option<Call> {
        self.calls.recv_timeout(time).ok()
    }

    /// Returns whether no call has come.
    pub fn is_quiet(&self) -> bool {
        self.calls.try_recv().is_err()
    }

    /// Takes the next calls, answering each with 204, until one has this event; returns all events.
    pub fn take_until(&self, last: &str) -> Vec<String> {
        let mut events = Vec::new();
        while !events.iter().any(|event| event == last) {
            let call = self.next();
            events.extend(call.events());
            call.answer("204 No Content");
        }
        events
    }
}

impl Call {
    /// Returns a header, named in lower case; empty if it is missing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// Returns the body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Returns the events, each as its name and, if it has one, its client.
    pub fn events(&self) -> Vec<String> {
        let body = self.json();
        let name = |event: &Value| {
            let client = event["data"]["clientid"].as_str();
            let name = event["event"].as_str().unwrap();
            client.map_or_else(|| name.to_owned(), |client| format!("{name} {client}"))
        };
        body["events"].as_array().unwrap().iter().map(name).collect()
    }

    /// Answers with a status and further header lines, `503 Busy\r\nRetry-After: 1`, and no body.
    pub fn answer(self, status: &str) {
        self.answer_bytes(&format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"));
    }

    /// Answers with these bytes.
    pub fn answer_bytes(self, bytes: &str) {
        let _ = self.answer.send(bytes.to_owned()); // The caller may have closed.
    }
}

fn serve(
    mut stream: Box<dyn Stream>,
    connection: usize,
    calls: &mpsc::Sender<Call>,
) -> io::Result<()> {
    loop {
        let mut head = Vec::new();
        // Byte by byte, so that no byte of the body is read here.
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            head.extend(byte);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let mut lines = head.lines();
        let line = lines.next().unwrap_or_default().to_owned();
        let headers: BTreeMap<_, _> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        stream.read_exact(&mut body)?;
        let (answer, answered) = mpsc::channel();
        if calls.send(Call { line, headers, body, connection, answer }).is_err() {
            return Ok(());
        }
        let Ok(answer) = answered.recv() else { return Ok(()) };
        stream.write_all(answer.as_bytes())?;
        stream.flush()?;
    }
}
