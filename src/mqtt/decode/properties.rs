//! Decodes the properties of each packet (section 2.2.2).
//!
//! Knows which properties a packet may have, how often and with which values; not their meaning.
//! Called by the packet decoders, and to show stored messages.

use crate::mqtt::{
    AckProperties, AuthProperties, ConnAckProperties, ConnectProperties, DecodeError,
    DecodeErrorKind, DisconnectProperties, PublishProperties, SubscribeProperties, UserProperties,
    WillProperties,
    wire::{Reader, identifier},
};

/// Reads the properties of one packet in sequence.
struct PropertyBlock<'a> {
    whole: &'a [u8],
    reader: Reader<'a>,
    /// The identifier of the property whose value comes next.
    identifier: u8,
    user_properties: UserPropertiesSpan,
    /// The section that defines the properties of this packet.
    section: &'static str,
}

/// The range from the first User Property to the end of the last one.
#[derive(Clone, Copy)]
struct UserPropertiesSpan {
    start: usize,
    end: usize,
}

impl<'a> PropertyBlock<'a> {
    /// Reads Property Length and the properties. [MQTT-2.2.2-1]
    #[inline]
    fn read(body: &mut Reader<'a>, section: &'static str) -> Result<Self, DecodeError> {
        let length = body.variable_byte_integer()?;
        Ok(Self::of(body.take(length as usize)?, section))
    }

    #[inline]
    const fn of(whole: &'a [u8], section: &'static str) -> Self {
        let user_properties = UserPropertiesSpan { start: 0, end: 0 };
        Self { whole, reader: Reader::new(whole), identifier: 0, user_properties, section }
    }

    /// Returns the next identifier, or `None` at the end.
    #[inline]
    fn next(&mut self) -> Option<u8> {
        self.identifier = self.reader.u8().ok()?;
        Some(self.identifier)
    }

    /// Stores a value in an empty slot; a second value is an error.
    #[inline]
    fn once<T>(&self, slot: &mut Option<T>, value: T) -> Result<(), DecodeError> {
        if slot.replace(value).is_none() {
            return Ok(());
        }
        let kind = DecodeErrorKind::DuplicateProperty { identifier: self.identifier };
        Err(DecodeError::new(kind, self.section))
    }

    fn u32(&mut self, slot: &mut Option<u32>) -> Result<(), DecodeError> {
        let value = self.reader.u32()?;
        self.once(slot, value)
    }

    fn u32_not_zero(&mut self, slot: &mut Option<u32>) -> Result<(), DecodeError> {
        let value = self.reader.u32()?;
        if value == 0 {
            return Err(self.wrong_value());
        }
        self.once(slot, value)
    }

    fn u16(&mut self, slot: &mut Option<u16>) -> Result<(), DecodeError> {
        let value = self.reader.u16()?;
        self.once(slot, value)
    }

    fn u16_not_zero(&mut self, slot: &mut Option<u16>) -> Result<(), DecodeError> {
        let value = self.reader.u16()?;
        if value == 0 {
            return Err(self.wrong_value());
        }
        self.once(slot, value)
    }

    fn zero_or_one(&mut self, slot: &mut Option<u8>) -> Result<(), DecodeError> {
        let value = self.reader.u8()?;
        if value > 1 {
            return Err(self.wrong_value());
        }
        self.once(slot, value)
    }

    fn boolean(&mut self, slot: &mut Option<bool>) -> Result<(), DecodeError> {
        let value = self.reader.u8()?;
        if value > 1 {
            return Err(self.wrong_value());
        }
        self.once(slot, value == 1)
    }

    fn string(&mut self, slot: &mut Option<&'a str>) -> Result<(), DecodeError> {
        let value = self.reader.string()?;
        self.once(slot, value)
    }

    fn binary(&mut self, slot: &mut Option<&'a [u8]>) -> Result<(), DecodeError> {
        let value = self.reader.binary()?;
        self.once(slot, value)
    }

