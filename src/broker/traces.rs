//! Traces of clients: the table of the node, and the shards whose connections they observe.

use std::sync::Arc;

use actix::Addr;
use async_trait::async_trait;
use futures_util::future::try_join_all;

use super::{ANSWER_TIME_MAX, Broker};
use crate::{
    actors::{FollowTrace, Registry},
    control::{
        ClientTraces, ControlError, ReadTrace, StartTrace, TracePart, TraceTarget, TraceView,
    },
};

impl Broker {
    /// Starts a trace: every packet of some clients is recorded for a time, in both directions, also over
    /// several connections. A restart of the broker ends it. When this returns, connections that are
    /// there already are observed.
    ///
    /// # Errors
    /// As many traces run as `traces_max` allows, or half as many of this caller, or the broker cannot
    /// answer.
    pub async fn start_trace(&self, request: StartTrace) -> Result<TraceView, ControlError> {
        if !self.is_ready() {
            return Err(ControlError::Unavailable);
        }
        let traces = &self.running.core.traces;
        // In the table first: clients that connect from now on are observed from their CONNECT.
        let trace = traces.start(request)?;
        let registries: Vec<Addr<Registry>> = match trace.target() {
            // One client has one home, so the other shards are not asked.
            TraceTarget::Client(client_id) => vec![self.registry(client_id)],
            TraceTarget::User(_) | TraceTarget::Network(_) => self.running.registries.clone(),
        };
        let asked = registries.iter().map(|registry| {
            let follow = FollowTrace(Arc::clone(&trace));
            self.ask(registry.send(follow).timeout(ANSWER_TIME_MAX))
        });
        let followed = try_join_all(asked).await;
        let id = Arc::clone(trace.id());
        if let Err(error) = followed {
            let _ = traces.end(&id); // Nobody knows its identifier.
            return Err(error);
        }
        traces.view(&id)
    }

    /// Returns the traces, in the order in which they were started.
    #[must_use]
    pub fn traces(&self) -> Vec<TraceView> {
        self.running.core.traces.list()
    }

    /// Returns records of a trace; waits for one if there is none and the request says so.
    ///
    /// # Errors
    /// There is no such trace.
    pub async fn read_trace(&self, request: ReadTrace) -> Result<TracePart, ControlError> {
        self.running.core.traces.read(request).await
    }

    /// Ends a trace and removes its records; returns its last state.
    ///
    /// # Errors
    /// There is no such trace.
    pub fn end_trace(&self, id: &str) -> Result<TraceView, ControlError> {
        self.running.core.traces.end(id)
    }
}

#[async_trait]
impl ClientTraces for Broker {
    async fn start_trace(&self, request: StartTrace) -> Result<TraceView, ControlError> {
        Self::start_trace(self, request).await
    }

    async fn list_traces(&self) -> Result<Vec<TraceView>, ControlError> {
        Ok(self.traces())
    }

    async fn find_trace(&self, id: &str) -> Result<TraceView, ControlError> {
        self.running.core.traces.view(id)
    }

    async fn read_trace(&self, request: ReadTrace) -> Result<TracePart, ControlError> {
        Self::read_trace(self, request).await
    }

    async fn end_trace(&self, id: &str) -> Result<TraceView, ControlError> {
        Self::end_trace(self, id)
    }
}
