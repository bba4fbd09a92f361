//! The limit of open files: raised as far as the system allows, and divided among their uses.
//!
//! Every connection is a file. Without a plan a thousand idle sockets would take the files that the
//! store and the health calls need. Knows the configuration and the process; `net` and `http`
//! enforce the limits that it lowers.

use hearthmq::config::Config;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files of the process itself: standard streams, signals, the log, files that are read again.
const FILES_OF_PROCESS: u64 = 48;
/// Files of the store: its open tables, its journals, and the input and output of a compaction.
const FILES_OF_STORE: u64 = 160;
/// Files of one shard or HTTP worker: its reactor, and connections that are closing.
const FILES_OF_THREAD: u64 = 8;
/// HTTP gets this part of the files left for connections, but at least `HTTP_MIN` if that is at
/// most half of them.
const HTTP_PART: u64 = 8;
const HTTP_MIN: u64 = 64;
/// A tenth of the MQTT connections is for those before CONNACK, and as many again for those whose
/// password is being checked; but at least `CONNECTING_MIN` if a third of the files left is enough.
const CONNECTING_PART: u64 = 10;
const CONNECTING_MIN: u64 = 100;
/// With even fewer files nothing works; this many connections are tried nevertheless.
const CONNECTIONS_MIN: u64 = 16;
/// Used if the system reports no limit; there is always one in practice.
const FILES_UNLIMITED: u64 = 1 << 20;

/// Maximum number of connections of each kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Connections {
    /// MQTT connections that CONNACK has accepted.
    mqtt: u64,
    /// MQTT connections before CONNACK, in each of two rooms.
    connecting: u64,
    http: u64,
}

impl Connections {
    const fn sum(self) -> u64 {
        self.mqtt + 2 * self.connecting + self.http
    }
}

/// The warning to the operator where not all connections fit.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum TooFewFiles {
    /// The configuration does not set the number: the default is for a machine of any size.
    Usual(String),
    /// The configuration sets more connections than there can be.
    Configured(String),
}

impl TooFewFiles {
    /// Writes it into the log.
    pub(super) fn tell(&self) {
        match self {
            Self::Usual(line) => tracing::info!("{line}"),
            Self::Configured(line) => tracing::warn!("{line}"),
        }
    }
}

/// Raises the soft limit of open files to the hard one and lowers the bounds of `config` on
/// connections to what fits. Returns what to tell the operator if it had to.
pub(super) fn fit(config: &mut Config) -> Option<TooFewFiles> {
    let files = raise();
    let reserve = reserve(config);
    let wanted = wanted(config);
    let fitting = share(files, reserve, wanted)?;
    let told = tell(files, reserve + wanted.sum(), wanted, fitting);
    config.limits.connections_max = u32::try_from(fitting.mqtt).unwrap_or(u32::MAX);
    config.http.connections_max = u32::try_from(fitting.http).unwrap_or(u32::MAX);
    config.limits.connecting_max = u32::try_from(fitting.connecting).unwrap_or(u32::MAX);
    Some(told)
}

fn tell(files: u64, needed: u64, wanted: Connections, fitting: Connections) -> TooFewFiles {
    let default = self::wanted(&Config::default());
    let Connections { mqtt, http, .. } = fitting;
    // Nobody has asked for these limits, so a short line is enough.
    if wanted == default {
        return TooFewFiles::Usual(format!(
            "room for {mqtt} MQTT connections ({files} open files; LimitNOFILE={needed} or \
             ulimit -n {needed} makes room for {})",
            wanted.mqtt
        ));
    }
    TooFewFiles::Configured(format!(
        "room for {mqtt} MQTT and {http} HTTP connections, not for limits.connections_max = {} and \
         http.connections_max = {}: the process may open {files} files; allow {needed} \
         (LimitNOFILE=, --ulimit nofile=, ulimit -n), or lower them",
        wanted.mqtt, wanted.http
    ))
}

/// Raises the soft limit to the hard one; returns how many files the process may open from now on.
fn raise() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return current.unwrap_or(FILES_UNLIMITED);
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum.unwrap_or(FILES_UNLIMITED),
        Err(error) => {
            tracing::warn!(%error, "cannot raise the soft limit of open files");
            current.unwrap_or(FILES_UNLIMITED)
        }
    }
}