    /// Reads a Response Topic (section 3.3.2.3.5).
    fn response_topic(&mut self, slot: &mut Option<&'a str>) -> Result<(), DecodeError> {
        let topic = self.reader.string()?;
        if topic.is_empty() || topic.contains(['+', '#']) {
            return Err(DecodeError::new(DecodeErrorKind::ResponseTopic, "MQTT-3.3.2-14"));
        }
        self.once(slot, topic)
    }

    fn subscription_identifier(&mut self) -> Result<u32, DecodeError> {
        match self.reader.variable_byte_integer()? {
            0 => Err(self.wrong_value()),
            value => Ok(value),
        }
    }

    fn user_property(&mut self) -> Result<(), DecodeError> {
        let at = self.whole.len() - self.reader.len();
        self.reader.string()?; // both must be UTF-8 Encoded Strings [MQTT-1.5.7-1]
        self.reader.string()?;
        if self.user_properties.end == 0 {
            self.user_properties.start = at - 1;
        }
        self.user_properties.end = self.whole.len() - self.reader.len();
        Ok(())
    }

    fn user_properties(&self) -> UserProperties<'a> {
        let UserPropertiesSpan { start, end } = self.user_properties;
        UserProperties { encoded: &self.whole[start..end] }
    }

    #[cold]
    fn wrong_value(&self) -> DecodeError {
        let kind = DecodeErrorKind::PropertyValue { identifier: self.identifier };
        DecodeError::new(kind, self.section)
    }

    #[cold]
    fn not_allowed(&self) -> DecodeError {
        let kind = DecodeErrorKind::PropertyNotAllowed { identifier: self.identifier };
        DecodeError::new(kind, "section 2.2.2.2")
    }
}

impl<'a> ConnectProperties<'a> {
    pub(super) fn decode(body: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let mut block = PropertyBlock::read(body, "section 3.1.2.11")?;
        let mut this = Self::default();
        while let Some(property) = block.next() {
            match property {
                identifier::SESSION_EXPIRY_INTERVAL => {
                    block.u32(&mut this.session_expiry_interval)?;
                }
                identifier::RECEIVE_MAXIMUM => block.u16_not_zero(&mut this.receive_maximum)?,
                identifier::MAXIMUM_PACKET_SIZE => {
                    block.u32_not_zero(&mut this.maximum_packet_size)?;
                }
                identifier::TOPIC_ALIAS_MAXIMUM => block.u16(&mut this.topic_alias_maximum)?,
                identifier::REQUEST_RESPONSE_INFORMATION => {
                    block.boolean(&mut this.request_response_information)?;
                }
                identifier::REQUEST_PROBLEM_INFORMATION => {
                    block.boolean(&mut this.request_problem_information)?;
                }
                identifier::USER_PROPERTY => block.user_property()?,
                identifier::AUTHENTICATION_METHOD => {
                    block.string(&mut this.authentication_method)?;
                }
                identifier::AUTHENTICATION_DATA => block.binary(&mut this.authentication_data)?,
                _ => return Err(block.not_allowed()),
            }
        }
        // Checked after the loop, because the properties may come in any order.
        if this.authentication_data.is_some() && this.authentication_method.is_none() {
            let kind = DecodeErrorKind::AuthenticationMethodMissing;
            return Err(DecodeError::new(kind, "section 3.1.2.11.10"));
        }
        // Borrowed as encoded, so that many User Properties cost no allocation.
        this.user_properties = block.user_properties();
        Ok(this)
    }
}

impl<'a> WillProperties<'a> {
    pub(super) fn decode(body: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let mut block = PropertyBlock::read(body, "section 3.1.3.2")?;
        let mut this = Self::default();
        while let Some(property) = block.next() {
            match property {
                identifier::WILL_DELAY_INTERVAL => block.u32(&mut this.will_delay_interval)?,
                _ => this.publish.decode_common(property, &mut block)?,
            }
        }
        this.publish.user_properties = block.user_properties();
        Ok(this)
    }
}

impl<'a> PublishProperties<'a> {
    /// Few messages have properties, so the empty case is inlined.
    #[inline]
    pub(super) fn decode(body: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let block = PropertyBlock::read(body, "section 3.3.2.3")?;
        if block.whole.is_empty() { Ok(Self::default()) } else { Self::decode_block(block) }
    }

