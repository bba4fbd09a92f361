//! The notifications of a service manager (`Type=notify` of systemd, sd_notify(3)): the broker is ready,
//! reads its configuration again, ends, and is alive.
//!
//! Sends nothing where `NOTIFY_SOCKET` is not set. Does not know why the broker starts or ends; `run`
//! calls it.

use std::{
    env, io,
    os::unix::net::{SocketAddr, UnixDatagram},
    process,
    time::Duration,
};

use actix_web::rt::time::sleep;
use futures_util::future::join_all;
use hearthmq::{Broker, actors::QueryOnline};

/// The broker says this many times per watchdog time that it is alive, so that one late answer of a
/// shard does not end it.
const SIGNS_PER_TIME: u32 = 4;

/// The connection to the service manager.
pub(super) struct Notifier {
    /// `None` without a service manager.
    socket: Option<UnixDatagram>,
    /// The time after which a service manager ends a broker that gives no sign of life.
    watchdog_time: Option<Duration>,
}

impl Notifier {
    /// Connects to the service manager that the environment names, if there is one.
    pub(super) fn from_environment() -> Self {
        let Some(name) = env::var_os("NOTIFY_SOCKET") else {
            return Self { socket: None, watchdog_time: None };
        };
        let socket = connect(name.as_encoded_bytes());
        if let Err(error) = &socket {
            let error = error.to_string();
            tracing::warn!(error, "the service manager cannot be told that the broker is ready");
        }
        // A child process inherits the variables, which are not meant for it.
        let for_this_process =
            env::var("WATCHDOG_PID").map_or(true, |pid| pid == process::id().to_string());
        let micros = env::var("WATCHDOG_USEC").ok().filter(|_| for_this_process);
        let watchdog_time =
            micros.and_then(|micros| micros.parse().ok()).map(Duration::from_micros);
        Self { socket: socket.ok(), watchdog_time: watchdog_time.filter(|time| !time.is_zero()) }
    }

    /// Tells that the broker serves clients: after its start, and after a reload.
    pub(super) fn ready(&self) {
        self.send("READY=1");
    }

    /// Tells that the broker reads its configuration again, until it is [`ready`](Self::ready).
    pub(super) fn reloading(&self) {
        self.send("RELOADING=1");
    }

    /// Tells that the broker has begun to end.
    pub(super) fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// Gives signs of life while every shard answers. Never returns, and does nothing where no watchdog
    /// asks for them.
    pub(super) async fn give_signs_of_life(&self, broker: &Broker) {
        let Some(time) = self.watchdog_time.filter(|_| self.socket.is_some()) else {
            return std::future::pending().await;
        };
        // Several signs within the time, so that one late answer does not end the broker.
        let pause = time / SIGNS_PER_TIME;
        let ids = one_client_of_each_shard(broker);
        let mut was_alive = true;
        loop {
            let is_alive = every_shard_answers(broker, &ids, pause).await;
            if is_alive {
                self.send("WATCHDOG=1");
            } else if was_alive {
                // Logged once; the watchdog acts if it lasts.
                tracing::error!(
                    "a shard does not answer; the watchdog ends a broker that stays so"
                );
            }
            was_alive = is_alive;
            sleep(pause).await;
        }
    }

    fn send(&self, state: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(state.as_bytes())
        {
            let error = error.to_string();
            tracing::warn!(error, state, "the service manager was not told");
        }
    }
}

fn connect(name: &[u8]) -> io::Result<UnixDatagram> {
    let address = match name.strip_prefix(b"@") {
        Some(name) => abstract_address(name)?,
        None => SocketAddr::from_pathname(str::from_utf8(name).map_err(io::Error::other)?)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?; // a service manager that does not read holds nothing up
    socket.connect_addr(&address)?;
    Ok(socket)
}

#[cfg(target_os = "linux")]
fn abstract_address(name: &[u8]) -> io::Result<SocketAddr> {
    use std::os::linux::net::SocketAddrExt as _;
    SocketAddr::from_abstract_name(name)
}

#[cfg(not(target_os = "linux"))]
fn abstract_address(_name: &[u8]) -> io::Result<SocketAddr> {
    Err(io::Error::other("there are no abstract sockets on this system"))
}

/// Returns client identifiers so that each shard is asked about one of them.
fn one_client_of_each_shard(broker: &Broker) -> Vec<String> {
    let (mut ids, mut registries) = (Vec::new(), Vec::new());
    for id in (0_u64..).map(|n| n.to_string()) {
        let registry = broker.registry(&id);
        if !registries.contains(&registry) {
            registries.push(registry);
            ids.push(id);
        }
        if ids.len() == broker.node().shards {
            break;
        }
    }
    ids
}

/// Asks past the limit of [`Broker::online`]: a broker that has much to do is alive.
async fn every_shard_answers(broker: &Broker, ids: &[String], time_max: Duration) -> bool {
    let answers = ids.iter().map(|id| {
        let question = QueryOnline::new(id.as_str());
        broker.registry(id).send(question).timeout(time_max)
    });
    join_all(answers).await.iter().all(Result::is_ok)
}
