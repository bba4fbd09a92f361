//! The broker from outside, in dialogues. Time is virtual wherever it matters.

#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that meets what it does not expect fails"
)]

mod support;

mod connecting;
mod keep_alive;
mod protocol;
mod retained;
mod subscriptions;
