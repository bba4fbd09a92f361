//! The state that all shards of a broker share.

use std::{
    net::IpAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption, Guard};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    auth::{
        Authenticator, Authorizer, BoundedExchange, ExchangeBounds, ExchangeStart, Identity,
        ListenerLogins, Methods, Standing,
    },
    between::{door::ShardHandle, nodes::OtherNodes},
    clock::Clock,
    control::Redirection,
    durable::{Health, History, Keeper, StoredRecords, SyncPolicy},
    feed::Feed,
    flow::{Budget, Waits},
    hooks::Hooks,
    limits::{Limits, OwnLimits, QueueFull, TopicLimits},
    metrics::{LoginTotals, Metrics, Totals},
    mqtt::DecodeLimits,
    owners::{Account, Owner, Owners},
    router::{Homes, Index, Retained, RetainedLimits, ShardNumber},
    session::{QueueLimits, QueueUsage, WhenFull},
    shard::{
        audit::AuditLog, bans::BanList, bridges::BridgeQueues, certificates::Certificates,
        connect::Proven, doors::ArrivalDoor, in_process::InProcess, overrides::OverrideTable,
        ownership::OwnershipOfBroker, pins::PinTable, refusal_rate::RefusalRate,
        silences::Silences, sticky::StickyTable, system::SystemTopics, versions::Versions,
    },
    spans::Tracer,
    store::{Store, StoreError},
    told::Told,
    traces::Traces,
};

/// The parts of a broker before its shards start.
pub(crate) struct CoreParts {
    pub(crate) node: Arc<str>,
    /// Response Information is this prefix and the client identifier; empty for none.
    pub(crate) response_topic_prefix: Box<str>,
    pub(crate) limits: Limits,
    pub(crate) authenticator: Arc<dyn Authenticator>,
    pub(crate) methods: Methods,
    pub(crate) authorizer: Arc<dyn Authorizer>,
    pub(crate) hooks: Vec<Box<dyn Hooks>>,
    pub(crate) store: Option<Arc<dyn Store>>,
    pub(crate) sync: SyncPolicy,
    pub(crate) metrics: Arc<Metrics>,
    /// The interval of updates of `$SYS/…`; zero for none.
    pub(crate) sys_interval: Duration,
    pub(crate) told: Arc<Told>,
    /// `None` if nothing is traced.
    pub(crate) tracer: Option<Arc<Tracer>>,
}

/// The state that all shards, listeners and handles of one broker share.
pub(crate) struct Core {
    pub(crate) node: Arc<str>,
    response_topic_prefix: ArcSwap<Box<str>>,
    limits: ArcSwap<Limits>,
    /// The limits on topics, which every message needs: bytes in the lower half, levels in the upper half.
    topic_limits: AtomicU32,
    listener_logins: ArcSwap<ListenerLoginsByUrl>,
    pub(crate) clock: Clock,
    pub(crate) index: Index,
    pub(crate) retained: Arc<Retained>,
    pub(crate) queue_usage: Arc<QueueUsage>,
    pub(crate) waits: Waits,
    /// The usage of each user, and its share of the limits.
    pub(crate) owners: Owners,
    /// The budget for packets that have not arrived in full.
    pub(crate) incomplete_packets: Arc<Budget>,
    /// The budget for Wills.
    pub(crate) wills: Arc<Budget>,
    pub(crate) authenticator: Arc<dyn Authenticator>,
    methods: Methods,
    pub(crate) authorizer: Arc<dyn Authorizer>,
    /// The hooks, in the order in which they are called.
    pub(crate) hooks: Box<[Box<dyn Hooks>]>,
    /// Numbers the events, and keeps them for followers.
    pub(crate) feed: Feed,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) told: Arc<Told>,
    /// `None` if nothing is traced.
    pub(crate) tracer: Option<Arc<Tracer>>,
    pub(in crate::shard) refusals: RefusalRate,
    pub(crate) in_process: InProcess,
    pub(crate) system: SystemTopics,
    pub(crate) versions: Versions,
    /// The keeper; `None` if the broker has no store.
    pub(crate) keeper: Option<Arc<Keeper>>,
    /// The records: settings of callers, which several nodes will share.
    pub(crate) records: Arc<StoredRecords>,
    /// The histories of clients.
    pub(crate) history: Arc<History>,
    /// Statistics of silences, for the advice on Keep Alive.
    pub(crate) silences: Silences,
    /// The Keep Alives that hold for later connections too.
    pub(crate) overrides: OverrideTable,
    /// The settings that hold for later connections too.
    pub(crate) sticky: StickyTable,
    /// The bans in force.
    pub(crate) bans: BanList,
    /// How much may wait for bridges.
    pub(crate) bridge_queues: BridgeQueues,
    /// The identifier of this broker among bridges; empty until there is a bridge.
    pub(crate) broker_id: OnceLock<Arc<str>>,
    /// Traces of clients.
    pub(crate) traces: Traces,
    /// The audit log.
    pub(crate) audit: AuditLog,
    /// The certificates of clients.
    pub(crate) certificates: Certificates,
    /// The certificates that are pinned to client identifiers.
    pub(crate) pins: PinTable,
    /// The server to which new clients are redirected; `None` while they may connect here.
    pub(crate) draining: ArcSwapOption<Redirection>,
    /// The agreement with the other nodes about clients; empty for a broker alone.
    pub(in crate::shard) ownership: OwnershipOfBroker,
    /// Cancelled when the broker begins to end.
    pub(crate) ending: CancellationToken,
    /// The other nodes of the cluster; none without a cluster.
    pub(crate) nodes: OnceLock<Arc<dyn OtherNodes>>,
    homes: OnceLock<Homes>,
    shards: OnceLock<Arc<[ShardHandle]>>,
    /// The doors for arriving clients, in the order of the shards.
    arrivals: OnceLock<Box<[Box<dyn ArrivalDoor>]>>,
}

