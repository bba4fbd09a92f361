//! Encodes the properties of each packet (section 2.2.2), without Property Length.
//!
//! Does not know the packet; called by `encode`, and for stored messages.

use crate::mqtt::{
    AckProperties, AuthProperties, ConnAckProperties, ConnectProperties, DisconnectProperties,
    EncodeError, PublishProperties, SubscribeProperties, UserProperties, WillProperties,
    sink::{ByteCount, Sink},
    wire::identifier,
};

/// Which properties with explanations are written.
#[derive(Clone, Copy)]
pub(super) struct Details {
    reason_string: bool,
    user_properties: bool,
}

impl Details {
    pub(super) const ALL: Self = Self { reason_string: true, user_properties: true };
    pub(super) const NO_USER_PROPERTIES: Self =
        Self { reason_string: true, user_properties: false };
    pub(super) const NONE: Self = Self { reason_string: false, user_properties: false };

    fn write<S: Sink>(
        self,
        reason_string: Option<&str>,
        user_properties: UserProperties<'_>,
        sink: &mut S,
    ) -> Result<(), EncodeError> {
        if self.reason_string {
            string(identifier::REASON_STRING, reason_string, sink)?;
        }
        if self.user_properties {
            write_user_properties(user_properties, sink)?;
        }
        Ok(())
    }
}

/// Properties that can be encoded.
pub(super) trait WriteProperties {
    /// Writes identifiers and values; `details` applies to a server's answers only.
    fn write<S: Sink>(&self, details: Details, sink: &mut S) -> Result<(), EncodeError>;
}

fn byte<S: Sink>(property: u8, value: Option<impl Into<u8>>, sink: &mut S) {
    if let Some(value) = value {
        sink.put(&[property, value.into()]);
    }
}

fn u16<S: Sink>(property: u8, value: Option<u16>, sink: &mut S) {
    if let Some(value) = value {
        sink.u8(property);
        sink.u16(value);
    }
}

fn u32<S: Sink>(property: u8, value: Option<u32>, sink: &mut S) {
    if let Some(value) = value {
        sink.u8(property);
        sink.u32(value);
    }
}

fn variable<S: Sink>(property: u8, value: u32, sink: &mut S) -> Result<(), EncodeError> {
    sink.u8(property);
    sink.variable_byte_integer(value as usize)
}

fn string<S: Sink>(property: u8, value: Option<&str>, sink: &mut S) -> Result<(), EncodeError> {
    let Some(value) = value else { return Ok(()) };
    sink.u8(property);
    sink.string(value)
}

fn binary<S: Sink>(property: u8, value: Option<&[u8]>, sink: &mut S) -> Result<(), EncodeError> {
    let Some(value) = value else { return Ok(()) };
    sink.u8(property);
    sink.binary(value)
}

fn write_user_properties<S: Sink>(
    properties: UserProperties<'_>,
    sink: &mut S,
) -> Result<(), EncodeError> {
    properties.iter().try_for_each(|(name, value)| sink.user_property(name, value))
}

impl WriteProperties for ConnectProperties<'_> {
    fn write<S: Sink>(&self, _: Details, sink: &mut S) -> Result<(), EncodeError> {
        u32(identifier::SESSION_EXPIRY_INTERVAL, self.session_expiry_interval, sink);
        u16(identifier::RECEIVE_MAXIMUM, self.receive_maximum, sink);
        u32(identifier::MAXIMUM_PACKET_SIZE, self.maximum_packet_size, sink);
        u16(identifier::TOPIC_ALIAS_MAXIMUM, self.topic_alias_maximum, sink);
        byte(identifier::REQUEST_RESPONSE_INFORMATION, self.request_response_information, sink);
        byte(identifier::REQUEST_PROBLEM_INFORMATION, self.request_problem_information, sink);
        write_user_properties(self.user_properties, sink)?;
        string(identifier::AUTHENTICATION_METHOD, self.authentication_method, sink)?;
        binary(identifier::AUTHENTICATION_DATA, self.authentication_data, sink)
    }
}

impl WriteProperties for WillProperties<'_> {
    fn write<S: Sink>(&self, _: Details, sink: &mut S) -> Result<(), EncodeError> {
        u32(identifier::WILL_DELAY_INTERVAL, self.will_delay_interval, sink);
        u32(identifier::MESSAGE_EXPIRY_INTERVAL, self.publish.message_expiry_interval, sink);
        self.publish.write_forwarded(sink)
    }
}

impl WriteProperties for PublishProperties<'_> {
    fn write<S: Sink>(&self, _: Details, sink: &mut S) -> Result<(), EncodeError> {
        u32(identifier::MESSAGE_EXPIRY_INTERVAL, self.message_expiry_interval, sink);
        u16(identifier::TOPIC_ALIAS, self.topic_alias, sink);
        for &value in &self.subscription_identifiers {
            variable(identifier::SUBSCRIPTION_IDENTIFIER, value, sink)?;
        }
        self.write_forwarded(sink)
    }
}

