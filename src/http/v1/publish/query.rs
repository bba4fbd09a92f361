//! Parses what the query of `POST /topics/{topic}` says of a message.

use std::collections::BTreeMap;

use super::{
    super::{
        super::parameters::{Plus, decode},
        target::Query,
        waiting::{TIMEOUT, WAIT, wait_in},
    },
    ApiError, AskedMessage,
};
use crate::{control::WaitForDeliveries, mqtt::QoS};

/// The parameters of a message, besides its User Properties.
const KNOWN: &[&str] = &[
    "qos",
    "retained",
    "ResponseTopic",
    "CorrelationData",
    "ContentType",
    "PayloadFormatIndicator",
    "MessageExpiryInterval",
    WAIT,
    TIMEOUT,
];

/// Parses what a query says of a message, and what the call waits for.
pub(super) fn parse_query(
    text: &str,
) -> Result<(AskedMessage, Option<WaitForDeliveries>), ApiError> {
    let pairs = || text.split('&').filter(|pair| !pair.is_empty());
    // User properties are taken out first, because their names have numbers and are not known.
    let (own, others): (Vec<_>, Vec<_>) = pairs().partition(|pair| pair.starts_with("UserProp."));
    let others = others.join("&");
    let query = Query::parse(&others, KNOWN)?;
    let qos = query
        .number("qos", 0..=2)?
        .map_or(Some(QoS::AtLeastOnce), |qos| QoS::from_number(qos as u8));
    let utf8 = query.number("PayloadFormatIndicator", 0..=1)?;
    let expiry = query.number("MessageExpiryInterval", 0..=u64::from(u32::MAX))?;
    let asked = AskedMessage {
        qos: qos.unwrap_or(QoS::AtLeastOnce),
        retained: query.flag("retained")?.unwrap_or_default(),
        response_topic: query.text("ResponseTopic")?,
        correlation_data: query.text("CorrelationData")?.map(String::into_bytes),
        content_type: query.text("ContentType")?,
        is_utf8: utf8 == Some(1),
        expiry_secs: expiry.map(|secs| secs as u32),
        user_properties: user_properties(&own)?,
        ..AskedMessage::default()
    };
    Ok((asked, wait_in(&query)?))
}

/// Parses `UserProp.N.Key` and `UserProp.N.Value`, in the order of N, from 1 on.
fn user_properties(pairs: &[&str]) -> Result<Vec<(String, String)>, ApiError> {
    let wrong = || {
        ApiError::invalid_parameter("UserProp.N.Key", "must have a UserProp.N.Value, with N from 1")
    };
    let mut found: BTreeMap<u32, (Option<String>, Option<String>)> = BTreeMap::new();
    for pair in pairs {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let mut parts = name.split('.').skip(1);
        let number = parts.next().and_then(|number| number.parse().ok()).filter(|n| *n > 0);
        let entry = found.entry(number.ok_or_else(wrong)?).or_default();
        let half = match (parts.next(), parts.next()) {
            (Some("Key"), None) => &mut entry.0,
            (Some("Value"), None) => &mut entry.1,
            _ => return Err(wrong()),
        };
        let text = decode(value, Plus::IsSpace).ok().and_then(|text| String::from_utf8(text).ok());
        // A second value for the same number would replace the first silently.
        if half.replace(text.ok_or_else(wrong)?).is_some() {
            return Err(ApiError::duplicate_parameter(name));
        }
    }
    let both = found.into_values().map(|(key, value)| key.zip(value).ok_or_else(wrong));
    both.collect()
}
