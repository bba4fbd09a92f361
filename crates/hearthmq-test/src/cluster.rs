//! A PostgreSQL cluster of Debian's package, on a loopback address of its own. It ends with the value.
//!
//! Knows PostgreSQL's programs; does not know the broker. Used by tests of identities in a database.

use std::{
    env, fs,
    net::SocketAddr,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use tempfile::TempDir;

use crate::{free_address, pki::Pair, skipped::not_installed};

/// A cluster, with the superuser `hearthmq` and the database `postgres`.
pub struct Cluster {
    directory: TempDir,
    programs: PathBuf,
    pub address: SocketAddr,
    options: String,
}

impl Cluster {
    /// Makes a cluster and starts it; `None` if PostgreSQL is not installed.
    pub fn start() -> Option<Self> {
        Self::start_with(None)
    }

    /// Does the same with TLS, by this certificate.
    pub fn start_with(certificate: Option<&Pair>) -> Option<Self> {
        let Some(programs) = programs() else {
            not_installed("postgresql");
            return None;
        };
        let mut cluster = Self {
            directory: TempDir::new_in(env::temp_dir()).unwrap(),
            programs,
            address: free_address(),
            options: String::new(),
        };
        let directory = cluster.directory.path().to_owned();
        if let Some(Pair { chain, key }) = certificate {
            let copy = |from: &Path, name| {
                let path = directory.join(name);
                fs::write(&path, fs::read(from).unwrap()).unwrap();
                path
            };
            let (chain, key) = (copy(chain, "server.crt"), copy(key, "server.key"));
            // PostgreSQL refuses a key that others may read.
            run(Command::new("chmod").arg("600").arg(&key));
            let files =
                format!("-c ssl_cert_file={} -c ssl_key_file={}", chain.display(), key.display());
            cluster.options = format!("-c ssl=on {files}");
        }
        if is_root() {
            // The server refuses to run as root.
            run(Command::new("chown").args(["-R", "postgres"]).arg(&directory));
        }
        let data = cluster.data();
        cluster.run("initdb", &["-D", &data, "-U", "hearthmq", "-A", "trust", "--no-sync"]);
        cluster.power_on();
        Some(cluster)
    }

    fn data(&self) -> String {
        self.directory.path().join("data").to_str().unwrap().to_owned()
    }

    /// Starts the server.
    pub fn power_on(&self) {
        let options = format!(
            "-p {} -c listen_addresses={} -c unix_socket_directories= -c fsync=off {}",
            self.address.port(),
            self.address.ip(),
            self.options
        );
        let log = self.directory.path().join("log");
        let log = log.to_str().unwrap();
        self.run("pg_ctl", &["-D", &self.data(), "-w", "-l", log, "-o", &options, "start"]);
    }

    /// Stops the server, without notice.
    pub fn power_off(&self) {
        self.run("pg_ctl", &["-D", &self.data(), "-w", "-m", "immediate", "stop"]);
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        run(self.command(program).args(arguments));
    }

    fn command(&self, program: &str) -> Command {
        let program = self.programs.join(program);
        if !is_root() {
            return Command::new(program);
        }
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--"]).arg(program).current_dir("/");
        command
    }

    /// Runs SQL; returns what it selects, without headings.
    pub fn sql(&self, text: &str) -> String {
        let (address, port) = (self.address.ip().to_string(), self.address.port().to_string());
        let to = ["-h", &address, "-p", &port, "-U", "hearthmq", "-d", "postgres"];
        let arguments = [&to[..], &["-qAt", "-v", "ON_ERROR_STOP=1", "-c", text]].concat();
        let output = run(Command::new(self.programs.join("psql")).args(arguments));
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    /// Returns the URL of its database.
    pub fn url(&self) -> String {
        format!("postgresql://hearthmq@{}/postgres", self.address)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let mut command = self.command("pg_ctl");
        command.args(["-D", &self.data(), "-m", "immediate", "stop"]);
        drop(command.stdout(Stdio::null()).stderr(Stdio::null()).status());
    }
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

fn run(command: &mut Command) -> Output {
    // What pg_ctl leaves behind would keep a pipe open.
    let log = tempfile::tempfile().unwrap();
    let (out, read) = (log.try_clone().unwrap(), log);
    let status = command.stdin(Stdio::null()).stdout(out).stderr(Stdio::piped());
    let child = status.spawn().unwrap();
    let mut output = child.wait_with_output().unwrap();
    output.stdout = read_all(read);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    output
}

fn read_all(mut file: fs::File) -> Vec<u8> {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?.filter_map(Result::ok);
    let mut found = versions.map(|version| version.path().join("bin"));
    found.find(|path: &PathBuf| Path::is_file(&path.join("initdb")))
}
