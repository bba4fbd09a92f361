//! Events of the broker as a whole: it is cut off and another one starts on its store, or its store
//! cannot be written for a while.

use std::{
    mem::{replace, take},
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hearthmq::{
    Broker,
    actors::SyncPolicy,
    auth::{
        AccessRequest, Action, Authorizer, Chain, Decision, FilePolicy, Preparation,
        PrepareRequest, Rule, Source, StoredRules, TokenAuthenticator,
    },
    broker::simulation::SimulatedShards,
    hooks::{ClientConnected, ClientDisconnected, Hooks},
    limits::Limits,
    mqtt::{Connect, Packet, QoS, ReasonCode, encode},
    otlp::{Otlp, OtlpUrl, TraceOptions},
};
use tokio::task::yield_now;

use crate::{
    disk::Plug,
    identity::{PassOffice, assert_loaded, load},
    line::Line,
    model::{Told, Verdict},
    number,
    post::Post,
    steps::Step,
    vocabulary::{FILTERS, NAMES, split},
    watching::HISTORY_SHARE,
    world::World,
};

/// Written data is safe from a power cut only some time later; the disk decides when.
const SYNC_EVERY: Duration = Duration::from_secs(1);
/// The time after which each shard has tried again to write what a failing store has not taken.
const SWEEP_MILLIS: usize = 110;
/// Number of turns after which everything about an event has been done.
const TURNS_MAX: usize = 250;

/// Events of the hooks, with their presence versions.
pub(crate) type ToldByHooks = Arc<Mutex<Vec<(usize, u64, Told)>>>;

struct Listener(ToldByHooks, PassOffice);

impl Listener {
    fn note(&self, client_id: &str, version: u64, told: Told) {
        if let Some(client) = NAMES.iter().position(|name| *name == client_id) {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            all.push((client, version, told));
        }
    }
}

impl Hooks for Listener {
    fn client_connected(&self, event: &ClientConnected) {
        self.1.note_time(event.connected_at);
        self.note(&event.client_id, event.version, Told::Connected);
    }

    fn client_disconnected(&self, event: &ClientDisconnected) {
        self.note(&event.client_id, event.version, Told::Disconnected(event.reason));
    }
}

/// Allows everything but one subscription of one client, for the moment.
#[derive(Clone, Default)]
pub(crate) struct Rules(Arc<Mutex<Option<(usize, &'static str)>>>);

/// Asks these rules, and then those of the store, which each broker reads again.
struct AllRules(Rules, FilePolicy);

impl AllRules {
    fn new(rules: Rules) -> Self {
        let allow = serde_json::from_str::<Rule>(r#"{"effect":"allow"}"#).expect("a rule");
        Self(rules, FilePolicy::new(vec![allow]))
    }
}

impl Rules {
    pub(crate) fn deny(&self, denied: Option<(usize, &'static str)>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = denied;
    }
}

impl Authorizer for AllRules {
    fn prepare<'a>(&'a self, request: PrepareRequest<'a>) -> Option<Preparation<'a>> {
        Some(load(request))
    }

    fn authorize(&self, request: &AccessRequest<'_>) -> Decision {
        assert_loaded(request.identity);
        let denied = *self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        match (denied, request.action) {
            (Some((client, denied)), Action::Subscribe { filter, .. })
                if request.client_id == NAMES[client] && filter == split(denied).1 =>
            {
                Decision::Deny
            }
            _ => self.1.authorize(request),
        }
    }

    fn stored_rules(&self) -> Option<&dyn StoredRules> {
        self.1.stored_rules()
    }

    fn generation(&self) -> u64 {
        self.1.generation()
    }
}

/// Returns the shards of a broker, from 1 to 4 of them if the run does not fix their number.
pub(crate) fn shards(homes: u64) -> SimulatedShards {
    let count = number("HEARTHMQ_WORLD_SHARDS").map_or(1 + homes % 4, |count| count);
    SimulatedShards::new(count as u16, homes)
}

/// Returns an export of traces to a collector that does not exist.
fn nowhere() -> Otlp {
    let per_sec_max = NonZeroU32::MAX;
    let traces = TraceOptions { per_sec_max, deliveries_max: 3, ..TraceOptions::default() };
    let endpoint = OtlpUrl::new("http://127.0.0.1:9").expect("it leads to this machine");
    Otlp::new(endpoint).metrics_interval(None).traces(Some(traces))
}

impl World {
    /// Starts a broker on this disk; returns the events of its hooks too.
    pub(crate) async fn start(
        plug: Plug,
        rules: Rules,
        pass_office: PassOffice,
        post: &Post,
    ) -> (Broker, ToldByHooks) {
        let told = ToldByHooks::default();
        pass_office.forget_time();
        let limits = Limits {
            connects_per_address_per_sec: 0,
            history_connections_per_user_max: HISTORY_SHARE,
            ..Limits::default()
        };
        let logins = Chain::new()
            .with(Source::new("tokens", TokenAuthenticator::new()))
            .with(Source::new("passes", pass_office.clone()));
        let broker = Broker::builder()
            .simulated(post.shards())
            .limits(limits)
            .store(plug)
            .sync(SyncPolicy::Interval(SYNC_EVERY))
            .authenticator(logins)
            .authorizer(AllRules::new(rules))
            .hooks(Listener(told.clone(), pass_office))
            .otlp(nowhere())
            .start();
        (broker.await.expect("a broker without listeners starts"), told)
    }

    /// Cuts the broker off this many turns after something has started. The last writes are lost,
    /// back to the state `loses` steps ago.
    pub(crate) async fn crash(
        &mut self,
        during: Option<&Step>,
        turns: u8,
        read: usize,
        loses: usize,
    ) -> Verdict {
        let before = (self.disk.groups(), self.model.clone());
        if let Some(step) = during {
            self.model.suspended_may_collect();
            Box::pin(self.play(step)).await?;
            for _ in 0..turns {
                yield_now().await;
            }
        }
        for client in 0..NAMES.len() {
            let is_there = self.model.link(client).is_some();
            if let Some(line) = self.clients[client].line.as_mut().filter(|_| is_there) {
                line.read(read);
                self.take_packets(client)?;
            }
            self.clients[client].line = None;
        }
        self.plug.pull();
        let at = self.history.len().saturating_sub(loses);
        let lost = self.history.drain(..).nth(at).filter(|_| loses > 0);
        let failed = self.before_failure.take();
        let went_back = lost.as_ref().map(|(_, then)| then).or(failed.as_ref());
        self.lost_since = went_back.map_or(self.model.now, |then| then.now);
        if let Some((groups, then)) = lost {
            self.disk.tear(groups);
            self.model = self.model.go_back_to(then);
            self.count("lost what was not synced");
        } else if let Some(then) = failed {
            self.model = self.model.go_back_to(then);
            self.count("crash while the store fails");
        } else if during.is_some() {
            // The changes of one packet are stored together or not at all.
            let is_kept = self.disk.groups() > before.0;
            self.count(if is_kept { "crash after a packet" } else { "crash before a packet" });
            if !is_kept {
                self.model = self.model.go_back_to(before.1);
            } else if self.may_be_in_parts(during) {
                self.model.has_arrived_in_part(before.1.routed);
            }
        }
        Ok(())
    }

    /// Starts another broker on the disk. While it starts, a subscription is not allowed.
    pub(crate) async fn begin_again(
        &mut self,
        denied: Option<(usize, usize)>,
        homes: u64,
    ) -> Verdict {
        self.count("crash");
        self.disk.fail(false);
        self.plug = self.disk.plug();
        let told = take(&mut *self.told.lock().unwrap_or_else(PoisonError::into_inner));
        self.watch.note(&told, self.model.now);
        self.watch.crashed(self.lost_since);
        let denied = denied.map(|(client, filter)| (client, FILTERS[filter]));
        self.rules.deny(denied);
        self.post = Post::open(&shards(homes), homes);
        let (plug, rules) = (self.plug.clone(), self.rules.clone());
        let start = Self::start(plug, rules, self.pass_office.clone(), &self.post);
        let (broker, told) = start.await;
        self.rules.deny(None);
        self.told = told;
        self.power_since = self.model.now;
        drop(replace(&mut self.broker, broker));
        self.model.fails(false);
        if self.model.crashed(denied) {
            self.count("subscription withdrawn at a start");
        }
        self.lift_bans_that_end().await
    }

    /// Makes the store fail from now on, or work again.
    pub(crate) async fn fail(&mut self, fails: bool) -> Verdict {
        if fails == self.disk.is_failing() {
            return Ok(());
        }
        self.disk.fail(fails);
        self.before_failure = fails.then(|| self.model.clone());
        self.count(if fails { "store fails" } else { "store works again" });
        for _ in 0..TURNS_MAX {
            if fails || self.broker.is_storing() {
                if !fails {
                    self.wait_for_all_shards().await;
                }
                self.model.fails(fails);
                return Ok(());
            }
            self.moment().await;
        }
        Err("the broker does not see that its store works again".to_owned())
    }

    /// Waits until all shards have tried again to write to a store that works again.
    async fn wait_for_all_shards(&mut self) {
        for _ in 0..SWEEP_MILLIS {
            self.moment().await;
        }
    }

    /// Returns whether a crash may leave the message of this step at some shards only: it was not
    /// acknowledged, and was not in the outbox.
    fn may_be_in_parts(&self, during: Option<&Step>) -> bool {
        let Some(Step::Publish { client, what, .. }) = during else { return false };
        let session = self.model.sessions[*client].as_ref();
        let is_in_outbox = what.qos == QoS::ExactlyOnce && session.is_some_and(|s| s.is_kept);
        !is_in_outbox && self.clients[*client].outbound.iter().any(|o| !o.is_released)
    }

    /// Finds out whether the broker knows of the failing store, before the next step.
    pub(crate) async fn look_at_store(&mut self) {
        if self.disk.is_failing() {
            self.moment().await;
            // The next sweep writes the histories of connections that began or ended, and would find it
            // at any moment.
            if self.broker.is_storing() && self.watch.take_unswept() {
                self.wait_for_all_shards().await;
            }
            self.model.has_trouble = !self.broker.is_storing();
        }
    }

    /// Sends a CONNECT that is refused for this reason; an older connection continues.
    pub(crate) async fn connect_in_vain(
        &mut self,
        connect: Connect<'_>,
        expected: ReasonCode,
    ) -> Verdict {
        self.count(match expected {
            ReasonCode::Banned => "CONNECT of a banned client",
            ReasonCode::NotAuthorized => "CONNECT that no rule allows",
            _ => "CONNECT refused",
        });
        let version = connect.version;
        let mut bytes = Vec::new();
        let encoded = encode(&Packet::Connect(Box::new(connect)), version, &mut bytes);
        encoded.map_err(|error| error.to_string())?;
        let mut line = Line::open(&self.broker, version, 4096, ([192, 0, 2, 7], 40_000).into());
        line.write(&bytes).await;
        for _ in 0..TURNS_MAX {
            self.moment().await;
            line.read(usize::MAX);
            if line.is_ended() {
                let reason = line.next(|packet, _| match packet {
                    Packet::ConnAck(ack) => Some(ack.reason),
                    _ => None,
                })?;
                let in_version = |reason: ReasonCode| reason.connect_return_code(version);
                let said = reason.flatten().map(in_version);
                let is_right = said == Some(in_version(expected));
                return if is_right { Ok(()) } else { Err(format!("{reason:?} for CONNECT")) };
            }
        }
        Err("a connection that was refused is not closed".to_owned())
    }
}
