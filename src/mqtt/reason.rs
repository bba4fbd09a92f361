//! Reason Codes (section 2.4 of MQTT 5.0), and their equivalents in older versions.

use super::ProtocolVersion;

macro_rules! reason_codes {
    ($($(#[$doc:meta])* $name:ident = $value:literal),* $(,)?) => {
        /// A Reason Code. If a number has several names in the specification, this is the first one
        /// (0x00 is Success, Normal disconnection and Granted QoS 0).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        #[non_exhaustive]
        pub enum ReasonCode {
            $($(#[$doc])* $name = $value),*
        }

        impl ReasonCode {
            /// All Reason Codes, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// Returns the code of this number, if the specification defines it.
            #[must_use]
            pub const fn from_number(number: u8) -> Option<Self> {
                match number {
                    $($value => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

reason_codes! {
    /// Success; also Normal disconnection and Granted QoS 0.
    Success = 0x00,
    /// Granted QoS 1.
    GrantedQoS1 = 0x01,
    /// Granted QoS 2.
    GrantedQoS2 = 0x02,
    /// Disconnect with Will Message.
    DisconnectWithWill = 0x04,
    /// No matching subscribers.
    NoMatchingSubscribers = 0x10,
    /// No subscription existed.
    NoSubscriptionExisted = 0x11,
    /// Continue authentication.
    ContinueAuthentication = 0x18,
    /// Re-authenticate.
    ReAuthenticate = 0x19,
    /// Unspecified error.
    UnspecifiedError = 0x80,
    /// Malformed Packet.
    MalformedPacket = 0x81,
    /// Protocol Error.
    ProtocolError = 0x82,
    /// Implementation specific error.
    ImplementationSpecificError = 0x83,
    /// Unsupported Protocol Version.
    UnsupportedProtocolVersion = 0x84,
    /// Client Identifier not valid.
    ClientIdentifierNotValid = 0x85,
    /// Bad User Name or Password.
    BadUserNameOrPassword = 0x86,
    /// Not authorized.
    NotAuthorized = 0x87,
    /// Server unavailable.
    ServerUnavailable = 0x88,
    /// Server busy.
    ServerBusy = 0x89,
    /// Banned.
    Banned = 0x8A,
    /// Server shutting down.
    ServerShuttingDown = 0x8B,
    /// Bad authentication method.
    BadAuthenticationMethod = 0x8C,
    /// Keep Alive timeout.
    KeepAliveTimeout = 0x8D,
    /// Session taken over.
    SessionTakenOver = 0x8E,
    /// Topic Filter invalid.
    TopicFilterInvalid = 0x8F,
    /// Topic Name invalid.
    TopicNameInvalid = 0x90,
    /// Packet Identifier in use.
    PacketIdentifierInUse = 0x91,
    /// Packet Identifier not found.
    PacketIdentifierNotFound = 0x92,
    /// Receive Maximum exceeded.
    ReceiveMaximumExceeded = 0x93,
    /// Topic Alias invalid.
    TopicAliasInvalid = 0x94,
    /// Packet too large.
    PacketTooLarge = 0x95,
    /// Message rate too high.
    MessageRateTooHigh = 0x96,
    /// Quota exceeded.
    QuotaExceeded = 0x97,
    /// Administrative action.
    AdministrativeAction = 0x98,
    /// Payload format invalid.
    PayloadFormatInvalid = 0x99,
    /// Retain not supported.
    RetainNotSupported = 0x9A,
    /// QoS not supported.
    QoSNotSupported = 0x9B,
    /// Use another server.
    UseAnotherServer = 0x9C,
    /// Server moved.
    ServerMoved = 0x9D,
    /// Shared Subscriptions not supported.
    SharedSubscriptionsNotSupported = 0x9E,
    /// Connection rate exceeded.
    ConnectionRateExceeded = 0x9F,
    /// Maximum connect time.
    MaximumConnectTime = 0xA0,
    /// Subscription Identifiers not supported.
    SubscriptionIdentifiersNotSupported = 0xA1,
    /// Wildcard Subscriptions not supported.
    WildcardSubscriptionsNotSupported = 0xA2,
}

impl ReasonCode {
    /// Returns the code on the wire of MQTT 5.0.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// Returns whether the operation failed: 0x80 and above.
    #[must_use]
    pub const fn is_failure(self) -> bool {
        self as u8 >= 0x80
    }

    /// The codes of DISCONNECT (table 3-10). Section 2.4 lists Bad authentication method too, which
    /// that table omits.
    pub(super) const OF_DISCONNECT: &'static [Self] = &[
        Self::Success,
        Self::DisconnectWithWill,
        Self::UnspecifiedError,
        Self::MalformedPacket,
        Self::ProtocolError,
        Self::ImplementationSpecificError,
        Self::NotAuthorized,
        Self::ServerBusy,
        Self::ServerShuttingDown,
        Self::BadAuthenticationMethod,
        Self::KeepAliveTimeout,
        Self::SessionTakenOver,
        Self::TopicFilterInvalid,
        Self::TopicNameInvalid,
        Self::ReceiveMaximumExceeded,
        Self::TopicAliasInvalid,
        Self::PacketTooLarge,
        Self::MessageRateTooHigh,
        Self::QuotaExceeded,
        Self::AdministrativeAction,
        Self::PayloadFormatInvalid,
        Self::RetainNotSupported,
        Self::QoSNotSupported,
        Self::UseAnotherServer,
        Self::ServerMoved,
        Self::SharedSubscriptionsNotSupported,
        Self::ConnectionRateExceeded,
        Self::MaximumConnectTime,
        Self::SubscriptionIdentifiersNotSupported,
        Self::WildcardSubscriptionsNotSupported,
    ];

    /// Returns whether a server may send the code in DISCONNECT: all but those by which a client says
    /// that it ends the connection normally. [MQTT-3.14.2-1]
    #[must_use]
    pub const fn is_of_server_disconnect(self) -> bool {
        let mut at = 0;
        while at < Self::OF_DISCONNECT.len() {
            if Self::OF_DISCONNECT[at] as u8 == self as u8 {
                return self.is_failure();
            }
            at += 1;
        }
        false
    }

    /// Returns the code for CONNACK in `version`; for older versions this is the Connect Return
    /// code (table 3.1 of MQTT 3.1.1).
    #[must_use]
    #[expect(clippy::wildcard_enum_match_arm, reason = "MQTT 3 has five refusals, MQTT 5 more")]
    pub const fn connect_return_code(self, version: ProtocolVersion) -> u8 {
        if version.has_properties() {
            return self.number();
        }
        match self {
            Self::Success => 0,
            Self::UnsupportedProtocolVersion => 1,
            Self::ClientIdentifierNotValid => 2,
            Self::BadUserNameOrPassword => 4,
            Self::NotAuthorized | Self::Banned | Self::BadAuthenticationMethod => 5,
            _ => 3,
        }
    }

    /// Returns the code for CONNACK when a connection ends before it is accepted: CONNACK lacks
    /// some codes of DISCONNECT (section 3.2.2.2).
    #[must_use]
    #[expect(clippy::wildcard_enum_match_arm, reason = "all other codes become Unspecified error")]
    pub const fn in_conn_ack(self) -> Self {
        match self {
            // A later connection has the session, so trying again makes sense.
            Self::SessionTakenOver => Self::ServerBusy,
            // All three are over when another attempt is made.
            Self::ServerShuttingDown | Self::KeepAliveTimeout | Self::AdministrativeAction => {
                Self::ServerUnavailable
            }
            // CONNACK has these codes too.
            Self::UseAnotherServer
            | Self::ServerMoved
            | Self::NotAuthorized
            | Self::Banned
            | Self::QuotaExceeded
            | Self::PacketTooLarge
            | Self::MalformedPacket
            | Self::ProtocolError => self,
            _ => Self::UnspecifiedError,
        }
    }
}
