//! Traces of clients: starts and ends them, and finds those that record a connection.
//!
//! A trace observes the stream of a connection, between the connection and its transport (`tap.rs`). A
//! connection that no trace records has no observer, so traces of others cost it nothing. Connections
//! that begin while a trace runs are observed from their CONNECT on; those that are there already, from
//! the end of the packets under way (`actors/connection/traced.rs`).
//!
//! A trace is known to the whole node, so that it follows a client over connections and shards. It is in
//! memory only. Knows neither shards nor HTTP.

mod bounds;
mod framer;
mod line;
mod properties;
mod tap;
mod trace;

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep_until, timeout_at};

use self::{bounds::TraceBounds, trace::TracePlace};
pub(crate) use self::{
    framer::Framer,
    tap::{StreamPlace, TracedEvent},
    trace::{Trace, TracedClient},
};
use crate::{
    auth::Authorizer,
    clock::Clock,
    control::{ControlError, ReadTrace, StartTrace, TRACE_SECS_MAX, TracePart, TraceView},
    limits::Limits,
    mqtt::Timestamp,
};

/// How long the records of a trace stay after its end, unless a new trace needs the place.
const KEPT_AFTER_SECS: u64 = 900;
/// How long a reader that was waiting collects further records.
const GATHER: Duration = Duration::from_millis(10);

/// All traces of a node.
pub(crate) struct Traces {
    /// Whether any trace runs. Without one, this is all that a connection costs.
    is_any: AtomicBool,
    /// The number of traces, running and ended.
    count: AtomicUsize,
    /// In the order in which they were started.
    all: Mutex<Vec<Arc<Trace>>>,
    bounds: Arc<TraceBounds>,
    rules: Arc<dyn Authorizer>,
    clock: Clock,
}

impl Traces {
    pub(crate) fn new(rules: Arc<dyn Authorizer>, clock: Clock, limits: &Limits) -> Self {
        Self {
            is_any: AtomicBool::new(false),
            count: AtomicUsize::new(0),
            all: Mutex::default(),
            bounds: Arc::new(TraceBounds::new(limits)),
            rules,
            clock,
        }
    }

    /// Puts new limits into force. Traces that run stay.
    pub(crate) fn set_limits(&self, limits: &Limits) {
        self.bounds.set(limits);
    }

    /// Returns whether any trace runs.
    pub(crate) fn is_any(&self) -> bool {
        self.is_any.load(Relaxed)
    }

    fn all(&self) -> MutexGuard<'_, Vec<Arc<Trace>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes how many traces there are.
    fn note(&self, all: &[Arc<Trace>]) {
        self.count.store(all.len(), Relaxed);
        self.is_any.store(all.iter().any(|trace| !trace.is_over()), Relaxed);
    }

    /// Starts a trace. Connections that are there already are not observed yet.
    ///
    /// # Errors
    /// The maximum number of traces exists already, in all or of this caller.
    pub(crate) fn start(&self, mut wanted: StartTrace) -> Result<Arc<Trace>, ControlError> {
        wanted.secs = wanted.secs.clamp(1, TRACE_SECS_MAX);
        let now = self.clock.now();
        let max = self.bounds.traces_max();
        let mut all = self.all();
        // A trace whose time has passed must not count against the limit.
        self.expire_in(&mut all, now);
        let running = || all.iter().filter(|trace| !trace.is_over());
        let caller = wanted.caller.as_ref();
        let own =
            running().filter(|trace| caller.is_some_and(|caller| trace.is_of(caller))).count();
        // One caller may have at most half of all, so that others can start one too.
        if running().count() >= max || (own > 0 && own >= max.div_ceil(2)) {
            return Err(ControlError::TooManyTraces);
        }
        // A trace that has ended keeps its records until its place is needed.
        if all.len() >= max
            && let Some(oldest) = all.iter().position(|trace| trace.is_over())
        {
            all.remove(oldest);
        }
        // The generation of the rules at the start: a later one makes the trace check its caller again.
        let rules = self.rules.generation();
        let trace = Trace::new(new_id(), wanted, (now, rules), Arc::clone(&self.bounds));
        let trace = Arc::new(trace);
        all.push(Arc::clone(&trace));
        self.note(&all);
        Ok(trace)
    }

