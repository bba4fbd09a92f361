//! The socket in the data directory through which `hearthmq store export` asks a running broker for
//! its stored data. Only users who can read the directory can reach the socket.
//!
//! A caller writes a line, `export`, and reads the lines of an export, or a line of the kind `error`.
//! Knows files, sockets and the store.

use std::{
    fs,
    io::{self, BufRead as _, BufReader, BufWriter, Read as _, Write as _},
    net::Shutdown,
    os::unix::{
        fs::{FileTypeExt as _, PermissionsExt as _},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use hearthmq::store::DirectoryStore;
use serde_json::{Value, json};
use socket2::SockRef;

use super::{Failure, export::export};

const SOCKET: &str = "control.sock";
const REQUEST: &str = "export";
/// Time limit for the request, which a caller sends immediately, and for each write of an export.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(5);
const WRITE_TIME_MAX: Duration = Duration::from_secs(60);
/// How long a caller waits for the first line: the broker first writes its changes to the store.
const FIRST_LINE_TIME_MAX: Duration = Duration::from_secs(60);
/// Maximum number of callers that are answered at the same time, each by a thread.
const CALLERS_MAX: usize = 8;

/// Writes everything acknowledged so far to the store; returns whether that succeeded.
pub(super) type Flush = Box<dyn Fn() -> bool + Send + Sync>;

/// Answers callers until it is dropped.
pub(super) struct ControlSocket {
    path: PathBuf,
    listener: UnixListener,
    callers: Arc<Callers>,
    thread: Option<JoinHandle<()>>,
}

/// The callers that are being answered, and whether the broker ends.
#[derive(Default)]
struct Callers {
    is_ending: AtomicBool,
    present: Mutex<Vec<Arc<UnixStream>>>,
}

impl Callers {
    fn present(&self) -> MutexGuard<'_, Vec<Arc<UnixStream>>> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_ending(&self) -> bool {
        self.is_ending.load(Ordering::Relaxed)
    }

    /// Returns whether there is room for this caller, who then stays until [`Callers::leave`].
    fn enter(&self, caller: &Arc<UnixStream>) -> bool {
        let mut present = self.present();
        let has_room = present.len() < CALLERS_MAX && !self.is_ending();
        if has_room {
            present.push(Arc::clone(caller));
        }
        has_room
    }

    fn leave(&self, caller: &Arc<UnixStream>) {
        self.present().retain(|other| !Arc::ptr_eq(other, caller));
    }

    /// Ends the answers to all callers.
    fn end(&self) {
        let present = self.present();
        self.is_ending.store(true, Ordering::Relaxed);
        for caller in &*present {
            drop(caller.shutdown(Shutdown::Both));
        }
    }
}

impl ControlSocket {
    /// Starts to listen in the data directory, which this process has locked.
    pub(super) fn start(
        data_dir: &Path,
        store: Arc<DirectoryStore>,
        flush: Flush,
    ) -> io::Result<Self> {
        let path = data_dir.join(SOCKET);
        match fs::symlink_metadata(&path) {
            // The directory's lock is ours, so the process that made this socket has ended.
            Ok(found) if found.file_type().is_socket() => fs::remove_file(&path)?,
            Ok(_) => {
                return Err(io::Error::new(
                    io::ErrorKind::AlreadyExists,
                    "a file of this name exists",
                ));
            }
            Err(_) => {}
        }
        let listener = UnixListener::bind(&path)?;
        // Until here the permissions of the directory protect the socket.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        let callers = Arc::new(Callers::default());
        let (answered, accepting) = (callers.clone(), listener.try_clone()?);
        let thread = thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || serve(&accepting, &store, &flush, &answered))?;
        Ok(Self { path, listener, callers, thread: Some(thread) })
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        self.callers.end();
        // Either wakes the thread: the shutdown where the path is gone, the connection on systems
        // that cannot shut down a listening socket.
        let is_shut = SockRef::from(&self.listener).shutdown(Shutdown::Both).is_ok();
        let is_woken = UnixStream::connect(&self.path).is_ok() || is_shut;
        if let Some(thread) = self.thread.take().filter(|_| is_woken) {
            drop(thread.join());
        }
        drop(fs::remove_file(&self.path));
    }
}

/// Answers callers, each on a thread of its own: one that does not read delays no other.
fn serve(listener: &UnixListener, store: &DirectoryStore, flush: &Flush, callers: &Callers) {
    thread::scope(|scope| {
        for caller in listener.incoming() {
            // The end of the broker wakes this loop without a caller.
            if callers.is_ending() {
                return;
            }
            let Ok(caller) = caller.map(Arc::new) else {
                thread::sleep(Duration::from_millis(100)); // out of file descriptors for now
                continue;
            };
            // Each caller takes a thread and a snapshot of the store, so their number has a bound.
            if !callers.enter(&caller) {
                refuse(&caller, "too many callers at the same time; try again later");
                continue;
            }
            let answering = Arc::clone(&caller);
            let answer = move || {
                answer(&answering, store, flush, callers);
                callers.leave(&answering);
            };
            let named = thread::Builder::new().name("control".to_owned());
            if let Err(error) = named.spawn_scoped(scope, answer) {
                refuse(&caller, &error.to_string());
                callers.leave(&caller);
            }
        }
    });
}