impl PublishProperties<'_> {
    /// Returns whether there is nothing to forward, so that a message needs no buffer for
    /// properties.
    #[must_use]
    pub const fn is_plain(&self) -> bool {
        self.payload_format_indicator.is_none()
            && self.content_type.is_none()
            && self.response_topic.is_none()
            && self.correlation_data.is_none()
            && self.user_properties.is_empty()
    }

    /// Appends the properties that a server must forward unaltered, in the format of
    /// `Publication::properties`: Payload Format Indicator, Content Type, Response Topic,
    /// Correlation Data, and User Properties in their order. [MQTT-3.3.2-4] [MQTT-3.3.2-15]
    /// [MQTT-3.3.2-16] [MQTT-3.3.2-17] [MQTT-3.3.2-18] [MQTT-3.3.2-20]
    ///
    /// Decoded properties can always be encoded. Nothing is appended if properties from another
    /// source contain a string over 65,535 bytes or with the null character.
    pub fn encode_forwarded(&self, out: &mut Vec<u8>) {
        let mut count = ByteCount::default();
        if self.write_forwarded(&mut count).is_ok() {
            out.reserve(count.bytes());
            self.write_forwarded(out).expect("what can be counted can be written");
        }
    }

    fn write_forwarded<S: Sink>(&self, sink: &mut S) -> Result<(), EncodeError> {
        byte(identifier::PAYLOAD_FORMAT_INDICATOR, self.payload_format_indicator, sink);
        string(identifier::CONTENT_TYPE, self.content_type, sink)?;
        string(identifier::RESPONSE_TOPIC, self.response_topic, sink)?;
        binary(identifier::CORRELATION_DATA, self.correlation_data, sink)?;
        write_user_properties(self.user_properties, sink)
    }
}

impl WriteProperties for ConnAckProperties<'_> {
    fn write<S: Sink>(&self, details: Details, sink: &mut S) -> Result<(), EncodeError> {
        u32(identifier::SESSION_EXPIRY_INTERVAL, self.session_expiry_interval, sink);
        u16(identifier::RECEIVE_MAXIMUM, self.receive_maximum, sink);
        byte(identifier::MAXIMUM_QOS, self.maximum_qos, sink);
        byte(identifier::RETAIN_AVAILABLE, self.retain_available, sink);
        u32(identifier::MAXIMUM_PACKET_SIZE, self.maximum_packet_size, sink);
        string(identifier::ASSIGNED_CLIENT_IDENTIFIER, self.assigned_client_identifier, sink)?;
        u16(identifier::TOPIC_ALIAS_MAXIMUM, self.topic_alias_maximum, sink);
        // Only these two may be left out to make the packet fit.
        details.write(self.reason_string, self.user_properties, sink)?;
        byte(
            identifier::WILDCARD_SUBSCRIPTION_AVAILABLE,
            self.wildcard_subscription_available,
            sink,
        );
        byte(
            identifier::SUBSCRIPTION_IDENTIFIERS_AVAILABLE,
            self.subscription_identifiers_available,
            sink,
        );
        byte(identifier::SHARED_SUBSCRIPTION_AVAILABLE, self.shared_subscription_available, sink);
        u16(identifier::SERVER_KEEP_ALIVE, self.server_keep_alive, sink);
        string(identifier::RESPONSE_INFORMATION, self.response_information, sink)?;
        string(identifier::SERVER_REFERENCE, self.server_reference, sink)?;
        string(identifier::AUTHENTICATION_METHOD, self.authentication_method, sink)?;
        binary(identifier::AUTHENTICATION_DATA, self.authentication_data, sink)
    }
}

impl WriteProperties for AckProperties<'_> {
    fn write<S: Sink>(&self, details: Details, sink: &mut S) -> Result<(), EncodeError> {
        details.write(self.reason_string, self.user_properties, sink)
    }
}

impl WriteProperties for SubscribeProperties<'_> {
    fn write<S: Sink>(&self, _: Details, sink: &mut S) -> Result<(), EncodeError> {
        if let Some(value) = self.subscription_identifier {
            variable(identifier::SUBSCRIPTION_IDENTIFIER, value, sink)?;
        }
        write_user_properties(self.user_properties, sink)
    }
}

impl WriteProperties for UserProperties<'_> {
    fn write<S: Sink>(&self, _: Details, sink: &mut S) -> Result<(), EncodeError> {
        write_user_properties(*self, sink)
    }
}

impl WriteProperties for DisconnectProperties<'_> {
    fn write<S: Sink>(&self, details: Details, sink: &mut S) -> Result<(), EncodeError> {
        u32(identifier::SESSION_EXPIRY_INTERVAL, self.session_expiry_interval, sink);
        details.write(self.reason_string, self.user_properties, sink)?;
        string(identifier::SERVER_REFERENCE, self.server_reference, sink)
    }
}

impl WriteProperties for AuthProperties<'_> {
    fn write<S: Sink>(&self, details: Details, sink: &mut S) -> Result<(), EncodeError> {
        string(identifier::AUTHENTICATION_METHOD, self.authentication_method, sink)?;
        binary(identifier::AUTHENTICATION_DATA, self.authentication_data, sink)?;
        details.write(self.reason_string, self.user_properties, sink)
    }
}