    /// Ends the traces whose time is over, and removes those that ended long ago.
    pub(crate) fn expire(&self, now: Timestamp) {
        if self.count.load(Relaxed) > 0 {
            self.expire_in(&mut self.all(), now);
        }
    }

    fn expire_in(&self, all: &mut Vec<Arc<Trace>>, now: Timestamp) {
        for trace in all.iter().filter(|trace| !trace.is_over() && trace.ends_at <= now) {
            trace.end();
        }
        all.retain(|trace| trace.ends_at.plus_secs(KEPT_AFTER_SECS) > now);
        self.note(all);
    }

    /// Returns the states of all traces.
    pub(crate) fn list(&self) -> Vec<TraceView> {
        self.all().iter().map(|trace| trace.view()).collect()
    }

    fn find(&self, id: &str) -> Result<Arc<Trace>, ControlError> {
        let all = self.all();
        let found = all.iter().find(|trace| **trace.id() == *id).cloned();
        found.ok_or(ControlError::TraceNotFound)
    }

    /// Returns the state of a trace.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn view(&self, id: &str) -> Result<TraceView, ControlError> {
        Ok(self.find(id)?.view())
    }

    /// Ends a trace and removes its records; returns its last state.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn end(&self, id: &str) -> Result<TraceView, ControlError> {
        let mut all = self.all();
        let at = all.iter().position(|trace| **trace.id() == *id);
        let trace = all.remove(at.ok_or(ControlError::TraceNotFound)?);
        trace.end();
        self.note(&all);
        Ok(trace.view())
    }

    /// Returns records of a trace, and waits for one if there is none.
    ///
    /// # Errors
    /// There is no such trace.
    pub(crate) async fn read(&self, request: ReadTrace) -> Result<TracePart, ControlError> {
        let trace = self.find(&request.id)?;
        let until = Instant::now() + request.wait;
        loop {
            let mut changed = std::pin::pin!(trace.changed());
            changed.as_mut().enable(); // before the look, so that no record is missed
            let part = trace.after(request.after);
            // The end counts as something, so that a reader does not wait in vain.
            let has_some = !part.records.is_empty() || part.missed > 0 || part.is_over;
            if has_some || Instant::now() >= until {
                return Ok(part);
            }
            // Records come in groups, so waiting a little saves calls.
            if timeout_at(until, changed).await.is_ok() {
                sleep_until(until.min(Instant::now() + GATHER)).await;
            }
        }
    }

    /// Returns the running traces that record the packets of a client.
    fn of(&self, client: TracedClient<'_>) -> Vec<Arc<Trace>> {
        let all = self.all();
        all.iter().filter(|trace| trace.follows(client, &*self.rules)).cloned().collect()
    }

    /// Records an event of a connection, in the traces that record its client.
    pub(crate) fn record(
        &self,
        peer: SocketAddr,
        (client_id, username): (Option<&str>, Option<&str>),
        event: &TracedEvent<'_>,
    ) {
        let client = TracedClient { client_id, username, address: peer.ip() };
        for trace in self.of(client) {
            event.record(&trace, (peer, client_id), self.clock.now());
        }
    }

    /// Returns the places of a connection in traces that record its client, except `known` ones.
    fn places(&self, client: TracedClient<'_>, known: &[TracePlace]) -> Vec<TracePlace> {
        let rules = self.rules.generation();
        let is_known = |trace: &Arc<Trace>| known.iter().any(|it| Arc::ptr_eq(&it.trace, trace));
        let new = self.of(client).into_iter().filter(|trace| !is_known(trace));
        new.filter_map(|trace| TracePlace::take(&trace, rules)).collect()
    }
}

/// Returns an identifier that cannot be guessed.
fn new_id() -> Arc<str> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).expect("the operating system has random bytes");
    format!("{:016x}", u64::from_ne_bytes(random)).into()
}
