//! HearthMQ: an MQTT broker whose live sessions an application can control.

pub mod actors;
pub mod auth;
pub mod broker;
pub mod config;
pub mod control;
pub mod hooks;
pub mod http;
pub(crate) mod labels;
pub mod limits;
pub mod metrics;
pub mod mqtt;
pub mod net;
pub mod router;
pub mod session;
pub mod store;

pub use broker::Broker;
