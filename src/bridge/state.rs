//! The state of a bridge, for callers and metrics.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::fault::BridgeTrouble;
use crate::{
    control::{BridgeFault, BridgePhase},
    mqtt::Timestamp,
};

/// The state of a bridge, which it writes and callers read.
#[derive(Debug, Default)]
pub(crate) struct BridgeState(Mutex<CurrentState>);

/// The state at one moment.
#[derive(Clone, Debug)]
pub(crate) struct CurrentState {
    pub(crate) phase: BridgePhase,
    pub(crate) since: Timestamp,
    pub(crate) address: Option<Box<str>>,
    pub(crate) session_present: Option<bool>,
    pub(crate) retry_at: Option<Timestamp>,
    pub(crate) last_fault: Option<BridgeFault>,
}

impl Default for CurrentState {
    fn default() -> Self {
        Self {
            phase: BridgePhase::Stopped,
            since: Timestamp::default(),
            address: None,
            session_present: None,
            retry_at: None,
            last_fault: None,
        }
    }
}

impl BridgeState {
    /// Returns the state now.
    pub(crate) fn now(&self) -> CurrentState {
        self.lock().clone()
    }

    /// Enters a phase, and forgets the facts about the former one.
    pub(super) fn enter(&self, phase: BridgePhase, now: Timestamp) {
        let mut current = self.lock();
        let last_fault = current.last_fault.take();
        *current = CurrentState { phase, since: now, last_fault, ..CurrentState::default() };
    }

    pub(super) fn set_address(&self, address: &str) {
        self.lock().address = Some(address.into());
    }

    pub(super) fn connected(&self, address: &str, session_present: bool, now: Timestamp) {
        self.enter(BridgePhase::Connected, now);
        let mut current = self.lock();
        current.address = Some(address.into());
        current.session_present = Some(session_present);
    }

    pub(super) fn waits_until(&self, at: Timestamp) {
        self.lock().retry_at = Some(at);
    }

    pub(super) fn note(&self, fault: &BridgeTrouble, now: Timestamp) {
        let code = fault.code.name();
        self.lock().last_fault =
            Some(BridgeFault { at: now, code, message: fault.message.clone() });
    }

    fn lock(&self) -> MutexGuard<'_, CurrentState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