/// The login settings of each listener, by its URL.
pub(crate) type ListenerLoginsByUrl = Vec<(Arc<str>, ListenerLogins)>;

impl Core {
    pub(crate) fn new(parts: CoreParts) -> Result<Self, StoreError> {
        let retained = Arc::new(Retained::new(retained_limits(&parts.limits)));
        // The numbers that the last run has used.
        let bounds = parts.store.as_ref().map(|store| store.bounds()).transpose()?;
        let bounds = bounds.unwrap_or_default();
        let disk_bytes = parts.store.as_ref().and_then(|store| store.disk_bytes_in_all());
        let owners = Owners::new(&parts.limits, disk_bytes);
        // The clock never goes back, so that what was stored with an earlier time keeps its order.
        let clock = Clock::start_after(bounds.clock);
        let versions = Versions::new(parts.store.as_deref(), bounds.versions, clock.now())?;
        // Before the records and the history, which both write through it.
        let keeper = parts
            .store
            .map(|store| Arc::new(Keeper::new(store, parts.sync, &bounds, retained.clone())));
        let records = Arc::new(StoredRecords::new(keeper.clone(), clock, bounds.revision));
        let history = Arc::new(History::new(keeper.clone(), clock, &bounds));
        Ok(Self {
            history,
            silences: Silences::default(),
            clock,
            index: Index::default(),
            retained,
            queue_usage: Arc::new(QueueUsage::new(queue_limits(&parts.limits))),
            waits: Waits::default(),
            owners,
            incomplete_packets: Budget::new(size(parts.limits.incomplete_packet_bytes_max)),
            wills: Budget::new(size(parts.limits.will_bytes_max)),
            in_process: InProcess::default(),
            system: SystemTopics::new(parts.sys_interval),
            versions,
            overrides: OverrideTable::new(records.clone()),
            sticky: StickyTable::new(records.clone()),
            pins: PinTable::new(records.clone()),
            bans: BanList::default(),
            traces: Traces::new(parts.authorizer.clone(), clock, &parts.limits),
            bridge_queues: BridgeQueues::default(),
            broker_id: OnceLock::new(),
            audit: AuditLog::new(records.clone()),
            records,
            keeper,
            certificates: Certificates::default(),
            draining: ArcSwapOption::empty(),
            ownership: OwnershipOfBroker::default(),
            ending: CancellationToken::new(),
            nodes: OnceLock::new(),
            homes: OnceLock::new(),
            shards: OnceLock::new(),
            arrivals: OnceLock::new(),
            node: parts.node,
            response_topic_prefix: ArcSwap::from_pointee(parts.response_topic_prefix),
            topic_limits: AtomicU32::new(packed(parts.limits.topics())),
            limits: ArcSwap::from_pointee(parts.limits),
            listener_logins: ArcSwap::default(),
            authenticator: parts.authenticator,
            methods: parts.methods,
            authorizer: parts.authorizer,
            hooks: parts.hooks.into(),
            feed: Feed::new(Box::new(AtomicU64::new(0))),
            metrics: parts.metrics,
            told: parts.told,
            tracer: parts.tracer,
            refusals: RefusalRate::default(),
        })
    }

