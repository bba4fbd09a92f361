//! DISCONNECT and AUTH (sections 3.14 and 3.15).
//!
//! Does not know the sender: the Reason Codes of client and server are accepted. Called only by
//! `decode`.

use super::reason_code;
use crate::mqtt::{
    Auth, AuthProperties, DecodeError, Disconnect, DisconnectProperties, ProtocolVersion,
    ReasonCode, wire::Reader,
};

/// Decodes DISCONNECT (section 3.14).
pub(super) fn decode(body: &[u8], version: ProtocolVersion) -> Result<Disconnect<'_>, DecodeError> {
    let mut body = Reader::new(body);
    let mut disconnect =
        Disconnect { reason: ReasonCode::Success, properties: DisconnectProperties::default() };
    if version.has_properties() && !body.is_empty() {
        disconnect.reason = reason_code(body.u8()?, ReasonCode::OF_DISCONNECT, "MQTT-3.14.2-1")?;
        // A Remaining Length below 2 means no properties (section 3.14.2.2.1).
        if !body.is_empty() {
            disconnect.properties = DisconnectProperties::decode(&mut body)?;
        }
    }
    body.finish()?;
    Ok(disconnect)
}

/// Decodes AUTH (section 3.15), which only MQTT 5.0 has.
pub(super) fn decode_auth(body: &[u8]) -> Result<Auth<'_>, DecodeError> {
    const ALLOWED: &[ReasonCode] =
        &[ReasonCode::Success, ReasonCode::ContinueAuthentication, ReasonCode::ReAuthenticate];
    let mut body = Reader::new(body);
    // Section 3.15.2.1 allows an empty packet for Success without properties.
    if body.is_empty() {
        return Ok(Auth { reason: ReasonCode::Success, properties: AuthProperties::default() });
    }
    let reason = reason_code(body.u8()?, ALLOWED, "MQTT-3.15.2-1")?;
    let properties = AuthProperties::decode(&mut body)?;
    body.finish()?;
    Ok(Auth { reason, properties })
}