    fn decode_block(mut block: PropertyBlock<'a>) -> Result<Self, DecodeError> {
        let mut this = Self::default();
        while let Some(property) = block.next() {
            match property {
                identifier::TOPIC_ALIAS => {
                    let alias = block.reader.u16()?;
                    if alias == 0 {
                        let kind = DecodeErrorKind::TopicAliasZero;
                        return Err(DecodeError::new(kind, "MQTT-3.3.2-8"));
                    }
                    block.once(&mut this.topic_alias, alias)?;
                }
                identifier::SUBSCRIPTION_IDENTIFIER => {
                    // A broker may send several of them, one for each matching subscription. [MQTT-3.3.4-4]
                    this.subscription_identifiers.push(block.subscription_identifier()?);
                }
                _ => this.decode_common(property, &mut block)?,
            }
        }
        this.user_properties = block.user_properties();
        Ok(this)
    }

    /// Reads a property that a Will may have too.
    fn decode_common(
        &mut self,
        property: u8,
        block: &mut PropertyBlock<'a>,
    ) -> Result<(), DecodeError> {
        match property {
            identifier::PAYLOAD_FORMAT_INDICATOR => {
                block.boolean(&mut self.payload_format_indicator)
            }
            identifier::MESSAGE_EXPIRY_INTERVAL => block.u32(&mut self.message_expiry_interval),
            identifier::CONTENT_TYPE => block.string(&mut self.content_type),
            identifier::RESPONSE_TOPIC => block.response_topic(&mut self.response_topic),
            identifier::CORRELATION_DATA => block.binary(&mut self.correlation_data),
            identifier::USER_PROPERTY => block.user_property(),
            _ => Err(block.not_allowed()),
        }
    }

    /// Decodes the properties of a stored message: the inverse of
    /// [`PublishProperties::encode_forwarded`].
    ///
    /// Returns no properties if `encoded` is invalid.
    #[must_use]
    pub fn decode_forwarded(encoded: &'a [u8]) -> Self {
        Self::decode_block(PropertyBlock::of(encoded, "section 3.3.2.3")).unwrap_or_default()
    }
}

impl<'a> ConnAckProperties<'a> {
    pub(super) fn decode(body: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let mut block = PropertyBlock::read(body, "section 3.2.2.3")?;
        let mut this = Self::default();
        while let Some(property) = block.next() {
            match property {
                identifier::SESSION_EXPIRY_INTERVAL => {
                    block.u32(&mut this.session_expiry_interval)?;
                }
                identifier::ASSIGNED_CLIENT_IDENTIFIER => {
                    block.string(&mut this.assigned_client_identifier)?;
                }
                identifier::SERVER_KEEP_ALIVE => block.u16(&mut this.server_keep_alive)?,
                identifier::RESPONSE_INFORMATION => block.string(&mut this.response_information)?,
                identifier::SERVER_REFERENCE => block.string(&mut this.server_reference)?,
                identifier::REASON_STRING => block.string(&mut this.reason_string)?,
                identifier::USER_PROPERTY => block.user_property()?,
                identifier::AUTHENTICATION_METHOD => {
                    block.string(&mut this.authentication_method)?;
                }
                identifier::AUTHENTICATION_DATA => block.binary(&mut this.authentication_data)?,
                _ => this.decode_capability(property, &mut block)?,
            }
        }
        // Borrowed as encoded, so that many User Properties cost no allocation.
        this.user_properties = block.user_properties();
        Ok(this)
    }

