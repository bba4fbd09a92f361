//! The life of a bridge: it connects, passes packets on, and waits between attempts.
//!
//! ```text
//!            ┌────────── started ──────────┐
//!            ▼                             │
//!       connecting ──▶ connected ──▶ waiting, stopped
//!            └───────── fault ─────────────▲
//! ```

use std::{net::SocketAddr, sync::Arc, time::Duration};

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use tokio::{
    select,
    sync::watch,
    time::{Instant, interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    address::BridgeAddress,
    begin::{ConnectionBegin, connect_session},
    connect::{BridgeGreeting, BridgeIntroduction, NoGreeting},
    dial::{BridgeStream, Dial},
    fault::{BridgeTrouble, TroubleKind},
    marks::Marks,
    options::Bridge,
    prime::{LOCAL_TIME_MAX, prime},
    pump::{Pump, PumpStopped},
    routes::Routes,
    side::{BridgeConnect, LocalSide},
    state::BridgeState,
    translate::{BridgeMemory, BridgeNote, LocalSideLimits, Translator},
};
use crate::{control::BridgePhase, metrics::BridgeMetrics, told};

/// A connection that has lasted this long was a good one: the next attempt comes soon.
const GOOD_AFTER: Duration = Duration::from_secs(10);
/// The minimum time between two log lines about one bridge that fails, and about its dropped messages.
const TOLD_AGAIN_AFTER: Duration = Duration::from_secs(60);
/// How long a connected bridge waits for its session to end when the broker ends.
const ENDING_TIME_MAX: Duration = Duration::from_secs(3);
/// How often the number of waiting messages is read for the metrics.
const QUEUED_EVERY: Duration = Duration::from_secs(5);

/// The state that callers request of a bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WantedOfBridge {
    pub(crate) enabled: bool,
    /// Grows with each request to connect again.
    pub(crate) reconnects: u64,
}

/// The parts of its broker that a bridge needs.
pub(crate) struct BridgeParts {
    pub(crate) local: Arc<dyn LocalSide>,
    pub(crate) dial: Arc<dyn Dial>,
    /// The identifier of this broker in marks.
    pub(crate) broker: Arc<str>,
    /// The name of this node.
    pub(crate) node: Arc<str>,
    pub(crate) state: Arc<BridgeState>,
    pub(crate) metrics: Arc<BridgeMetrics>,
    pub(crate) wanted: watch::Receiver<WantedOfBridge>,
    /// Cancelled when the bridge is removed or replaced.
    pub(crate) stop: CancellationToken,
    /// Cancelled when the broker begins to end.
    pub(crate) ending: CancellationToken,
    /// In topics of a former configuration, from which the bridge unsubscribes.
    pub(crate) former: Vec<String>,
}

/// A bridge that runs.
pub(crate) struct BridgeTask {
    bridge: Bridge,
    client_id: String,
    routes: Arc<Routes>,
    parts: BridgeParts,
    memory: BridgeMemory,
    /// Out topics whose retained messages the other broker may not have got in full.
    fresh: Vec<String>,
    /// Whether the session has its subscriptions.
    is_primed: bool,
    /// Whether the other broker refuses the bit of bridges.
    refuses_bit: bool,
    /// The address with which the next attempt begins, with `round_robin`.
    next_address: usize,
    waits: Option<ExponentialBackoff>,
    told_at: Option<Instant>,
    told_dropped_at: Option<Instant>,
}

/// How an attempt ended.
enum BridgeAttempt {
    /// A caller or the end of the broker has ended it.
    Asked,
    /// It failed, or a connection ended that had lasted this long.
    Failed(BridgeTrouble, Duration),
}

impl BridgeTask {
    pub(crate) fn new(bridge: Bridge, parts: BridgeParts) -> Self {
        // Stable over restarts, so that the other broker finds the session of the bridge again.
        let client_id = match &*bridge.options.client_id {
            "" => format!("{}-{}", parts.node, bridge.name),
            client_id => client_id.to_owned(),
        };
        Self {
            routes: Arc::new(Routes::new(&bridge.topics)),
            bridge,
            client_id,
            parts,
            memory: BridgeMemory::default(),
            fresh: Vec::new(),
            is_primed: false,
            refuses_bit: false,
            next_address: 0,
            waits: None,
            told_at: None,
            told_dropped_at: None,
        }
    }

    /// Gives the session its subscriptions. If that fails, each attempt tries it again.
    pub(crate) async fn prime(&mut self) -> Result<(), BridgeTrouble> {
        if self.is_primed {
            return Ok(());
        }
        let primed = prime(&self.bridge, &self.routes, &*self.parts.local).await?;
        if primed.is_new {
            self.memory.session_is_new();
        }
        self.fresh = primed.fresh;
        self.is_primed = true;
        Ok(())
    }

