//! The broker from outside, in dialogues. Time is virtual wherever it matters.

mod support;

mod connecting;
mod keep_alive;
mod protocol;
mod retained;
mod sessions;
mod subscriptions;
mod takeover;
mod wills;