    /// Makes the shards known to each other; called once, before anything is accepted.
    pub(crate) fn set_shards(
        self: &Arc<Self>,
        shards: Vec<ShardHandle>,
        arrivals: Vec<Box<dyn ArrivalDoor>>,
    ) {
        let weak = Arc::downgrade(self);
        self.metrics.set_probe(move |totals| {
            if let Some(core) = weak.upgrade() {
                core.note_totals(totals);
            }
        });
        let was_set = self.shards.set(shards.into()).is_err()
            | self.arrivals.set(arrivals.into_boxed_slice()).is_err();
        debug_assert!(!was_set, "shards are set once");
    }

    /// Fixes the homes of client identifiers before they are drawn at random.
    pub(crate) fn set_homes(&self, homes: Homes) {
        let was_set = self.homes.set(homes).is_err();
        debug_assert!(!was_set, "homes are set before they are used");
    }

    /// Returns the handles of all shards, for a thread that outlives the calls of the broker.
    pub(crate) fn shared_shards(&self) -> Arc<[ShardHandle]> {
        self.shards.get().cloned().unwrap_or_default()
    }

    /// Returns the door for clients whose home is this shard.
    pub(crate) fn arrivals(&self, home: ShardNumber) -> Option<&dyn ArrivalDoor> {
        self.arrivals.get()?.get(usize::from(home.0)).map(|door| &**door)
    }

    pub(crate) fn shards(&self) -> &[ShardHandle] {
        self.shards.get().map_or(&[], |shards| shards)
    }

    pub(crate) fn shard(&self, number: ShardNumber) -> Option<&ShardHandle> {
        self.shards().get(usize::from(number.0))
    }

    /// Returns the time until which a connection that arrives now must have sent its CONNECT.
    pub(crate) fn connect_by(&self) -> Instant {
        Instant::now() + self.connect_time()
    }

    /// Waits for a step of a connection before CONNACK; `None` if the broker begins to end meanwhile. A step that is
    /// ready by then still counts.
    pub(crate) async fn unless_ending<F: Future>(&self, step: F) -> Option<F::Output> {
        tokio::select! {
            biased;
            outcome = step => Some(outcome),
            () = self.ending.cancelled() => None,
        }
    }

    /// Returns whether the broker accepts durable messages: there is no store, or it can be
    /// written.
    pub(crate) fn is_storing(&self) -> bool {
        let is_well = |health: &Health| health.trouble().is_none() && !health.is_stuck();
        self.keeper.as_ref().is_none_or(|keeper| is_well(&keeper.health))
    }

    /// Returns whether acknowledgements wait for the store.
    pub(crate) fn makes_wait(&self) -> bool {
        self.keeper.as_ref().is_some_and(|keeper| keeper.makes_wait())
    }

    /// Returns the limits in force. The path of a message does not call this.
    pub(crate) fn limits_now(&self) -> Guard<Arc<Limits>> {
        self.limits.load()
    }

    /// Puts new limits into force. What already exceeds them stays, and grows no more.
    pub(crate) fn set_limits(&self, limits: Limits) {
        self.queue_usage.set_limits(queue_limits(&limits));
        self.retained.set_limits(retained_limits(&limits));
        self.incomplete_packets.set_max(size(limits.incomplete_packet_bytes_max));
        self.wills.set_max(size(limits.will_bytes_max));
        self.topic_limits.store(packed(limits.topics()), Ordering::Relaxed);
        self.owners.set_limits(&limits);
        self.traces.set_limits(&limits);
        self.limits.store(Arc::new(limits));
        self.refresh_owners();
    }

    /// Gives the users the limits that are in force now.
    pub(crate) fn refresh_owners(&self) {
        self.owners.refresh(|username| self.own_limits_of(username));
    }

