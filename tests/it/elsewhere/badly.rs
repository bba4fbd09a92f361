//! Servers of HTTP that answer badly: slowly, without an end, with too much, or about somewhere else.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Duration,
};

use hearthmq::net::tls::{ClientAuth, TlsConfig, TlsVersion, server_config};
use hearthmq_test::receiver::{Receiver, Stream};
use rustls::{ServerConnection, StreamOwned};

use crate::pki::Pair;

/// Bytes that fit into the buffers of both sockets, and what a caller may read beside them.
pub(super) const BYTES_MAX: usize = 32 * 1024 * 1024;
/// The time between two bytes of a slow answer.
const A_MOMENT: Duration = Duration::from_millis(10);

/// How a server answers. Interim answers are read and dropped until the time is over; of all others, only a
/// bounded number of bytes is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Badly {
    Not,
    SlowHead,
    SlowBody,
    EndlessHead,
    EndlessInterim,
    EndlessBody,
    EndlessChunks,
    TooLong,
    CutOff,
    RedirectedToItself,
    NoHttp,
}

impl Badly {
    pub(super) const ALL: [Self; 11] = [
        Self::Not,
        Self::SlowHead,
        Self::SlowBody,
        Self::EndlessHead,
        Self::EndlessInterim,
        Self::EndlessBody,
        Self::EndlessChunks,
        Self::TooLong,
        Self::CutOff,
        Self::RedirectedToItself,
        Self::NoHttp,
    ];

    /// Answers until that is over or the caller has closed; counts the bytes. `good` would be right.
    fn answer(self, stream: &mut TcpStream, good: &str, written: &mut usize) -> io::Result<()> {
        let mut write = |bytes: &[u8]| {
            stream.write_all(bytes)?;
            *written += bytes.len();
            Ok(())
        };
        let mut write_endlessly = |first: &str, part: &[u8], pause: Duration| {
            write(first.as_bytes())?;
            loop {
                write(part)?;
                thread::sleep(pause);
            }
        };
        let none = Duration::ZERO;
        let much = [b' '; 65_536];
        let ok = |headers: &str| format!("HTTP/1.1 200 OK\r\n{headers}\r\n\r\n");
        match self {
            Self::Not => {
                let _ = stream.read(&mut [0])?; // until the caller closes
                Ok(())
            }
            Self::SlowHead => write_endlessly("HTTP/1.1 200 OK\r\n", b"x: y\r\n", A_MOMENT),
            Self::SlowBody => write_endlessly(&ok("Content-Length: 60000"), b" ", A_MOMENT),
            Self::EndlessHead => write_endlessly("HTTP/1.1 200 OK\r\nx: ", &much, none),
            Self::EndlessInterim => {
                write_endlessly("", "HTTP/1.1 103 Hints\r\n\r\n".repeat(1_000).as_bytes(), none)
            }
            Self::EndlessBody => write_endlessly(&ok("Content-Length: 1099511627776"), &much, none),
            Self::EndlessChunks => {
                let chunk = [b"10000\r\n", &much[..], b"\r\n"].concat();
                write_endlessly(&ok("Transfer-Encoding: chunked"), &chunk, none)
            }
            Self::TooLong => {
                let body = format!("{}{good}", " ".repeat(300_000));
                let length = format!("Content-Length: {}", body.len());
                write(format!("{}{body}", ok(&length)).as_bytes())
            }
            Self::CutOff => write(format!("{}{good}", ok("Content-Length: 9999")).as_bytes()),
            Self::RedirectedToItself => {
                write(b"HTTP/1.1 307 There\r\nLocation: /\r\nContent-Length: 0\r\n\r\n")
            }
            Self::NoHttp => write(b"SSH-2.0-OpenSSH_9.2\r\n"),
        }
    }
}

/// The body of a good answer, or how bad it is.
type Answer = Result<String, (Badly, String)>;

/// A server that answers as it is told.
pub(super) struct BadServer {
    pub(super) address: SocketAddr,
    answer: Arc<Mutex<Answer>>,
    /// The bytes of each bad answer.
    bytes: mpsc::Receiver<usize>,
}

impl BadServer {
    pub(super) fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (count, bytes) = mpsc::channel();
        let answer = Arc::new(Mutex::new(answer));
        let present = Arc::clone(&answer);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (present, count) = (Arc::clone(&present), count.clone());
                // A caller that closes in the middle is not served any more.
                thread::spawn(move || drop(serve(stream, &present, &count)));
            }
        });
        Self { address, answer, bytes }
    }

    /// Answers like this from now on.
    pub(super) fn set(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    /// Returns how many bytes a bad answer has written, once it is over.
    pub(super) async fn written(&self) -> usize {
        loop {
            match self.bytes.try_recv() {
                Ok(bytes) => return bytes,
                Err(_) => tokio::time::sleep(A_MOMENT).await,
            }
        }
    }
}

fn serve(
    mut stream: TcpStream,
    present: &Mutex<Answer>,
    count: &mpsc::Sender<usize>,
) -> io::Result<()> {
    loop {
        read_request(&mut stream)?;
        let answer = present.lock().unwrap().clone();
        match answer {
            Ok(body) => {
                let length = body.len();
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
                stream.write_all(format!("{head}{body}").as_bytes())?;
            }
            Err((how, good)) => {
                let mut written = 0;
                let end = how.answer(&mut stream, &good, &mut written);
                let _ = count.send(written); // The test may be over.
                return end; // and close
            }
        }
    }
}

/// Reads a request with its body.
fn read_request(stream: &mut TcpStream) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.extend(byte);
    }
    let head = String::from_utf8_lossy(&head).to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body)
}

/// Starts a receiver over TLS.
pub(super) fn receiver_with(certificate: &Pair) -> Receiver {
    let files = TlsConfig {
        certificate: certificate.chain.clone(),
        key: certificate.key.clone(),
        client_ca: Vec::new(),
        client_auth: ClientAuth::None,
        crl: Vec::new(),
        min_version: TlsVersion::default(),
        ocsp: std::path::PathBuf::new(),
    };
    let config = server_config(&files).unwrap();
    Receiver::start_with(move |stream: TcpStream| {
        let tls = ServerConnection::new(config.clone()).map_err(io::Error::other)?;
        Ok(Box::new(StreamOwned::new(tls, stream)) as Box<dyn Stream>)
    })
}
