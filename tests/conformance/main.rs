//! The standard's statements, chapter by chapter, over real sockets. Each dialogue names the
//! statements that it shows; `tests/clauses` lists all statements and the tests for each.

#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that meets what it does not expect fails"
)]

#[expect(dead_code, reason = "the dialogues on virtual time use the rest")]
#[path = "../it/support/mod.rs"]
mod support;

#[expect(dead_code, reason = "all frames are whole here")]
#[path = "../support/websocket.rs"]
mod websocket_client;

#[path = "../support/riddle.rs"]
mod riddle;
mod sockets;
mod wire;

mod acknowledgements;
mod connack;
mod connect;
mod connect_properties;
mod connect_sessions;
mod delivery;
mod disconnect;
mod enhanced_authentication;
mod errors;
mod flow_control;
mod format;
mod order;
mod publish;
mod publish_properties;
mod retained;
mod shared_subscriptions;
mod subscribe;
mod topics;
mod unsubscribe;
mod websocket;
mod wills;
