//! The question for advice on Keep Alive, and the answer: what connections have survived, by network
//! and listener.

use std::{net::IpAddr, sync::Arc};

use crate::auth::Network;

/// Asks for a page of the advice on Keep Alive, in the order of networks and listeners.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListKeepAliveAdvice {
    /// Only observations about connections of this listener, by its URL.
    pub listener: Option<Arc<str>>,
    /// The page goes on behind this place: [`KeepAliveAdvicePage::next`] of the page before.
    pub after: Option<(IpAddr, Arc<str>)>,
    /// Maximum number of items, at most [`ListKeepAliveAdvice::LIMIT_MAX`].
    pub limit: usize,
}

impl ListKeepAliveAdvice {
    /// Maximum number of items of a page.
    pub const LIMIT_MAX: usize = 1_000;

    /// Returns the question for the first page.
    #[must_use]
    pub const fn new(limit: usize) -> Self {
        Self { listener: None, after: None, limit }
    }
}

/// A page of the advice on Keep Alive.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct KeepAliveAdvicePage {
    /// The advice, in order.
    pub items: Vec<KeepAliveAdvice>,
    /// Where the list goes on: the address of the network, and the listener; `None` at its end.
    pub next: Option<(IpAddr, Arc<str>)>,
}

impl KeepAliveAdvicePage {
    /// Returns a page.
    #[must_use]
    pub const fn new(items: Vec<KeepAliveAdvice>, next: Option<(IpAddr, Arc<str>)>) -> Self {
        Self { items, next }
    }
}

/// The observations about ended connections from one network to one listener, and the Keep
/// Alive that it suggests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeepAliveAdvice {
    /// The network: a /24 of IPv4, a /48 of IPv6.
    pub network: Network,
    /// The URL of the listener.
    pub listener: Arc<str>,
    /// Number of connections.
    pub connections: u64,
    /// The longest silences that connections survived.
    pub survived: SurvivedSilences,
    /// The silences after which the network was gone.
    pub fatal: Option<FatalSilences>,
    /// The advised Keep Alive in seconds, 30 to 1,200; `None` if too little is known.
    pub advised_keep_alive_secs: Option<u16>,
    /// How certain the advice is.
    pub certainty: Option<AdviceCertainty>,
}

/// The longest silence of each connection that a packet of the client followed, in seconds. A silence
/// is a time without a packet of the client and without output to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SurvivedSilences {
    /// Half of the connections have a shorter one.
    pub p50_secs: u32,
    /// 90% have a shorter one.
    pub p90_secs: u32,
    /// 99% have a shorter one.
    pub p99_secs: u32,
    /// The longest one.
    pub max_secs: u32,
}

/// The silences after which the client was not heard of again: its packet was due by its Keep Alive and
/// did not come, or the network had dropped the connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FatalSilences {
    /// Their number.
    pub count: u64,
    /// The shortest one, in seconds.
    pub shortest_secs: u32,
    /// Half of them are shorter, in seconds.
    pub p50_secs: u32,
}

/// How many connections have survived a silence of the advised length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AdviceCertainty {
    /// Fewer than 10.
    Low,
    /// 10 to 99.
    Medium,
    /// 100 or more.
    High,
}

impl AdviceCertainty {
    /// Returns its name in REST answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}