    /// Runs until the bridge is removed or the broker ends.
    pub(crate) async fn run(mut self) {
        let (local, bridge) = (Arc::clone(&self.parts.local), self.bridge.clone());
        let metrics = Arc::clone(&self.parts.metrics);
        // Beside the connection, because the queue also grows while there is none.
        let watch_queue = async move {
            let mut ticks = interval(QUEUED_EVERY);
            loop {
                ticks.tick().await;
                if let Some(queued) = local.queued(&bridge).await {
                    metrics.queued.set(queued);
                }
            }
        };
        select! {
            () = self.live() => {}
            () = watch_queue => {}
        }
    }

    async fn live(&mut self) {
        while !self.is_over() {
            // Marked as seen before it is acted on, so that a change in between is not lost.
            let wanted = *self.parts.wanted.borrow_and_update();
            self.parts.metrics.enabled.set(u64::from(wanted.enabled));
            if !wanted.enabled {
                // A bridge that is started again tries at once.
                self.waits = None;
                self.enter(BridgePhase::Stopped);
                self.until_asked().await;
                continue;
            }
            match self.attempt().await {
                BridgeAttempt::Asked => self.waits = None,
                BridgeAttempt::Failed(fault, lasted) => {
                    self.note(&fault);
                    // A connection that lasted shows that the fault is a new one.
                    if lasted >= GOOD_AFTER {
                        self.waits = None;
                    }
                    self.wait().await;
                }
            }
        }
        self.enter(BridgePhase::Stopped);
    }

    fn is_over(&self) -> bool {
        self.parts.stop.is_cancelled()
            || self.parts.ending.is_cancelled()
            || self.parts.wanted.has_changed().is_err()
    }

    /// Waits until a caller wants something else, or the bridge or the broker ends.
    async fn until_asked(&self) {
        let mut wanted = self.parts.wanted.clone();
        select! {
            _ = wanted.changed() => {} // an error says that the broker is gone
            () = self.parts.stop.cancelled() => {}
            () = self.parts.ending.cancelled() => {}
        }
    }

    async fn wait(&mut self) {
        let options = &self.bridge.options;
        // With jitter, so that many bridges do not return to a restarted broker at the same moment.
        let waits = self.waits.get_or_insert_with(|| {
            ExponentialBuilder::new()
                .with_min_delay(options.reconnect_min)
                .with_max_delay(options.reconnect_max.max(options.reconnect_min))
                .without_max_times()
                .with_jitter()
                .build()
        });
        let next = waits.next().unwrap_or(options.reconnect_max);
        self.enter(BridgePhase::Waiting);
        let now = self.parts.local.now();
        self.parts.state.waits_until(now.plus_millis(next.as_millis() as u64));
        // A change of the configuration, or the end of the broker, ends the wait.
        select! {
            () = sleep(next) => {}
            () = self.until_asked() => {}
        }
    }

    fn enter(&self, phase: BridgePhase) {
        self.parts.state.enter(phase, self.parts.local.now());
    }

    /// Connects, and passes packets on until the connection ends.
    async fn attempt(&mut self) -> BridgeAttempt {
        self.enter(BridgePhase::Connecting);
        // Made before the attempt, so that a stop during it is seen.
        let halted = self.halted_after_start();
        let began = async {
            // The session gets its subscriptions first: messages wait in it while the other broker is away.
            self.prime().await?;
            self.reach().await
        };
        // Boxed, because the futures of TLS are large.
        let began = Box::pin(began);
        let reached = select! {
            biased;
            () = halted => return BridgeAttempt::Asked,
            reached = began => reached,
        };
        match reached {
            Ok(reached) => self.pass_on(reached).await,
            Err(fault) => BridgeAttempt::Failed(fault, Duration::ZERO),
        }
    }

    /// Returns a future that is ready when a caller wants something else, or the bridge or the broker ends.
    fn halted_after_start(&self) -> impl Future<Output = ()> + use<> {
        let (mut wanted, stop, ending) =
            (self.parts.wanted.clone(), self.parts.stop.clone(), self.parts.ending.clone());
        async move {
            select! {
                _ = wanted.changed() => {}
                () = stop.cancelled() => {}
                () = ending.cancelled() => {}
            }
        }
    }

