//! Starts, stops and shows the bridges of a broker, and gives their sessions their connections.

mod control;

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use actix_rt::{Arbiter, ArbiterHandle, spawn};
use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use tokio::{
    io::{DuplexStream, duplex},
    sync::{Mutex, oneshot, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{Broker, Running, StartError, settings::lock, shards::Threads};
use crate::{
    bridge::{
        BRIDGE_METHOD, BRIDGES_MAX, Bridge, BridgeConnect, BridgeError, BridgeParts, BridgeState,
        BridgeTask, Dial, Granted, LocalLimits, LocalSide, NetworkDial, OwnSubscription,
        WantedOfBridge,
    },
    control::{KickOptions, ListSubscriptions},
    metrics::BridgeMetrics,
    mqtt::{ProtocolVersion, SubscriptionOptions, Timestamp},
    records::{Put, RecordKey, Records as _},
    session::NEVER_EXPIRES,
    shard::{
        bridges::BridgeQueue,
        connect::{AcceptedConnect, OfBridge, TakeClient},
    },
};

/// The namespace of the records: one for each bridge that a call has started or stopped, and
/// [`ID_KEY`].
pub(super) const NAMESPACE: &str = "bridges";
/// The key of the identifier of this broker. No bridge has such a name.
const ID_KEY: &str = "$id";
/// The name of these sessions' listener in the log and in rules.
const LISTENER: &str = "bridge";
/// Bytes of the stream between a bridge and its session, in each direction.
const STREAM_BYTES: usize = 64 * 1024;
/// How long a change waits for a bridge to end.
const END_TIME_MAX: Duration = Duration::from_secs(10);
/// Subscriptions that are read at a time.
const SUBSCRIPTIONS_AT_A_TIME: usize = 256;
/// The address of a session whose other broker has none, or is not reached yet.
const NO_PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// Opens the streams of bridges in a test.
pub(super) type TestDial = Arc<dyn Dial>;

/// The bridges of a broker.
pub(super) struct Bridges {
    pub(super) granted: Arc<Granted>,
    /// In the order of their names. Locked while it is changed.
    pub(super) running: Mutex<Vec<RunningBridge>>,
    host: OnceLock<Option<ArbiterHandle>>,
    test_dial: Option<TestDial>,
}

/// A bridge that runs.
pub(super) struct RunningBridge {
    pub(super) bridge: Bridge,
    pub(super) state: Arc<BridgeState>,
    pub(super) metrics: Arc<BridgeMetrics>,
    pub(super) wanted: watch::Sender<WantedOfBridge>,
    stop: CancellationToken,
    ended: oneshot::Receiver<()>,
}

impl Bridges {
    pub(super) fn new(granted: Arc<Granted>, test_dial: Option<TestDial>) -> Self {
        Self { granted, running: Mutex::default(), host: OnceLock::new(), test_dial }
    }

    fn dial(&self, bridge: &Bridge) -> Result<Arc<dyn Dial>, BridgeError> {
        match &self.test_dial {
            Some(dial) => Ok(Arc::clone(dial)),
            None => Ok(Arc::new(NetworkDial::new(bridge)?)),
        }
    }
}

/// Fails if two bridges have the same name, or there are too many.
///
/// # Errors
/// [`BridgeError::Repeated`] or [`BridgeError::TooMany`].
pub(super) fn check(bridges: &[Bridge]) -> Result<(), BridgeError> {
    if bridges.len() > BRIDGES_MAX {
        return Err(BridgeError::TooMany);
    }
    let mut names: Vec<_> = bridges.iter().map(Bridge::name).collect();
    names.sort_unstable();
    let repeated = names.windows(2).find(|pair| pair[0] == pair[1]);
    repeated.map_or(Ok(()), |pair| Err(BridgeError::Repeated(pair[0].to_owned())))
}

impl Broker {
    /// Replaces the bridges. One that is the same goes on undisturbed; one that has changed connects
    /// again, with its session and all that waits in it; the session of one that is missing ends.
    ///
    /// # Errors
    /// Two bridges have the same name, there are too many, or TLS of one cannot be set up. Then nothing
    /// has changed.
    pub async fn set_bridges(&self, bridges: Vec<Bridge>) -> Result<(), BridgeError> {
        // All errors come before the first change, so that a failure leaves everything as it was.
        check(&bridges)?;
        let own = &self.running.bridges;
        // Held to the end: two changes at the same time could start a bridge twice.
        let mut running = own.running.lock().await;
        // A broker without bridges needs no identifier, and writes none.
        if bridges.is_empty() && running.is_empty() {
            return Ok(());
        }
        let is_same = |one: &RunningBridge| bridges.contains(&one.bridge);
        let begins = |bridge: &&Bridge| !running.iter().any(|one| one.bridge == **bridge);
        let mut beginning = Vec::new();
        for bridge in bridges.iter().filter(begins) {
            beginning.push((bridge.clone(), own.dial(bridge)?));
        }
        self.set_broker_id().await;
        // Former ones end before new ones start, because both
        // would connect with the same client identifier.
        let (going_on, ending): (Vec<_>, Vec<_>) = running.drain(..).partition(is_same);
        *running = going_on;
        let mut former = HashMap::new();
        for one in ending {
            one.stop.cancel();
            // Bounded: the other broker may not answer, and the change must not hang on it.
            let _ = timeout(END_TIME_MAX, one.ended).await;
            former.insert(one.bridge.name().to_owned(), (one.bridge, one.metrics));
        }
        // Before the bridges start, so that their first subscription is allowed.
        self.grant(&bridges);
        // The session of a bridge without configuration would collect messages that nobody reads.
        for (name, (bridge, _)) in &former {
            if !bridges.iter().any(|other| other.name() == name) {
                // It may have none.
                let end = KickOptions::new().end_session();
                let _ = self.kick(&bridge.local_client_id(), end).await;
                self.running.core.system.set_value(&state_topic(bridge), None);
            }
        }
        for (bridge, dial) in beginning {
            let before = former.remove(bridge.name());
            running.push(self.start_bridge(bridge, dial, before).await);
        }
        // Callers see the bridges in the order of their names, whatever was restarted.
        running.sort_by(|one, other| one.bridge.name().cmp(other.bridge.name()));
        let metrics = running.iter().map(|one| Arc::clone(&one.metrics)).collect();
        self.running.core.metrics.set_bridges(metrics);
        Ok(())
    }

    /// Starts the bridges, before any client can connect: so their sessions miss nothing. They share a
    /// thread of their own, unless the shards run on the current one.
    pub(super) async fn start_bridges(
        &self,
        bridges: Vec<Bridge>,
        threads: &Threads,
    ) -> Result<(), StartError> {
        if !matches!(threads, Threads::Own) {
            let _ = self.running.bridges.host.set(None);
        }
        Ok(self.set_bridges(bridges).await?)
    }

    /// Lets the sessions of these bridges do what they are configured for, and no others.
    fn grant(&self, bridges: &[Bridge]) {
        let core = &self.running.core;
        self.running.bridges.granted.set(bridges);
        let queues = bridges.iter().map(|bridge| {
            let options = bridge.options_now();
            let queue = BridgeQueue {
                username: bridge.identity().username.unwrap_or_default(),
                messages_max: options.queue_messages_max,
                bytes_max: options.queue_bytes_max,
            };
            (bridge.local_client_id().into(), queue)
        });
        core.bridge_queues.set(queues.collect());
        core.refresh_owners();
    }

    async fn start_bridge(
        &self,
        bridge: Bridge,
        dial: Arc<dyn Dial>,
        before: Option<(Bridge, Arc<BridgeMetrics>)>,
    ) -> RunningBridge {
        let core = &self.running.core;
        // A call that stopped or started the bridge counts more than its configuration.
        let enabled = self.stored_enabled(bridge.name()).await;
        let enabled = enabled.unwrap_or_else(|| bridge.options_now().enabled);
        let (wanted, is_wanted) = watch::channel(WantedOfBridge { enabled, reconnects: 0 });
        let state = Arc::new(BridgeState::default());
        // Counters of a replaced bridge go on, because they never fall.
        let metrics = before.as_ref().map(|(_, metrics)| Arc::clone(metrics));
        let metrics = metrics.unwrap_or_else(|| Arc::new(BridgeMetrics::new(bridge.name().into())));
        let stop = CancellationToken::new();
        let parts = BridgeParts {
            local: Arc::new(HomeOfBridge(Arc::downgrade(&self.running))),
            dial,
            broker: core.broker_id.get().cloned().unwrap_or_default(),
            node: Arc::clone(&core.node),
            state: Arc::clone(&state),
            metrics: Arc::clone(&metrics),
            wanted: is_wanted,
            stop: stop.clone(),
            ending: core.ending.clone(),
            former: before.map(|(before, _)| before.in_topics_beyond(&bridge)).unwrap_or_default(),
        };
        // Set before the task runs, so that a subscriber never finds the state of a former bridge.
        core.system.set_value(&state_topic(&bridge), Some("0"));
        // Before the other broker is reached, so that messages wait for it from now on.
        let mut task = BridgeTask::new(bridge.clone(), parts);
        if let Err(fault) = task.prime().await {
            let why = &*fault.message;
            tracing::warn!(bridge = bridge.name(), why, "a bridge has no session yet");
        }
        // The end of the broker waits for the token.
        let (ends, ended) = oneshot::channel();
        let token = self.running.open.token();
        let run = move || {
            drop(spawn(async move {
                task.run().await;
                drop(token);
                let _ = ends.send(()); // the change that waits for it may have given up
            }));
        };
        // On the thread of the bridges, so that a fast one does not take the time of a shard.
        match self.host_of_bridges() {
            Some(host) => drop(host.spawn_fn(run)),
            None => run(),
        }
        RunningBridge { bridge, state, metrics, wanted, stop, ended }
    }

    /// Returns the thread of the bridges; `None` for the current one.
    fn host_of_bridges(&self) -> Option<ArbiterHandle> {
        let host = self.running.bridges.host.get_or_init(|| {
            let arbiter = Arbiter::new();
            let handle = arbiter.handle();
            lock(&self.running.arbiters).push(arbiter);
            Some(handle)
        });
        host.clone()
    }

    /// Gives this broker its identifier among bridges: the stored one, or a new one.
    async fn set_broker_id(&self) {
        let core = &self.running.core;
        if core.broker_id.get().is_some() {
            return;
        }
        let Some(name) = RecordKey::new(NAMESPACE, ID_KEY) else { return };
        // Stable over restarts, because messages that still wait elsewhere are marked with it.
        let stored = core.records.get(&name).await.ok().flatten();
        let stored = stored.and_then(|record| String::from_utf8(record.value.to_vec()).ok());
        let id = match stored {
            Some(id) => id,
            None => {
                let mut random = [0; 9];
                getrandom::fill(&mut random).expect("the operating system has random bytes");
                let id = URL_SAFE_NO_PAD.encode(random);
                // A bridge works without it being stored, so this is no reason not to start.
                if let Err(error) = core.records.put(Put::new(name, id.clone())).await {
                    tracing::warn!(%error, "this broker has another identifier after a restart");
                }
                id
            }
        };
        let _ = core.broker_id.set(id.into());
    }

    /// Returns whether a call has started or stopped a bridge; `None` if none has.
    pub(super) async fn stored_enabled(&self, bridge: &str) -> Option<bool> {
        let name = RecordKey::new(NAMESPACE, bridge)?;
        let record = self.running.core.records.get(&name).await.ok()??;
        Some(&*record.value == b"enabled")
    }
}

/// Returns the name of the topic below `$SYS/broker/` that tells whether a bridge is connected.
fn state_topic(bridge: &Bridge) -> String {
    format!("connection/{}/state", bridge.name())
}

/// The broker of a bridge, which this does not keep running.
struct HomeOfBridge(Weak<Running>);

#[async_trait]
impl LocalSide for HomeOfBridge {
    fn connect(&self, bridge: &Bridge, options: BridgeConnect) -> Option<DuplexStream> {
        // `None` once the broker has ended; the task then stops.
        let running = self.0.upgrade()?;
        let core = &running.core;
        let client_id: Arc<str> = bridge.local_client_id().into();
        let door = core.arrivals(core.home(&client_id))?;
        let (here, there) = duplex(STREAM_BYTES);
        let connect = AcceptedConnect {
            owned: None,
            client_id,
            is_assigned: false,
            version: ProtocolVersion::V5,
            is_bridge: false,
            // The session has the messages that wait for the other broker, so it always continues.
            clean_start: false,
            // The stream cannot break without notice, so a Keep Alive would only cost work.
            keep_alive_secs: 0,
            will: None,
            session_expiry_secs: Some(NEVER_EXPIRES),
            settings: None,
            receive_maximum: options.receive_maximum,
            maximum_packet_size: u32::MAX,
            // Aliases would have to be translated to those of the other broker.
            topic_alias_maximum: 0,
            problem_information: false,
            wants_response_information: false,
            identity: bridge.identity(),
            proven: core.proves_now(Some(BRIDGE_METHOD.into())),
            has_certificate: false,
            certificate: None,
            enhanced: None,
            of_bridge: Some(OfBridge { forgets_incoming: options.forgets_incoming }),
            wants_broker_id: false,
            peer: options.peer.unwrap_or(NO_PEER),
            listener: LISTENER.into(),
        };
        let permit = Box::new(running.open.token());
        door.bring(TakeClient {
            transport: Box::new(there),
            read_ahead: Vec::new(),
            connect,
            permit,
        });
        Some(here)
    }

    fn limits(&self) -> LocalLimits {
        let limits = self.0.upgrade().map(|running| running.core.limits_now().clone());
        let limits = limits.unwrap_or_default();
        LocalLimits {
            packet_bytes_max: limits.packet_bytes_max,
            in_flight_max: limits.in_flight_max,
            receive_maximum: limits.receive_maximum,
        }
    }

    fn allows_topic(&self, topic: &str) -> bool {
        self.0.upgrade().is_some_and(|running| running.core.allows_topic(topic))
    }

    fn now(&self) -> Timestamp {
        self.0.upgrade().map_or(Timestamp(0), |running| running.core.clock.now())
    }

    async fn subscriptions(&self, bridge: &Bridge) -> Option<Vec<OwnSubscription>> {
        let broker = Broker { running: self.0.upgrade()? };
        let mut found = Vec::new();
        let mut question =
            ListSubscriptions::new(bridge.local_client_id(), SUBSCRIPTIONS_AT_A_TIME);
        loop {
            // In pages, so that a session with many subscriptions does not hold its shard.
            let page = broker.list_subscriptions(question.clone()).await.ok()??;
            found.extend(page.subscriptions.into_iter().map(|view| OwnSubscription {
                filter: view.filter.to_string(),
                qos: view.qos,
                options: SubscriptionOptions {
                    qos: view.qos,
                    no_local: view.no_local,
                    retain_as_published: view.retain_as_published,
                    retain_handling: view.retain_handling,
                },
            }));
            match page.next {
                Some(next) => question = question.after(next),
                None => return Some(found),
            }
        }
    }

    async fn queued(&self, bridge: &Bridge) -> Option<u64> {
        let broker = Broker { running: self.0.upgrade()? };
        let session = broker.client(&bridge.local_client_id()).await.ok()??;
        Some(session.queued as u64)
    }

    fn show(&self, bridge: &Bridge, is_connected: bool) {
        if let Some(running) = self.0.upgrade() {
            let value = if is_connected { "1" } else { "0" };
            running.core.system.set_value(&state_topic(bridge), Some(value));
        }
    }
}
