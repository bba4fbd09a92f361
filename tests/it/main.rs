//! The broker from outside, in dialogues. Time is virtual wherever it matters.

mod support;

mod embedding;
mod keep_alive;
mod limits;
mod presence;
mod protocol;
mod sessions;
mod shared_subscriptions;
mod takeover;
mod wills;