    /// Tries each address once; returns the first connection that is accepted.
    async fn reach(&mut self) -> Result<ReachedBroker, BridgeTrouble> {
        let addresses = self.bridge.addresses.clone();
        // Without round robin, the first address is preferred after each fault.
        let first = if self.bridge.options.round_robin { self.next_address } else { 0 };
        let mut last = None;
        for at in (0..addresses.len()).map(|number| (first + number) % addresses.len()) {
            let address = &addresses[at];
            let shown = address.to_string();
            self.parts.state.set_address(&shown);
            // The next attempt begins behind this address, whether it succeeds or not.
            self.next_address = (at + 1) % addresses.len();
            match self.reach_one(address).await {
                Ok((stream, greeting, peer)) => {
                    return Ok(ReachedBroker { stream, greeting, peer, address: shown });
                }
                Err(fault) => last = Some(BridgeTrouble { message: name(&fault, &shown), ..fault }),
            }
        }
        Err(last
            .unwrap_or_else(|| BridgeTrouble::new(TroubleKind::Unreachable, "there is no address")))
    }

    async fn reach_one(
        &mut self,
        address: &BridgeAddress,
    ) -> Result<AcceptedStream, BridgeTrouble> {
        let time_max = self.bridge.options.connect_timeout;
        let late = || BridgeTrouble::new(TroubleKind::Timeout, "no CONNACK came in time");
        let is_v5 = self.bridge.options.version.has_properties();
        // MQTT 5.0 has No Local, and needs no bit.
        let first = timeout(time_max, self.shake_hands(address, !is_v5 && !self.refuses_bit));
        let refused = match first.await.map_err(|_| late())? {
            Ok(accepted) => return Ok(accepted),
            Err(refused) => refused,
        };
        // A broker that refuses the bit gets a second CONNECT without it.
        if !refused.may_be_of_bit {
            return Err(refused.fault);
        }
        let second = timeout(time_max, self.shake_hands(address, false));
        let accepted = second.await.map_err(|_| late())?.map_err(|refused| refused.fault)?;
        // Remembered only if it works without: the refusal may have had another reason.
        self.refuses_bit = true;
        Ok(accepted)
    }

    async fn shake_hands(
        &self,
        address: &BridgeAddress,
        has_bit: bool,
    ) -> Result<AcceptedStream, NoGreeting> {
        let (mut stream, peer) = self.parts.dial.dial(address).await?;
        let introduction = BridgeIntroduction {
            bridge: &self.bridge,
            client_id: &self.client_id,
            limits: self.parts.local.limits(),
            broker: &self.parts.broker,
            has_bit,
        };
        let greeting = introduction.greet(&mut *stream).await?;
        Ok((stream, greeting, peer))
    }

    /// Gives the session the connection, and passes packets on.
    async fn pass_on(&mut self, reached: ReachedBroker) -> BridgeAttempt {
        let ReachedBroker { stream, greeting, peer, address } = reached;
        let remote = greeting.remote;
        let options = BridgeConnect {
            receive_maximum: greeting.receive_maximum,
            forgets_incoming: !remote.session_present,
            peer,
        };
        let connected =
            timeout(LOCAL_TIME_MAX, connect_session(&self.bridge, &*self.parts.local, options))
                .await;
        let late =
            |_| Err(BridgeTrouble::new(TroubleKind::LocalRefused, "the session did not answer"));
        let (local, behind, was_there) = match connected.unwrap_or_else(late) {
            Ok(connected) => connected,
            Err(fault) => return BridgeAttempt::Failed(fault, Duration::ZERO),
        };
        if !was_there {
            // Somebody has ended the session since it was primed.
            self.memory.session_is_new();
        }
        // One of the sessions is new, so retained messages must go over once more.
        if !was_there || !remote.session_present {
            let wishes = self.routes.out_wishes();
            self.fresh = wishes.iter().map(|wish| wish.filter.to_owned()).collect();
        }
        let routes = (Arc::clone(&self.routes), self.marks(&greeting));
        let metrics = Arc::clone(&self.parts.metrics);
        let local_side = Arc::clone(&self.parts.local);
        let limits = LocalSideLimits {
            packet_bytes_max: local_side.limits().packet_bytes_max,
            allows_topic: Box::new(move |topic| local_side.allows_topic(topic)),
        };
        // Taken out, because the translator borrows it while `self` is used.
        let mut memory = std::mem::take(&mut self.memory);
        let mut translator = Translator::new(routes, remote, limits, &mut memory, metrics);
        let begin = ConnectionBegin {
            options: &self.bridge.options,
            routes: &self.routes,
            fresh: &self.fresh,
            former: &self.parts.former,
        };
        let answers = begin.write(&mut translator);
        let clock = Arc::clone(&self.parts.local);
        let mut pump = Pump::new(
            translator,
            (local, behind),
            (stream, greeting.behind),
            greeting.keep_alive_secs,
            Box::new(move || clock.now()),
        );
        // Counted from here, because waiting for CONNACK says nothing about the connection.
        let began_at = Instant::now();
        let stopped = self.pump(&mut pump, answers, (&address, remote.session_present)).await;
        let is_polite = matches!(stopped, PumpStopped::Asked) || self.is_over();
        pump.part(&self.bridge.options, is_polite).await;
        // Packet Identifiers in use belong to both sessions, and outlive the connection.
        self.memory = memory;
        let lasted = began_at.elapsed();
        if lasted >= GOOD_AFTER {
            self.fresh.clear(); // retained messages had time to go over
        }
        self.parts.metrics.connected.set(0);
        self.parts.local.show(&self.bridge, false);
        match stopped {
            PumpStopped::Asked => BridgeAttempt::Asked,
            PumpStopped::Fault(_) if self.is_over() => BridgeAttempt::Asked,
            PumpStopped::Fault(fault) => BridgeAttempt::Failed(fault, lasted),
        }
    }