    /// Returns the limits of a user that differ from those of each user.
    fn own_limits_of(&self, username: &str) -> Option<OwnLimits> {
        let own = self.authenticator.limits_of(username);
        own.or_else(|| self.bridge_queues.limits_of(username))
    }

    /// Returns whether a Topic Name or Topic Filter is neither too long nor too deep.
    pub(crate) fn allows_topic(&self, topic: &str) -> bool {
        let packed = self.topic_limits.load(Ordering::Relaxed);
        let (bytes_max, levels_max) = (packed as u16, (packed >> 16) as u16);
        TopicLimits { bytes_max, levels_max }.allow(topic)
    }

    /// Changes the required beginning of Response Topics.
    pub(crate) fn set_response_topic_prefix(&self, prefix: &str) {
        self.response_topic_prefix.store(Arc::new(prefix.into()));
    }

    /// Changes the login settings of the listeners, by their URLs.
    pub(crate) fn set_listener_logins(&self, logins: ListenerLoginsByUrl) {
        self.listener_logins.store(Arc::new(logins));
    }

    /// Returns the maximum time of a CONNECT, and of an exchange that authenticates again.
    pub(crate) fn connect_time(&self) -> Duration {
        Duration::from_secs(self.limits_now().connect_timeout_secs.into())
    }

    /// Begins an exchange of AUTH packets; returns `None` if the method is not known.
    pub(crate) fn begin_exchange(&self, start: ExchangeStart<'_>) -> Option<BoundedExchange> {
        let limits = self.limits_now();
        let bounds = ExchangeBounds {
            rounds_max: limits.authentication_rounds_max,
            bytes_max: limits.authentication_bytes_max,
        };
        self.methods.begin(start, bounds)
    }

    /// Returns the facts on which a login rests if it begins now.
    pub(crate) fn proves_now(&self, method: Option<Arc<str>>) -> Proven {
        let accounts = match method.as_deref() {
            None => self.authenticator.generation(),
            Some(method) => self.methods.find(method).map_or(0, |method| method.generation()),
        };
        Proven { method, accounts, permissions: self.authorizer.generation() }
    }

    /// Returns whether credentials that were accepted at a listener still hold.
    pub(crate) fn standing(
        &self,
        identity: &Identity,
        proven: &Proven,
        listener: &str,
    ) -> Standing {
        let since = proven.accounts;
        match proven.method.as_deref() {
            None => {
                let logins = self.listener_logins.load();
                let mut all = logins.iter();
                let rules = all.find(|(url, _)| **url == *listener).map(|(_, rules)| *rules);
                let rules = rules.unwrap_or_else(|| at_unknown_listener(&logins));
                self.authenticator.standing_at(identity, since, rules)
            }
            Some(method) => {
                // The session may have been stored while such a method existed.
                let method = self.methods.find(method);
                method.map_or(Standing::Suspended, |method| method.standing(identity, since))
            }
        }
    }

    /// Returns the number of sessions of all shards, with and without a connection.
    pub(crate) fn sessions(&self) -> usize {
        self.metrics.shards().map(|shard| shard.sessions.value() as usize).sum()
    }

    /// Returns the account that is charged for a client of this user name and address.
    pub(crate) fn account_of(&self, username: Option<&Arc<str>>, address: IpAddr) -> Arc<Account> {
        self.account(Owner::of(username, address))
    }

    /// Returns the account of an owner, with the limits in force for it now.
    pub(crate) fn account(&self, owner: Owner) -> Arc<Account> {
        let own = match &owner {
            Owner::User(name) => self.own_limits_of(name),
            Owner::Address(_) => None,
        };
        self.owners.account(owner, own)
    }

