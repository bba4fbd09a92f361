//! The possible events of the world, as data: drawn from a seed in advance, so that a failing list
//! can be shortened and tried again.
//!
//! A step says what should happen, not whether it can: a step that makes no sense when its turn
//! comes (a PUBLISH of an offline client) is skipped.

use hearthmq::mqtt::{ProtocolVersion, QoS, SubscriptionOptions};

/// One event, and the order of the mail between shards while it happens.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    pub(crate) step: Step,
    /// The seed of that order.
    pub(crate) mail: u64,
}

/// One event. Clients, topics and filters are indices into the vocabulary.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Connect {
        client: usize,
        how: How,
    },
    Subscribe {
        client: usize,
        asked: Vec<(usize, SubscriptionOptions)>,
        identifier: Option<u32>,
    },
    Unsubscribe {
        client: usize,
        filter: usize,
    },
    Publish {
        client: usize,
        what: What,
        times: u8,
        alias: bool,
    },
    /// The application that embeds the broker publishes.
    HostPublish {
        what: What,
    },
    /// Continues one of the exchanges that wait for this client.
    Continue {
        client: usize,
        nth: usize,
        refuse: bool,
    },
    /// Continues all of them.
    ContinueAll {
        client: usize,
    },
    /// From now on the client answers at once, or only when told to.
    Answers {
        client: usize,
        at_once: bool,
    },
    /// The client starts or stops reading.
    Reads {
        client: usize,
        reads: bool,
    },
    /// The client's next packet is sent in two pieces, the first of this length.
    Halve {
        client: usize,
        at: usize,
    },
    Ping {
        client: usize,
    },
    Disconnect {
        client: usize,
        with_will: bool,
        expiry_secs: Option<u32>,
    },
    /// The line breaks after the client has read this many bytes and sent this many of a PUBLISH.
    Cut {
        client: usize,
        read: usize,
        sent: usize,
        qos: QoS,
    },
    Misbehave {
        client: usize,
        how: Misdeed,
    },
    Kick {
        client: usize,
        end_session: bool,
        will: bool,
    },
    SetKeepAlive {
        client: usize,
        secs: u16,
    },
    /// Sets rates that nothing here exceeds, and these limits, or removes all of them.
    ChangeSettings {
        client: usize,
        in_flight_max: Option<u16>,
        expiry_secs: Option<u32>,
        removes: bool,
    },
    /// A caller bans some of the clients, for a time or until the ban is lifted.
    Ban {
        ban: usize,
        secs: Option<u8>,
    },
    LiftBan {
        ban: usize,
    },
    /// A caller adds a rule to the store, or removes it.
    ChangeRule {
        rule: usize,
        adds: bool,
    },
    /// A caller makes an API token or removes it, or somebody uses all that were ever made.
    ChangeToken {
        token: usize,
        adds: bool,
    },
    UseTokens,
    /// A client may not have one of its subscriptions while all clients are examined again.
    Deny {
        client: usize,
        nth: usize,
    },
    /// A client is read slowly for a moment.
    SlowDown {
        client: usize,
    },
    /// A caller looks at the history of a client, and at the advice on Keep Alive.
    LookBack {
        client: usize,
    },
    /// A follower reads the next part of the feed, or all parts.
    Follow {
        follower: usize,
        items: usize,
        to_end: bool,
    },
    Wait {
        millis: u64,
    },
    /// The broker is cut off this many turns after something has started, and after each client has
    /// read a number of bytes more; then another one starts on its store. The writes of this many
    /// last steps were not synced, and are lost.
    Crash {
        during: Option<Box<Self>>,
        turns: u8,
        read: usize,
        loses: usize,
        /// A client may no longer have this subscription when the next broker begins.
        denied: Option<(usize, usize)>,
        /// Mail that is not delivered any more on these routes between shards.
        held: u16,
        /// Gives the next broker its number of shards, and each client its home.
        homes: u64,
    },
    /// Two clients act at the same time: mail that the first causes is held back on these routes
    /// between shards until the second has acted, this many turns later.
    Cross {
        first: Box<Self>,
        turns: u8,
        second: Box<Self>,
        /// One bit for each pair of shards.
        held: u16,
    },
    /// The store fails from now on, or works again.
    Fail {
        fails: bool,
    },
}

/// A CONNECT.
#[derive(Clone, Debug)]
pub(crate) struct How {
    pub(crate) version: ProtocolVersion,
    pub(crate) clean_start: bool,
    pub(crate) keep_alive_secs: u16,
    pub(crate) expiry_secs: Option<u32>,
    /// How long the credentials are valid.
    pub(crate) identity_secs: Option<u8>,
    pub(crate) receive_maximum: Option<u16>,
    pub(crate) is_small: bool,
    pub(crate) has_aliases: bool,
    pub(crate) will: Option<WillHow>,
    /// Uses a pipe that holds little, so that the broker must wait for its reader.
    pub(crate) is_narrow: bool,
    /// A PUBLISH directly after CONNECT.
    pub(crate) says_at_once: Option<What>,
}

#[derive(Clone, Debug)]
pub(crate) struct WillHow {
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) delay_secs: Option<u32>,
    pub(crate) expiry_secs: Option<u32>,
}

/// A message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct What {
    pub(crate) topic: usize,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) expiry_secs: Option<u32>,
    pub(crate) size: Size,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    /// No payload; together with RETAIN it clears the topic.
    Empty,
    Small,
    /// More than a client with a small Maximum Packet Size accepts.
    Large,
    /// A few of them fill the output that the broker encodes ahead for one reader.
    Huge,
}

/// Mistakes of a client.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Misdeed {
    SecondConnect,
    ReservedType,
    ServersPacket,
    AliasOfNothing,
    WildcardInTopic,
}

impl Step {
    /// Returns the client that must be connected.
    pub(crate) const fn client(&self) -> Option<usize> {
        match *self {
            Self::Subscribe { client, .. }
            | Self::Unsubscribe { client, .. }
            | Self::Publish { client, .. }
            | Self::Continue { client, .. }
            | Self::ContinueAll { client }
            | Self::Answers { client, .. }
            | Self::Reads { client, .. }
            | Self::Halve { client, .. }
            | Self::Ping { client }
            | Self::Disconnect { client, .. }
            | Self::Cut { client, .. }
            | Self::Misbehave { client, .. } => Some(client),
            Self::Connect { .. }
            | Self::HostPublish { .. }
            | Self::Kick { .. }
            | Self::SetKeepAlive { .. }
            | Self::ChangeSettings { .. }
            | Self::Ban { .. }
            | Self::LiftBan { .. }
            | Self::ChangeRule { .. }
            | Self::ChangeToken { .. }
            | Self::UseTokens
            | Self::Deny { .. }
            | Self::SlowDown { .. }
            | Self::LookBack { .. }
            | Self::Follow { .. }
            | Self::Wait { .. }
            | Self::Crash { .. }
            | Self::Cross { .. }
            | Self::Fail { .. } => None,
        }
    }
}
