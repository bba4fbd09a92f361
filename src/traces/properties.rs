//! The properties of packets as members of a JSON object.
//!
//! Knows the names of the specification, and which properties may hold contents of messages or secrets.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

use crate::mqtt::{
    AckProperties, ConnAckProperties, ConnectProperties, PublishProperties, UserProperties,
};

/// Maximum number of filters, Reason Codes and other items of one packet in a line.
pub(super) const ITEMS_MAX: usize = 64;
/// Bytes of a text that a line has.
const TEXT_BYTES_MAX: usize = 4 * 1024;
/// Bytes of Correlation Data that are shown.
const DATA_BYTES_MAX: usize = 1024;

/// Properties, as they are added. Those that a packet does not have are left out.
#[derive(Default)]
pub(super) struct RecordedProperties(Map<String, Value>);

impl RecordedProperties {
    pub(super) fn done(self) -> Map<String, Value> {
        self.0
    }

    fn value(mut self, name: &str, value: Option<Value>) -> Self {
        if let Some(value) = value {
            self.0.insert(name.to_owned(), value);
        }
        self
    }

    pub(super) fn number(self, name: &str, value: Option<u32>) -> Self {
        self.value(name, value.map(Value::from))
    }

    fn short(self, name: &str, value: Option<u16>) -> Self {
        self.value(name, value.map(Value::from))
    }

    fn flag(self, name: &str, value: Option<bool>) -> Self {
        self.value(name, value.map(Value::from))
    }

    pub(super) fn text(self, name: &str, value: Option<&str>) -> Self {
        self.value(name, value.map(|value| Value::from(text(value))))
    }

    /// Adds the number of bytes of a value that is never shown.
    pub(super) fn bytes(self, name: &str, value: Option<&[u8]>) -> Self {
        self.value(name, value.map(|value| Value::from(value.len())))
    }

    /// Adds the names of User Properties, and their values if they may be shown: a value may be a secret.
    pub(super) fn user_properties(self, pairs: UserProperties<'_>, with_values: bool) -> Self {
        if pairs.is_empty() {
            return self;
        }
        let shown = pairs.iter().take(ITEMS_MAX).map(|(key, value)| match with_values {
            true => json!({ "key": text(key), "value": text(value) }),
            false => json!({ "key": text(key) }),
        });
        let shown: Vec<Value> = shown.collect();
        self.value("user_properties", Some(shown.into()))
    }

    pub(super) fn publish(self, of: &PublishProperties<'_>, with_contents: bool) -> Self {
        let identifiers = of.subscription_identifiers.iter().take(ITEMS_MAX).copied();
        let identifiers: Vec<u32> = identifiers.collect();
        let format = of.payload_format_indicator.map(u16::from);
        // Correlation data is content, so it follows the option for contents.
        let data = of.correlation_data.filter(|_| with_contents);
        let data = data.map(|data| STANDARD.encode(&data[..data.len().min(DATA_BYTES_MAX)]));
        self.number("message_expiry_interval", of.message_expiry_interval)
            .short("topic_alias", of.topic_alias)
            .value(
                "subscription_identifiers",
                (!identifiers.is_empty()).then(|| identifiers.into()),
            )
            .short("payload_format_indicator", format)
            .text("content_type", of.content_type)
            .text("response_topic", of.response_topic)
            .bytes("correlation_data_bytes", of.correlation_data)
            .value("correlation_data_base64", data.map(Value::from))
            .user_properties(of.user_properties, with_contents)
    }

    pub(super) fn ack(self, of: &AckProperties<'_>) -> Self {
        self.text("reason_string", of.reason_string).user_properties(of.user_properties, false)
    }

    pub(super) fn connect(self, of: &ConnectProperties<'_>) -> Self {
        self.number("session_expiry_interval", of.session_expiry_interval)
            .short("receive_maximum", of.receive_maximum)
            .number("maximum_packet_size", of.maximum_packet_size)
            .short("topic_alias_maximum", of.topic_alias_maximum)
            .flag("request_response_information", of.request_response_information)
            .flag("request_problem_information", of.request_problem_information)
            .text("authentication_method", of.authentication_method)
            .bytes("authentication_data_bytes", of.authentication_data)
            .user_properties(of.user_properties, false)
    }

    pub(super) fn conn_ack(self, of: &ConnAckProperties<'_>) -> Self {
        self.number("session_expiry_interval", of.session_expiry_interval)
            .short("receive_maximum", of.receive_maximum)
            .short("maximum_qos", of.maximum_qos.map(u16::from))
            .flag("retain_available", of.retain_available)
            .number("maximum_packet_size", of.maximum_packet_size)
            .text("assigned_client_identifier", of.assigned_client_identifier)
            .short("topic_alias_maximum", of.topic_alias_maximum)
            .text("reason_string", of.reason_string)
            .flag("wildcard_subscription_available", of.wildcard_subscription_available)
            .flag("subscription_identifiers_available", of.subscription_identifiers_available)
            .flag("shared_subscription_available", of.shared_subscription_available)
            .short("server_keep_alive", of.server_keep_alive)
            .text("response_information", of.response_information)
            .text("server_reference", of.server_reference)
            .text("authentication_method", of.authentication_method)
            .bytes("authentication_data_bytes", of.authentication_data)
            .user_properties(of.user_properties, false)
    }
}

/// Returns the beginning of a text.
pub(super) fn text(text: &str) -> String {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}
