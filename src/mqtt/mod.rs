//! The protocol: decodes and encodes packets, and defines the terms of the MQTT specifications.
//!
//! One [`Packet`] type serves MQTT 3.1, 3.1.1 and 5.0; packets of older versions have no
//! properties. Decoded packets borrow from the read buffer, so a PUBLISH is routed without a copy.
//! Nothing here knows a session, a socket, a clock or an actor.

mod debug;
mod decode;
mod encode;
mod error;
mod message;
mod packet;
mod properties;
mod publication;
mod reason;
mod receipt;
mod sink;
mod time;
mod topic;
mod version;
mod wire;

pub use decode::{DecodeLimits, Decoded, decode, decode_connect, refusal_version, whole_length};
pub use encode::{
    PublishAs, TopicAlias, encode, encode_publish, encode_publish_with, encode_within,
    encoded_size, publish_size,
};
pub use error::{DecodeError, DecodeErrorKind, EncodeError};
pub(crate) use message::LARGE_BYTES_MIN;
pub use message::{Message, Publication};
pub use packet::{
    Ack, Auth, ConnAck, Connect, Disconnect, LastWill, Packet, Publish, PublishFlags, QoS,
    RetainHandling, SubAck, Subscribe, SubscribeFilter, SubscriptionOptions, UnsubAck, Unsubscribe,
};
pub use properties::{
    AckProperties, AuthProperties, ConnAckProperties, ConnectProperties, DisconnectProperties,
    PublishProperties, SubscribeProperties, UserProperties, UserPropertiesBuf, UserPropertiesIter,
    WillProperties,
};
pub use publication::{PublicationBuilder, PublicationError};
pub use reason::ReasonCode;
pub(crate) use receipt::{
    DeliveryCounts, DeliveryStep, DeliveryWatcher, Receipt, ReceiptCall, ReceiptLog,
};
pub use time::Timestamp;
pub use topic::{
    FilterParts, TopicError, filter_matches, is_of_the_broker, validate_filter, validate_topic,
};
pub use version::{PacketId, ProtocolVersion};
