//! HearthMQ: an MQTT broker whose live sessions an application can control.

pub mod auth;
pub mod config;
pub mod control;
pub mod http;
pub mod limits;
pub mod metrics;
/// The protocol's nouns that the modules above name.
pub mod mqtt {
    /// Quality of Service.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub enum QoS {
        /// 0
        AtMostOnce,
        /// 1
        AtLeastOnce,
        /// 2
        ExactlyOnce,
    }
}
