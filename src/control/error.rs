//! Why a request about live clients fails.

/// Why the broker did not carry out a request. Nothing has changed, except that a redirect of
/// several clients may have redirected some of them, and as a variant says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// No client with this identifier is connected.
    #[error("client is not connected")]
    NotOnline,
    /// The client connected with Keep Alive 0, so its Keep Alive stays off.
    #[error("client has its keep alive turned off")]
    KeepAliveDisabled,
    /// The interval is 0, which would turn Keep Alive off; only the client may do that.
    #[error("an interval of 0 is not allowed")]
    InvalidInterval,
    /// The client identifier is too long for a sticky value: `client_id_bytes_max` allows no such
    /// client, or the store no such name.
    #[error("client identifier is too long for a sticky value: it may have {bytes_max} bytes")]
    ClientIdTooLong {
        /// The most bytes that it may have.
        bytes_max: usize,
    },
    /// The user name is too long for sticky settings.
    #[error("user name is too long for sticky settings")]
    UsernameTooLong,
    /// There are as many sticky values as the limit allows.
    #[error("too many sticky values")]
    TooManyOverrides,
    /// The user has as many sticky values as the limit of one user allows.
    #[error("too many sticky values of one user")]
    TooManyOverridesOfUser,
    /// The setting of this name is out of its range.
    #[error("the setting {0} is out of its range")]
    InvalidSetting(&'static str),
    /// The session ends with its connection, so it cannot be given a Session Expiry Interval.
    #[error("session ends with its connection")]
    SessionNotLasting,
    /// The topic is longer or deeper than the limits allow.
    #[error("topic is longer or deeper than the broker's limits allow")]
    TopicOverLimits,
    /// The message is larger than the packets that the broker accepts.
    #[error("message is larger than packet_bytes_max")]
    MessageTooLarge,
    /// There is no room for a further retained message.
    #[error("no room for a further retained message")]
    RetainedFull,
    /// The message matches more sessions than a call can wait for.
    #[error("message matches more sessions than a call can wait for")]
    TooManyDeliveries,
    /// No session matches the topic of a request, so no reply can come.
    #[error("no session matches the topic")]
    NoSubscriber,
    /// No trace has this identifier.
    #[error("no such trace")]
    TraceNotFound,
    /// As many traces run as the limit allows, in all or of one caller.
    #[error("too many traces")]
    TooManyTraces,
    /// The node of the cluster that has the client has not answered in time. A change may have been made.
    #[error("the node that has the client does not answer")]
    NodeUnreachable,
    /// The session of the client is on a node of the cluster that is dead, or has not joined again.
    #[error("the session of the client is on a node that does not serve")]
    NodeDown,
    /// The broker does not serve in its cluster now, so it does not know which node has the client.
    #[error("broker does not serve in its cluster now")]
    ClusterUnavailable,
    /// The broker is shutting down, or the connection cannot accept another request now.
    #[error("broker cannot accept the request now")]
    Unavailable,
    /// No answer came in time.
    #[error("no answer in time")]
    Timeout,
}
