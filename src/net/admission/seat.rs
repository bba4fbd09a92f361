//! The seat of a connection: another connection that needs the place takes it away.
//!
//! Knows no socket. Called by the listeners for MQTT and HTTP.

use std::{
    pin::{Pin, pin},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    task::Poll,
    time::Duration,
};

use futures_util::task::AtomicWaker;
use tokio::{task::yield_now, time::sleep};

/// Turns until an accepted connection is read: in the first one the reactor registers the socket, in
/// the second one it reports the bytes that have arrived.
const TURNS_UNTIL_READ: usize = 2;

/// Maximum number of turns that a new connection waits for others to be read. Their threads read
/// them in their own next turns, but threads may share a core.
const TURNS_WAITED_MAX: usize = 64;

/// Turns that are taken without a pause.
const TURNS_AT_ONCE: usize = 4;

/// The pause before each further turn.
const TURN: Duration = Duration::from_millis(1);

/// Calls `enter` once a turn until it returns a value; `None` after a limited number of turns.
pub(crate) async fn in_turn<T>(mut enter: impl FnMut() -> Option<T>) -> Option<T> {
    for turn in 0..TURNS_WAITED_MAX {
        if let Some(entered) = enter() {
            return Some(entered);
        }
        match turn < TURNS_AT_ONCE {
            true => yield_now().await,
            false => sleep(TURN).await,
        }
    }
    None
}

/// The seat of one connection.
#[derive(Debug, Default)]
pub(crate) struct Seat {
    is_read: AtomicBool,
    is_taken_away: AtomicBool,
    waker: AtomicWaker,
}

impl Seat {
    /// Ends the connection in its next turn.
    pub(crate) fn take_away(&self) {
        self.is_taken_away.store(true, Relaxed);
        self.waker.wake();
    }

    pub(crate) fn is_taken_away(&self) -> bool {
        self.is_taken_away.load(Relaxed)
    }

    /// Returns whether the connection has had enough turns to read its first bytes. Before that, a
    /// complete request may be in its socket.
    pub(crate) fn is_read(&self) -> bool {
        self.is_read.load(Relaxed)
    }

    #[cfg(test)]
    pub(crate) fn set_read(&self) {
        self.is_read.store(true, Relaxed);
    }

    /// Drives a connection until it completes; returns `None` if its seat is taken away first.
    pub(crate) async fn sit<F: Future>(&self, mut connection: Pin<&mut F>) -> Option<F::Output> {
        let mut turns = pin!(async {
            for _ in 0..TURNS_UNTIL_READ {
                yield_now().await;
            }
        });
        std::future::poll_fn(|cx| {
            // Checked first, so that an evicted connection
            // does nothing more, even if it could go on.
            if self.is_taken_away() {
                return Poll::Ready(None);
            }
            if let Poll::Ready(output) = connection.as_mut().poll(cx) {
                return Poll::Ready(Some(output));
            }
            // After the connection, so that it reads in the turn that is counted.
            if !self.is_read() && turns.as_mut().poll(cx).is_ready() {
                self.is_read.store(true, Relaxed);
            }
            // Registered before the second look, so that an eviction in between is not missed.
            self.waker.register(cx.waker());
            match self.is_taken_away() {
                true => Poll::Ready(None),
                false => Poll::Pending,
            }
        })
        .await
    }
}
