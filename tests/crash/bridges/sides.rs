//! The two brokers of a round: HearthMQ with the bridge, and the other one, which is HearthMQ or
//! Mosquitto.
//!
//! Knows how they are started and ended, not what their clients do.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
};

use hearthmq_test::free_address;

use super::{
    ledger::{Direction, prefix},
    link::Link,
    players::{Door, LOOK_EVERY},
};
use crate::program::{PASSWORD, Place, Program};

/// Complaints that are kept of one run of a broker.
const COMPLAINTS_MAX: usize = 5;

const MOSQUITTO: &str = "/usr/sbin/mosquitto";

/// The other broker of a bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    HearthMq,
    Mosquitto,
}

impl Kind {
    pub(super) fn is_installed(self) -> bool {
        self == Self::HearthMq || Path::new(MOSQUITTO).exists()
    }
}

/// Returns a place whose queues have room for everything that a round sends.
fn place() -> Place {
    Place::new()
        .set("limits.queue_messages_per_client_max=1000000")
        .set("limits.queue_bytes_per_client_max=20000000000")
        .set("limits.queue_bytes_max=20000000000")
        .set("limits.stored_messages_per_user_max=1000000000")
        .set("limits.stored_bytes_per_user_max=20000000000")
}

/// HearthMQ, and where its clients find it.
pub(super) struct HearthMq {
    place: Place,
    program: Option<Program>,
    pub(super) door: Arc<Door>,
    /// Complaints of its logs.
    log: Vec<String>,
}

impl HearthMq {
    fn new() -> Self {
        Self { place: place(), program: None, door: Arc::default(), log: Vec::new() }
    }

    /// Starts it; returns its address.
    pub(super) fn start(&mut self) -> SocketAddr {
        let program = self.place.start();
        let address = program.address("mqtt");
        self.program = Some(program);
        self.door.open(address);
        address
    }

    fn program(&self) -> &Program {
        self.program.as_ref().expect("it was started")
    }

    /// Returns whether its bridge is connected and has its subscriptions at the other broker.
    pub(super) fn is_bridge_up(&self) -> bool {
        let answer = self.program().call("GET /api/v1/bridges/far");
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body.contains(r#""state":"connected""#)
    }

    /// Returns the complaints of its logs, the last ones last.
    pub(super) fn log(&self) -> Vec<String> {
        let now = self.program.as_ref().map(Program::logged).unwrap_or_default();
        self.log.iter().cloned().chain(now.into_iter().filter(|line| is_complaint(line))).collect()
    }

    /// Kills it as a power failure does.
    pub(super) fn kill(&mut self) {
        self.door.close();
        let Some(mut program) = self.program.take() else { return };
        let log = program.killed();
        self.log.extend(
            log.lines().map(str::to_owned).filter(|line| is_complaint(line)).take(COMPLAINTS_MAX),
        );
    }
}

fn is_complaint(line: &str) -> bool {
    line.contains("ERROR") || line.contains("WARN")
}

/// Returns the broker with a bridge to this address.
pub(super) fn near(link: &Link, kind: Kind) -> HearthMq {
    let near = HearthMq::new();
    let secret = near.place.path("secret");
    fs::write(&secret, PASSWORD).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let path = near.place.path("hearthmq.toml");
    let mut config = fs::read_to_string(&path).unwrap();
    let protocol = if kind == Kind::HearthMq { "5" } else { "3.1.1" };
    config += &format!(
        r#"
[[bridges]]
name = "far"
addresses = ["mqtt://{address}"]
protocol = "{protocol}"
username = "ops"
password_file = "{secret}"
keep_alive_secs = 5
connect_timeout_secs = 5
reconnect_secs_max = 1

[[bridges.topics]]
filter = "{out}/#"
direction = "out"
qos = 2
remote_prefix = "{behind_out}/"

[[bridges.topics]]
filter = "{into}/#"
direction = "in"
qos = 2
local_prefix = "{behind_in}/"
"#,
        address = link.address,
        secret = secret.display(),
        out = Direction::Out.level(),
        into = Direction::In.level(),
        behind_out = prefix(Direction::Out),
        behind_in = prefix(Direction::In),
    );
    fs::write(path, config).unwrap();
    near
}

/// The other broker.
pub(super) enum Far {
    HearthMq(Box<HearthMq>),
    Mosquitto { process: Child, address: SocketAddr, door: Arc<Door>, _place: tempfile::TempDir },
}

impl Far {
    pub(super) fn new(kind: Kind) -> Self {
        match kind {
            Kind::HearthMq => Self::HearthMq(Box::new(HearthMq::new())),
            Kind::Mosquitto => mosquitto(),
        }
    }

    pub(super) fn door(&self) -> &Arc<Door> {
        match self {
            Self::HearthMq(broker) => &broker.door,
            Self::Mosquitto { door, .. } => door,
        }
    }

    /// Starts it, unless it is Mosquitto, which runs; returns its address.
    pub(super) fn start(&mut self) -> SocketAddr {
        match self {
            Self::HearthMq(broker) => broker.start(),
            Self::Mosquitto { address, .. } => *address,
        }
    }

    /// Returns the address of the one that runs.
    pub(super) fn address(&self) -> SocketAddr {
        match self {
            Self::HearthMq(broker) => broker.program().address("mqtt"),
            Self::Mosquitto { address, .. } => *address,
        }
    }

    /// Kills it. Mosquitto lives on: it stores messages now and then only.
    pub(super) fn kill(&mut self) {
        if let Self::HearthMq(broker) = self {
            broker.kill();
        }
    }

    /// Returns the complaints of its logs.
    pub(super) fn log(&self) -> Vec<String> {
        match self {
            Self::HearthMq(broker) => broker.log(),
            Self::Mosquitto { .. } => Vec::new(),
        }
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        if let Self::Mosquitto { process, .. } = self {
            drop(process.kill());
            drop(process.wait());
        }
    }
}

/// Starts Mosquitto with queues that hold everything.
fn mosquitto() -> Far {
    let place = tempfile::tempdir().unwrap();
    let address = free_address();
    let config = format!(
        "listener {} {}\nallow_anonymous true\npersistence true\npersistence_location {}/\n\
         max_queued_messages 0\nmax_inflight_messages 20\n",
        address.port(),
        address.ip(),
        place.path().display(),
    );
    let path = place.path().join("mosquitto.conf");
    fs::write(&path, config).unwrap();
    // Mosquitto gives up its rights if it is started by the superuser.
    for (path, mode) in [(place.path(), 0o777), (&path, 0o644)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let mut command = Command::new(MOSQUITTO);
    command.arg("-c").arg(&path).stdout(Stdio::null()).stderr(Stdio::null());
    let mut process = command.spawn().unwrap();
    while TcpStream::connect(address).is_err() {
        assert_eq!(process.try_wait().unwrap(), None, "Mosquitto does not start");
        thread::sleep(LOOK_EVERY);
    }
    let door = Arc::<Door>::default();
    door.open(address);
    Far::Mosquitto { process, address, door, _place: place }
}