/// Serves a caller's request, and logs it.
fn answer(caller: &UnixStream, store: &DirectoryStore, flush: &Flush, callers: &Callers) {
    match export_to(caller, store, flush, callers) {
        Ok(0) => {}
        Ok(lines) => tracing::info!(lines, "store exported"),
        Err(Failure::Output(error)) => refuse(caller, &error.to_string()), // the socket's
        Err(error) => refuse(caller, &error.to_string()),
    }
}

fn refuse(mut caller: &UnixStream, why: &str) {
    tracing::warn!("store not exported: {why}");
    drop(writeln!(caller, "{}", json!({ "kind": "error", "message": why })));
}

/// Reads a caller's request and sends the export; returns the number of lines sent.
fn export_to(
    caller: &UnixStream,
    store: &DirectoryStore,
    flush: &Flush,
    callers: &Callers,
) -> Result<u64, Failure> {
    // A caller that sends or reads nothing must not
    // keep its place, nor delay the end of the broker.
    caller.set_read_timeout(Some(REQUEST_TIME_MAX))?;
    caller.set_write_timeout(Some(WRITE_TIME_MAX))?;
    let mut request = String::new();
    // The only request is shorter; a longer line is not worth memory.
    BufReader::new(caller.take(64)).read_line(&mut request)?;
    if request.is_empty() {
        return Ok(0);
    }
    if request.trim_end() != REQUEST {
        let error = io::Error::new(
            io::ErrorKind::InvalidInput,
            "unknown request; only `export` is supported",
        );
        return Err(error.into());
    }
    // First, so that the snapshot has what was acknowledged before the request.
    if !flush() {
        let error = io::Error::new(io::ErrorKind::TimedOut, "the store cannot be written now");
        return Err(error.into());
    }
    let mut output = Interruptible { output: BufWriter::new(caller), callers };
    export(&store.snapshot()?, &mut output)
}

/// Stops writing when the broker ends.
struct Interruptible<'a> {
    output: BufWriter<&'a UnixStream>,
    callers: &'a Callers,
}

impl io::Write for Interruptible<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.callers.is_ending() {
            return Err(io::Error::new(io::ErrorKind::BrokenPipe, "the broker is shutting down"));
        }
        self.output.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

/// Why a running broker did not export its store.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExportError {
    #[error(
        "the broker that uses {path} does not answer at its control.sock: {source}; stop it first"
    )]
    NoAnswer { path: String, source: io::Error },
    #[error("the broker could not export its store: {0}")]
    Refused(String),
    #[error("the broker ended before the export was complete; try again")]
    Incomplete,
}

/// Asks the broker that uses a data directory to export its store, and writes that to `output`.
pub(super) fn export_by_broker(data_dir: &Path, output: &mut dyn io::Write) -> Result<(), Failure> {
    let no_answer = |source| ExportError::NoAnswer { path: data_dir.display().to_string(), source };
    let mut broker = UnixStream::connect(data_dir.join(SOCKET)).map_err(no_answer)?;
    broker.set_read_timeout(Some(FIRST_LINE_TIME_MAX)).map_err(no_answer)?;
    // A broker with too many callers says so and closes without reading the request.
    let asked = writeln!(broker, "{REQUEST}");
    let mut lines = BufReader::new(broker);
    let mut line = Vec::new();
    let mut count = 0_u64;
    loop {
        line.clear();
        if lines.read_until(b'\n', &mut line).map_err(no_answer)? == 0 {
            // Only now: the answer of a broker that refuses explains more than the failed write.
            asked.map_err(no_answer)?;
            return Err(ExportError::Incomplete.into());
        }
        match ending(&line) {
            None => output.write_all(&line)?,
            Some(end) if end["kind"] == "error" => {
                let why = end["message"].as_str().unwrap_or_default();
                return Err(ExportError::Refused(why.to_owned()).into());
            }
            // The number must fit, or a line was lost on the way.
            Some(end) if end["lines"] == count => {
                output.write_all(&line)?;
                return Ok(output.flush()?);
            }
            Some(_) => return Err(ExportError::Incomplete.into()),
        }
        count += 1;
    }
}

/// Returns the last line of an answer; the lines of an export are of other kinds.
fn ending(line: &[u8]) -> Option<Value> {
    // Most lines need not be parsed: keys are sorted, or `kind` comes first.
    if line.len() > 4_096 {
        return None;
    }
    let value: Value = serde_json::from_slice(line).ok()?;
    ["end", "error"].contains(&value["kind"].as_str()?).then_some(value)
}
