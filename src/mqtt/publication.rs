//! Builds an Application Message from the values that an application publishes.
//!
//! Checks what the decoder checks in the PUBLISH of a client, and what the broker checks before it
//! routes one. Does not know the configured limits. `Broker::publish` calls it.

use super::{
    EncodeError, Message, PacketId, ProtocolVersion, Publication, PublishAs, PublishFlags,
    PublishProperties, QoS, Timestamp, TopicError, UserPropertiesBuf,
    encode::PACKET_BYTES_MAX,
    is_of_the_broker, publish_size,
    sink::{ByteCount, Sink},
    validate_topic,
};

/// A message that an application publishes: with QoS 0, not retained and without properties, unless
/// it says otherwise.
///
/// Nothing is checked before the message is published, so that one error reports all faults.
///
/// ```
/// use hearthmq::mqtt::{PublicationBuilder, QoS};
///
/// let question = PublicationBuilder::new("cars/17/command", r#"{"do":"report"}"#)
///     .qos(QoS::AtLeastOnce)
///     .expiry_secs(30)
///     .content_type("application/json")
///     .response_topic("answers/fleet")
///     .correlation_data(b"4711")
///     .user_property("trace", "0af7651916cd43dd");
/// # let _ = question;
/// ```
#[derive(Clone)]
#[must_use = "a publication does nothing before it is published"]
pub struct PublicationBuilder<'a> {
    pub(super) topic: &'a str,
    pub(super) payload: &'a [u8],
    pub(super) qos: QoS,
    pub(super) retain: bool,
    /// All properties but the User Properties.
    pub(super) properties: PublishProperties<'a>,
    pub(super) user_properties: UserPropertiesBuf,
    /// Why the first unusable User Property is unusable.
    pub(super) unusable_user_property: Option<EncodeError>,
}

