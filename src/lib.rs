//! HearthMQ: an MQTT broker whose live sessions an application can control.

pub mod auth;
pub mod config;
pub mod control;
pub mod http;
pub mod limits;
pub mod metrics;
pub mod net {
    //! Listeners.
    pub mod tls;
}
pub mod mqtt {
    //! The part of the protocol that `auth` needs, until the codec is merged.

    /// Quality of Service, section 4.3.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
    #[repr(u8)]
    pub enum QoS {
        /// QoS 0.
        #[default]
        AtMostOnce = 0,
        /// QoS 1.
        AtLeastOnce = 1,
        /// QoS 2.
        ExactlyOnce = 2,
    }

    impl QoS {
        /// The QoS of this number; `None` for 3 and above.
        #[must_use]
        pub const fn from_number(number: u8) -> Option<Self> {
            match number {
                0 => Some(Self::AtMostOnce),
                1 => Some(Self::AtLeastOnce),
                2 => Some(Self::ExactlyOnce),
                _ => None,
            }
        }
    }
}