    /// Reads a property about the server's capabilities.
    fn decode_capability(
        &mut self,
        property: u8,
        block: &mut PropertyBlock<'a>,
    ) -> Result<(), DecodeError> {
        match property {
            identifier::RECEIVE_MAXIMUM => block.u16_not_zero(&mut self.receive_maximum),
            identifier::MAXIMUM_QOS => block.zero_or_one(&mut self.maximum_qos),
            identifier::RETAIN_AVAILABLE => block.boolean(&mut self.retain_available),
            identifier::MAXIMUM_PACKET_SIZE => block.u32_not_zero(&mut self.maximum_packet_size),
            identifier::TOPIC_ALIAS_MAXIMUM => block.u16(&mut self.topic_alias_maximum),
            identifier::WILDCARD_SUBSCRIPTION_AVAILABLE => {
                block.boolean(&mut self.wildcard_subscription_available)
            }
            identifier::SUBSCRIPTION_IDENTIFIERS_AVAILABLE => {
                block.boolean(&mut self.subscription_identifiers_available)
            }
            identifier::SHARED_SUBSCRIPTION_AVAILABLE => {
                block.boolean(&mut self.shared_subscription_available)
            }
            _ => Err(block.not_allowed()),
        }
    }
}

impl<'a> AckProperties<'a> {
    pub(super) fn decode(
        body: &mut Reader<'a>,
        section: &'static str,
    ) -> Result<Self, DecodeError> {
        let mut block = PropertyBlock::read(body, section)?;
        let mut this = Self::default();
        while let Some(property) = block.next() {
            match property {
                identifier::REASON_STRING => block.string(&mut this.reason_string)?,
                identifier::USER_PROPERTY => block.user_property()?,
                _ => return Err(block.not_allowed()),
            }
        }
        this.user_properties = block.user_properties();
        Ok(this)
    }
}

impl<'a> SubscribeProperties<'a> {
    pub(super) fn decode(body: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let mut block = PropertyBlock::read(body, "section 3.8.2.1")?;
        let mut this = Self::default();
        while let Some(property) = block.next() {
            match property {
                identifier::SUBSCRIPTION_IDENTIFIER => {
                    let value = block.subscription_identifier()?;
                    block.once(&mut this.subscription_identifier, value)?;
                }
                identifier::USER_PROPERTY => block.user_property()?,
                _ => return Err(block.not_allowed()),
            }
        }
        this.user_properties = block.user_properties();
        Ok(this)
    }
}

impl<'a> UserProperties<'a> {
    /// Decodes properties of a packet that may only have User Properties.
    pub(super) fn decode(
        body: &mut Reader<'a>,
        section: &'static str,
    ) -> Result<Self, DecodeError> {
        let mut block = PropertyBlock::read(body, section)?;
        while let Some(property) = block.next() {
            match property {
                identifier::USER_PROPERTY => block.user_property()?,
                _ => return Err(block.not_allowed()),
            }
        }
        Ok(block.user_properties())
    }
}

impl<'a> DisconnectProperties<'a> {
    pub(super) fn decode(body: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let mut block = PropertyBlock::read(body, "section 3.14.2.2")?;
        let mut this = Self::default();
        while let Some(property) = block.next() {
            match property {
                identifier::SESSION_EXPIRY_INTERVAL => {
                    block.u32(&mut this.session_expiry_interval)?;
                }
                identifier::REASON_STRING => block.string(&mut this.reason_string)?,
                identifier::USER_PROPERTY => block.user_property()?,
                identifier::SERVER_REFERENCE => block.string(&mut this.server_reference)?,
                _ => return Err(block.not_allowed()),
            }
        }
        this.user_properties = block.user_properties();
        Ok(this)
    }
}

impl<'a> AuthProperties<'a> {
    pub(super) fn decode(body: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let mut block = PropertyBlock::read(body, "section 3.15.2.2")?;
        let mut this = Self::default();
        while let Some(property) = block.next() {
            match property {
                identifier::AUTHENTICATION_METHOD => {
                    block.string(&mut this.authentication_method)?;
                }
                identifier::AUTHENTICATION_DATA => block.binary(&mut this.authentication_data)?,
                identifier::REASON_STRING => block.string(&mut this.reason_string)?,
                identifier::USER_PROPERTY => block.user_property()?,
                _ => return Err(block.not_allowed()),
            }
        }
        // AUTH without a method is a Protocol Error, in whatever order its properties come.
        if this.authentication_method.is_none() {
            let kind = DecodeErrorKind::AuthenticationMethodMissing;
            return Err(DecodeError::new(kind, "section 3.15.2.2.2"));
        }
        this.user_properties = block.user_properties();
        Ok(this)
    }
}
