//! A caller of the REST interface that waits for each answer, and what its calls cost the others.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
};

const AUTHORIZATION: &str = "Basic YmVuY2g6";

pub(crate) struct Caller {
    stream: BufReader<TcpStream>,
}

impl Caller {
    pub(crate) fn connect(http: SocketAddr) -> Self {
        let stream = TcpStream::connect(http).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream: BufReader::with_capacity(256 * 1024, stream) }
    }

    /// Calls; returns the body of the answer, which must be 200.
    pub(crate) fn call(&mut self, line: &str, headers: &str, body: &str) -> Vec<u8> {
        self.say(line, headers, body);
        let mut whole = Vec::new();
        match self.read_head() {
            Some(length) => {
                whole.resize(length, 0);
                self.stream.read_exact(&mut whole).unwrap();
            }
            None => while self.read_chunk(&mut whole) {},
        }
        whole
    }

    /// Sends a request.
    pub(crate) fn say(&mut self, line: &str, headers: &str, body: &str) {
        let length = body.len();
        let request = format!(
            "{line} HTTP/1.1\r\nHost: bench\r\nAuthorization: {AUTHORIZATION}\r\n{headers}\
             Content-Length: {length}\r\n\r\n{body}"
        );
        self.stream.get_mut().write_all(request.as_bytes()).unwrap();
    }

    /// Reads the head of an answer; returns the length of the body, `None` if it comes in chunks.
    pub(crate) fn read_head(&mut self) -> Option<usize> {
        let (mut length, mut line) = (None, String::new());
        self.stream.read_line(&mut line).unwrap();
        assert!(line.starts_with("HTTP/1.1 200 "), "{line}");
        loop {
            line.clear();
            self.stream.read_line(&mut line).unwrap();
            match line.trim_end().split_once(": ") {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                    length = value.parse().ok();
                }
                Some(_) => {}
                None => return length,
            }
        }
    }

    /// Appends the next chunk; returns whether it was not the last.
    pub(crate) fn read_chunk(&mut self, whole: &mut Vec<u8>) -> bool {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        let length = usize::from_str_radix(line.trim_end(), 16).unwrap_or(0);
        let at = whole.len();
        whole.resize(at + length, 0);
        self.stream.read_exact(&mut whole[at..]).unwrap();
        self.stream.read_line(&mut line).unwrap();
        length > 0
    }
}

/// Returns the seconds of CPU time that this thread has used.
fn own_cpu_secs() -> f64 {
    cpu_secs("/proc/thread-self/schedstat")
}

fn cpu_secs(path: &str) -> f64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    let nanos = text.split(' ').next().and_then(|nanos| nanos.parse::<f64>().ok());
    nanos.unwrap_or(0.0) / 1e9
}

/// Returns the seconds of CPU time that the threads of the broker and its HTTP server have used:
/// all but this thread and those whose names begin with `client`.
pub(crate) fn broker_cpu_secs() -> f64 {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let of_others = tasks.filter_map(Result::ok).filter(|task| {
        let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        !name.starts_with("client")
    });
    let all: f64 =
        of_others.map(|task| cpu_secs(&format!("{}/schedstat", task.path().display()))).sum();
    let own = std::thread::current().name().is_some_and(|name| name.starts_with("client"));
    all - if own { 0.0 } else { own_cpu_secs() }
}