    fn marks(&self, greeting: &BridgeGreeting) -> Option<Marks> {
        let options = &self.bridge.options;
        let are_used = options.marks_loops && options.version.has_properties();
        are_used.then(|| Marks {
            own: Arc::clone(&self.parts.broker),
            remote: greeting.broker.clone(),
            hops_max: options.hops_max.into(),
        })
    }

    /// Pumps until the connection ends. The bridge is connected once all its in topics are answered.
    async fn pump(
        &mut self,
        pump: &mut Pump<'_>,
        mut answers: usize,
        (address, session_present): (&str, bool),
    ) -> PumpStopped {
        let (mut wanted, stop, ending) =
            (self.parts.wanted.clone(), self.parts.stop.clone(), self.parts.ending.clone());
        let halt = async move {
            select! {
                _ = wanted.changed() => {}
                () = stop.cancelled() => {}
                () = async {
                    // The session says goodbye first: what it was given is written by then.
                    ending.cancelled().await;
                    sleep(ENDING_TIME_MAX).await;
                } => {}
            }
        };
        // Without subscriptions at the other broker, there is no answer to wait for.
        if answers == 0 {
            self.connected(address, session_present);
        }
        let tell = |note: BridgeNote| match note {
            BridgeNote::Subscribed => {
                answers = answers.saturating_sub(1);
                if answers == 0 {
                    self.connected(address, session_present);
                }
            }
            BridgeNote::SubscribeRefused(fault) => self.note(&fault),
            BridgeNote::Dropped { way, why, topic } => {
                // Rarely, because a wrong configuration drops every message.
                let is_due = |at: Instant| at.elapsed() >= TOLD_AGAIN_AFTER;
                if self.told_dropped_at.is_none_or(is_due) {
                    self.told_dropped_at = Some(Instant::now());
                    let (topic, direction, why) = (told::cut(&topic), way.name(), why.name());
                    let (bridge, topic) = (&*self.bridge.name, &*topic);
                    tracing::warn!(bridge, direction, why, topic, "a bridge drops messages");
                }
            }
        };
        pump.run(halt, tell).await
    }

    fn connected(&mut self, address: &str, session_present: bool) {
        self.parts.former.clear();
        self.parts.state.connected(address, session_present, self.parts.local.now());
        self.parts.metrics.connects.increment();
        self.parts.metrics.connected.set(1);
        self.parts.local.show(&self.bridge, true);
        tracing::info!(bridge = &*self.bridge.name, address, session_present, "bridge connected");
    }

    /// Notes a fault, and logs it unless one was logged a moment ago.
    fn note(&mut self, fault: &BridgeTrouble) {
        self.parts.metrics.failures.increment();
        self.parts.state.note(fault, self.parts.local.now());
        if self.told_at.is_none_or(|at| at.elapsed() >= TOLD_AGAIN_AFTER) {
            self.told_at = Some(Instant::now());
            let (reason, why) = (fault.code.name(), &*fault.message);
            tracing::warn!(bridge = &*self.bridge.name, reason, why, "bridge failed");
        }
    }
}

/// A connection whose CONNECT was accepted.
struct ReachedBroker {
    stream: Box<dyn BridgeStream>,
    greeting: BridgeGreeting,
    peer: Option<SocketAddr>,
    address: String,
}

type AcceptedStream = (Box<dyn BridgeStream>, BridgeGreeting, Option<SocketAddr>);

/// Returns the text of a fault with the address that it is about.
fn name(fault: &BridgeTrouble, address: &str) -> Box<str> {
    format!("{address}: {}", fault.message).into()
}
