//! HearthMQ: an MQTT broker whose live sessions an application can control.

pub mod auth;
pub mod mqtt;