    /// Counts the metrics that belong to no shard.
    fn note_totals(&self, totals: &Totals) {
        let (messages, bytes) = self.retained.usage();
        totals.retained_messages.set(messages as u64);
        totals.retained_bytes.set(bytes as u64);
        totals.queue_messages.set(self.queue_usage.messages() as u64);
        totals.queue_bytes.set(self.queue_usage.bytes() as u64);
        totals.queue_stored_messages.set(self.queue_usage.messages_stored() as u64);
        totals.queue_stored_bytes.set(self.queue_usage.bytes_stored() as u64);
        totals.store_writable.set(u64::from(self.is_storing()));
        let waiting = self.keeper.as_ref().map_or(0, |keeper| keeper.bytes_waiting());
        totals.store_waiting_bytes.set(waiting as u64);
        totals.in_flight_bytes.set(self.queue_usage.bytes_in_flight() as u64);
        totals.queue_messages_highest.set(self.queue_usage.messages_highest() as u64);
        totals.queue_bytes_highest.set(self.queue_usage.bytes_highest() as u64);
        totals.sessions_over_half_queue.set(self.queue_usage.sessions_over_half() as u64);
        totals.subscriptions.set(self.index.len() as u64);
        totals.subscription_bytes.set(self.index.bytes() as u64);
        totals.incomplete_packet_bytes.set(self.incomplete_packets.taken() as u64);
        totals.will_bytes.set(self.wills.taken() as u64);
        totals.owners.set(self.owners.len() as u64);
        totals.history_lost.set(self.history.lost());
        totals.log_lines_left_out.set(self.told.left_out());
        self.note_logins(&totals.logins);
    }

    fn note_logins(&self, totals: &LoginTotals) {
        let counts = self.authenticator.login_counts();
        totals.waiting.set(counts.waiting);
        totals.turned_away.set(counts.turned_away);
        totals.user_lockouts.set(counts.user_lockouts);
        totals.address_lockouts.set(counts.address_lockouts);
        totals.refused.set(counts.refused);
        totals.repeated.set(counts.repeated);
        totals.hashed.set(counts.hashed);
        totals.known.set(counts.known);
    }

    /// Returns how to decode packets of clients before their CONNECT is accepted.
    pub(crate) fn decode_limits(&self) -> DecodeLimits {
        let limits = self.limits_now();
        DecodeLimits {
            packet_bytes_max: limits.packet_bytes_max,
            topic_bytes_max: limits.topic_bytes_max,
            topic_levels_max: limits.topic_levels_max,
        }
    }

    /// Returns Response Information for a client: the required beginning of its Response Topics.
    /// Returns `None` for an identifier that would change its meaning, by a wildcard or another
    /// client's level.
    pub(crate) fn response_information(&self, client_id: &str) -> Option<String> {
        let is_level = !client_id.contains(['+', '#', '/']);
        let prefix = self.response_topic_prefix.load();
        (is_level && !prefix.is_empty()).then(|| format!("{prefix}{client_id}/"))
    }

    /// Returns the home of a client identifier: always the same shard while the broker runs.
    pub(crate) fn home(&self, client_id: &str) -> ShardNumber {
        self.homes().home(client_id)
    }

    /// Returns the mapping from client identifiers to homes, fixed while the broker runs.
    pub(crate) fn homes(&self) -> &Homes {
        self.homes.get_or_init(|| Homes::new(self.shards().len() as u16))
    }
}

/// Returns the settings that may have applied to a login whose listener is no longer known: its
/// session was stored under another address or by a former version.
fn at_unknown_listener(logins: &ListenerLoginsByUrl) -> ListenerLogins {
    let lets_in_anybody = logins.iter().any(|(_, rules)| rules.anonymous == Some(true));
    ListenerLogins { anonymous: lets_in_anybody.then_some(true), ..ListenerLogins::default() }
}

/// Returns the limits on messages that wait for clients.
fn queue_limits(limits: &Limits) -> QueueLimits {
    QueueLimits {
        messages_max: limits.queue_messages_per_client_max as usize,
        bytes_max: size(limits.queue_bytes_per_client_max),
        messages_in_all_max: size(limits.queue_messages_max),
        bytes_in_all_max: size(limits.queue_bytes_max),
        when_full: match limits.queue_full {
            QueueFull::DropOldest => WhenFull::DropOldest,
            QueueFull::DropNewest => WhenFull::DropNewest,
            QueueFull::HoldPublisher => WhenFull::HoldPublisher,
        },
    }
}

fn retained_limits(limits: &Limits) -> RetainedLimits {
    RetainedLimits {
        messages_max: size(limits.retained_messages_max),
        bytes_max: size(limits.retained_bytes_max),
    }
}

/// Returns limits on topics as one number, because they are changed and read together.
const fn packed(limits: TopicLimits) -> u32 {
    limits.bytes_max as u32 | (limits.levels_max as u32) << 16
}

/// Returns a limit as a size; a limit that this machine cannot address is no limit.
fn size(bound: u64) -> usize {
    usize::try_from(bound).unwrap_or(usize::MAX)
}