/// Returns the connections that the configuration asks for.
fn wanted(config: &Config) -> Connections {
    let (limits, http) = (&config.limits, config.http.connections_max);
    let (mqtt, connecting) = (limits.connections_max, limits.connecting_places());
    Connections { mqtt: mqtt.into(), connecting: connecting.into(), http: http.into() }
}

/// Returns the number of files reserved for other uses than connections.
fn reserve(config: &Config) -> u64 {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let shards = match config.shards {
        0 => cores(),
        shards => shards.into(),
    };
    let mqtt = &config.mqtt;
    let listeners = mqtt.tcp.len()
        + mqtt.tls.len()
        + mqtt.websocket.len()
        + mqtt.secure_websocket.len()
        + mqtt.unix.len();
    let http = config.http.listen.len() + config.http.https.len();
    let threads = shards + u64::from(config.http.workers);
    // Every shard accepts from a copy of each listener.
    // The original descriptor stays open beside the copies.
    let listening = listeners as u64 * (1 + shards) + http as u64 * 2;
    FILES_OF_PROCESS + FILES_OF_STORE + threads * FILES_OF_THREAD + listening
}

/// Returns the connections for which `files` are enough; `None` if all that are wanted fit.
fn share(files: u64, reserve: u64, wanted: Connections) -> Option<Connections> {
    if reserve + wanted.sum() <= files {
        return None;
    }
    let left = files.saturating_sub(reserve).max(files / 4).max(CONNECTIONS_MIN * 2);
    let http = (left / HTTP_PART).max(HTTP_MIN.min(left / 2)).min(wanted.http);
    let left = left - http;
    let part = left / (CONNECTING_PART + 2);
    let connecting = part.max(CONNECTING_MIN.min(left / 6)).min(wanted.connecting);
    let mqtt = (left - 2 * connecting).min(wanted.mqtt);
    Some(Connections { mqtt, connecting, http })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by_default() -> Connections {
        Connections { mqtt: 100_000, connecting: 10_000, http: 1_000 }
    }

    #[test]
    fn what_fits_stays_as_it_was_wanted() {
        assert_eq!(share(121_300, 300, by_default()), None);
        assert!(share(121_299, 300, by_default()).is_some());
    }

    #[test]
    fn what_is_given_out_is_never_more_than_there_is() {
        for files in 128..2_000 {
            for reserve in [0, 100, 300] {
                let Some(given) = share(files, reserve, by_default()) else { continue };
                let kept = reserve.min(files * 3 / 4);
                assert!(given.sum() + kept <= files, "{files} {reserve} {given:?}");
                assert!(given.mqtt >= CONNECTIONS_MIN / 2, "{files} {reserve} {given:?}");
                assert!(given.connecting >= 2 && given.http >= 16, "{files} {given:?}");
            }
        }
    }

    #[test]
    fn a_warning_is_for_those_who_have_asked_for_more_than_fits() {
        let default = wanted(&Config::default());
        let fitting = share(20_000, 300, default).unwrap();
        let TooFewFiles::Usual(line) = tell(20_000, 121_300, default, fitting) else {
            panic!("nobody has asked for it");
        };
        let expected = "room for 15584 MQTT connections (20000 open files; LimitNOFILE=121300 or \
                        ulimit -n 121300 makes room for 100000)";
        assert_eq!(line, expected);
        for asked in [
            Connections { mqtt: 90_000, ..default },
            Connections { http: 90_000, ..default },
            Connections { connecting: 90_000, ..default },
        ] {
            let fitting = share(20_000, 300, asked).unwrap();
            let told = tell(20_000, 121_300, asked, fitting);
            assert!(matches!(told, TooFewFiles::Configured(_)), "{told:?}");
        }
    }

    #[test]
    fn a_thousand_files_are_for_nearly_five_hundred_clients_and_for_http() {
        let given = share(1_024, 240, by_default()).unwrap();
        assert_eq!(given, Connections { mqtt: 486, connecting: 100, http: 98 });
    }

    #[test]
    fn few_clients_leave_the_others_their_places() {
        let wanted = Connections { mqtt: 50, connecting: 100, http: 10_000 };
        let given = share(1_024, 240, wanted).unwrap();
        assert_eq!((given.mqtt, given.connecting), (50, 100));
    }
}