impl<'a> PublicationBuilder<'a> {
    /// Returns a message with this topic and payload.
    pub fn new(topic: &'a str, payload: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        Self {
            topic,
            payload: payload.as_ref(),
            qos: QoS::AtMostOnce,
            retain: false,
            properties: PublishProperties::default(),
            user_properties: UserPropertiesBuf::new(),
            unusable_user_property: None,
        }
    }

    /// Sets the QoS. A subscriber gets the message with this QoS or that of its subscription,
    /// whichever is lower.
    pub const fn qos(mut self, qos: QoS) -> Self {
        self.qos = qos;
        self
    }

    /// Sets whether the broker retains the message for later subscribers. A retained message with an
    /// empty payload removes the retained message of the topic. [MQTT-3.3.1-6]
    pub const fn retain(mut self, retain: bool) -> Self {
        self.retain = retain;
        self
    }

    /// Sets the Message Expiry Interval, in seconds. The broker drops the message for subscribers
    /// that have not received it by then. Without an interval it does not expire.
    pub const fn expiry_secs(mut self, secs: u32) -> Self {
        self.properties.message_expiry_interval = Some(secs);
        self
    }

    /// Sets the Payload Format Indicator to 1: the payload is text in UTF-8.
    pub const fn utf8_payload(mut self) -> Self {
        self.properties.payload_format_indicator = Some(true);
        self
    }

    /// Sets the Content Type, for example a MIME type.
    pub const fn content_type(mut self, content_type: &'a str) -> Self {
        self.properties.content_type = Some(content_type);
        self
    }

    /// Sets the Response Topic: where a receiver sends its answer.
    pub const fn response_topic(mut self, topic: &'a str) -> Self {
        self.properties.response_topic = Some(topic);
        self
    }

    /// Sets the Correlation Data, which a receiver returns in its answer.
    pub fn correlation_data(mut self, data: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        self.properties.correlation_data = Some(data.as_ref());
        self
    }

    /// Adds a User Property. Names may occur several times; the order stays.
    pub fn user_property(mut self, name: &str, value: &str) -> Self {
        if let Err(error) = self.user_properties.push(name, value) {
            self.unusable_user_property.get_or_insert(error);
        }
        self
    }

    /// Builds the message that is published at `now`.
    ///
    /// # Errors
    /// The topic or a property is invalid, the topic is reserved for the broker, or the message is
    /// larger than a packet can be.
    pub fn build(&self, now: Timestamp) -> Result<Message, PublicationError> {
        // Checked as the decoder does, so that an application cannot send what a client may not.
        validate_topic(self.topic)?;
        if is_of_the_broker(self.topic) {
            return Err(PublicationError::ReservedTopic);
        }
        // Before the encoding, which expects valid texts.
        self.check_properties()?;
        let user_properties = self.user_properties.as_user_properties();
        let forwarded = PublishProperties { user_properties, ..self.properties.clone() };
        let mut properties = Vec::new();
        forwarded.encode_forwarded(&mut properties);
        let expiry_secs = self.properties.message_expiry_interval;
        let publication = Publication {
            topic: self.topic,
            payload: self.payload,
            qos: self.qos,
            retain: self.retain,
            properties: &properties,
            expires_at: expiry_secs.map(|secs| now.plus_secs(u64::from(secs))),
        };
        // With QoS 1, because the identifier makes the packet larger.
        let sent_as = PublishAs {
            flags: PublishFlags { qos: QoS::AtLeastOnce, ..PublishFlags::default() },
            packet_id: PacketId::new(1),
            message_expiry_interval: expiry_secs,
            ..PublishAs::default()
        };
        if publish_size(ProtocolVersion::V5, &publication, &sent_as) > PACKET_BYTES_MAX {
            return Err(PublicationError::TooLarge);
        }
        Ok(Message::new(&publication))
    }

    fn check_properties(&self) -> Result<(), PublicationError> {
        let PublishProperties { payload_format_indicator, content_type, response_topic, .. } =
            self.properties;
        // Payload Format Indicator 1 promises UTF-8. [MQTT 5.0, 3.3.2.3.2]
        if payload_format_indicator == Some(true) && std::str::from_utf8(self.payload).is_err() {
            return Err(PublicationError::PayloadNotUtf8);
        }
        if let Some(topic) = response_topic {
            validate_topic(topic).map_err(PublicationError::ResponseTopic)?; // [MQTT-3.3.2-14]
        }
        // The sink checks text and length, and writes nothing.
        let mut count = ByteCount::default();
        if let Some(content_type) = content_type {
            count.string(content_type).map_err(PublicationError::ContentType)?;
        }
        if let Some(data) = self.properties.correlation_data {
            count.binary(data).map_err(PublicationError::CorrelationData)?;
        }
        self.unusable_user_property.map_or(Ok(()), |why| Err(PublicationError::UserProperty(why)))
    }
}

/// Why a message of an application cannot be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublicationError {
    /// The topic is not a valid Topic Name.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// Only the broker publishes under this topic, see [`is_of_the_broker`].
    #[error("topics under $events, $SYS, $control and $SETOPTS are reserved for the broker")]
    ReservedTopic,
    /// The Response Topic is not a valid Topic Name.
    #[error("response topic is invalid: {0}")]
    ResponseTopic(#[source] TopicError),
    /// The Content Type cannot be sent.
    #[error("content type is invalid: {0}")]
    ContentType(#[source] EncodeError),
    /// The Correlation Data cannot be sent.
    #[error("correlation data is invalid: {0}")]
    CorrelationData(#[source] EncodeError),
    /// A User Property cannot be sent.
    #[error("user property is invalid: {0}")]
    UserProperty(#[source] EncodeError),
    /// The Payload Format Indicator says UTF-8, and the payload is not.
    #[error("payload is not well-formed UTF-8")]
    PayloadNotUtf8,
    /// The message is larger than a packet can be: 268,435,455 bytes with topic and properties.
    #[error("message is longer than the protocol can express")]
    TooLarge,
}
