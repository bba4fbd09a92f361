//! What the broker asks: keys that sign tokens, an HTTP service, a database.

use std::{
    env, fs,
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use argon2::{Argon2, Params, Version, password_hash::PasswordHasher as _};
use hearthmq_test::pki::rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::json;
use tempfile::TempDir;

/// Number of different tokens.
const TOKENS: usize = 1_000;

/// Tokens, signed before they are needed.
pub(crate) struct Signers {
    es256: Vec<String>,
    rs256: Vec<String>,
}

impl Signers {
    /// Writes the public keys into a directory.
    pub(crate) fn new(directory: &Path) -> Self {
        let es256 = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let rs256 = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
        fs::write(directory.join("es256.pem"), es256.public_key_pem()).unwrap();
        fs::write(directory.join("rs256.pem"), rs256.public_key_pem()).unwrap();
        let es256 = EncodingKey::from_ec_pem(es256.serialize_pem().as_bytes()).unwrap();
        let rs256 = EncodingKey::from_rsa_pem(rs256.serialize_pem().as_bytes()).unwrap();
        let exp = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 86_400;
        let sign = |algorithm, key: &EncodingKey| {
            let token = |number: usize| {
                let claims = json!({"sub": format!("car-{number}"), "exp": exp});
                encode(&Header::new(algorithm), &claims, key).unwrap()
            };
            // Signed in advance, because signing costs more than the check that is measured.
            (0..TOKENS).map(token).collect()
        };
        Self { es256: sign(Algorithm::ES256, &es256), rs256: sign(Algorithm::RS256, &rs256) }
    }

    /// Returns the credentials of a client of this kind. The service keeps its answers about `cached`.
    pub(crate) fn credentials(&self, kind: &str, number: u32) -> (Option<&'static str>, String) {
        let at = number as usize % TOKENS;
        match kind {
            "es256" => (Some("token"), self.es256[at].clone()),
            "rs256" => (Some("token"), self.rs256[at].clone()),
            "http" => (Some("service"), format!("pass-{number}")),
            "cached" => (Some("cached"), "pass".to_owned()),
            "postgres" => (Some("database"), "pass".to_owned()),
            _ => (None, String::new()),
        }
    }
}

/// An HTTP service that lets `service` and `cached` in.
pub(crate) struct Service {
    pub(crate) address: SocketAddr,
}

impl Service {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                thread::spawn(move || serve(stream));
            }
        });
        Self { address }
    }
}

fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut read, mut buffer) = (Vec::new(), [0; 4_096]);
    loop {
        let length = loop {
            let head = read.windows(4).position(|end| end == b"\r\n\r\n").map(|at| at + 4);
            let text = String::from_utf8_lossy(&read[..head.unwrap_or(0)]).to_lowercase();
            let length = text.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
            let length = length.and_then(|length| length.parse::<usize>().ok());
            match (head, length) {
                (Some(head), Some(length)) if read.len() >= head + length => break head + length,
                _ => {}
            }
            match stream.read(&mut buffer)? {
                0 => return Ok(()),
                count => read.extend_from_slice(&buffer[..count]),
            }
        };
        let asked = String::from_utf8_lossy(&read[..length]).into_owned();
        read.drain(..length);
        let (result, kept) = match () {
            () if asked.contains("\"service\"") => ("allow", "no-store"),
            () if asked.contains("\"cached\"") => ("allow", "max-age=600"),
            () => ("ignore", "max-age=600"),
        };
        let body = json!({"result": result}).to_string();
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nCache-Control: {kept}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
    }
}

/// Returns an Argon2id of "pass" that takes little time: 8 KiB, one pass.
fn cheap_hash() -> String {
    let params = Params::new(8, 1, 1, None).unwrap();
    let argon = Argon2::new(argon2::Algorithm::Argon2id, Version::V0x13, params);
    argon.hash_password_with_salt(b"pass", b"salt of 16 bytes").unwrap().to_string()
}

/// A cluster of PostgreSQL with one user. Dropping it ends it.
pub(crate) struct Database {
    directory: TempDir,
    programs: PathBuf,
    port: u16,
}

impl Database {
    /// `None` if PostgreSQL is not installed.
    pub(crate) fn start() -> Option<Self> {
        let versions = fs::read_dir("/usr/lib/postgresql").ok()?.filter_map(Result::ok);
        let mut programs = versions.map(|version| version.path().join("bin"));
        let programs = programs.find(|path| path.join("initdb").is_file())?;
        let directory = TempDir::new_in(env::temp_dir()).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let database = Self { directory, programs, port };
        // PostgreSQL refuses to run as root; elsewhere this fails, and is not needed.
        drop(Command::new("chown").arg("postgres").arg(database.directory.path()).status());
        let data = database.directory.path().join("data");
        let data = data.to_str().unwrap();
        // Without sync: the data does not outlive the measurement.
        database.run("initdb", &["-D", data, "-U", "hearthmq", "-A", "trust", "--no-sync"]);
        let options =
            format!("-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories=");
        let log = format!("{data}.log");
        database.run("pg_ctl", &["-D", data, "-w", "-l", &log, "-o", &options, "start"]);
        let sql = format!(
            "CREATE TABLE users (name text PRIMARY KEY, hash text); \
             INSERT INTO users VALUES ('database', '{}')",
            cheap_hash()
        );
        let port = port.to_string();
        let to = ["-h", "127.0.0.1", "-p", &port, "-U", "hearthmq", "-d", "postgres", "-q", "-c"];
        database.run("psql", &[&to[..], &[&sql]].concat());
        Some(database)
    }

    pub(crate) fn url(&self) -> String {
        format!("postgresql://hearthmq@127.0.0.1:{}/postgres", self.port)
    }

    /// The server refuses to run as root.
    fn run(&self, program: &str, arguments: &[&str]) {
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--"]).arg(self.programs.join(program)).args(arguments);
        command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null());
        assert!(command.status().unwrap().success(), "{program}");
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let data = self.directory.path().join("data");
        self.run("pg_ctl", &["-D", data.to_str().unwrap(), "-m", "immediate", "stop"]);
    }
}
