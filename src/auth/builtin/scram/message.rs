//! The messages of SCRAM, section 7 of RFC 5802: parses the client's, writes the server's.
//!
//! Any bytes are a message or an error. Knows neither keys nor accounts; called by the exchange.

use std::borrow::Cow;

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::auth::builtin::keys::{DIGEST_BYTES, Digest};

/// Maximum length of a client's nonce, so that the server's message, which repeats it, fits into a
/// packet. A few dozen bytes are usual.
const CLIENT_NONCE_BYTES_MAX: usize = 1024;

/// Why a message is invalid or unsupported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum MessageError {
    #[error("the message does not have the form of RFC 5802")]
    Malformed,
    #[error("channel binding needs SCRAM-SHA-256-PLUS, which is not offered")]
    ChannelBinding,
    #[error("the message has an unknown mandatory extension")]
    MandatoryExtension,
}

/// The client's first message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ClientFirst<'a> {
    /// The client's channel binding flag, and the identity under which it wants to act. The client
    /// repeats it in its last message, where it is signed.
    pub(super) gs2_header: &'a str,
    /// The rest of the message.
    pub(super) bare: &'a str,
    /// The identity under which the client wants to act.
    pub(super) authorization: Option<Cow<'a, str>>,
    pub(super) username: Cow<'a, str>,
    pub(super) nonce: &'a str,
}

impl<'a> ClientFirst<'a> {
    pub(super) fn parse(message: &'a [u8]) -> Result<Self, MessageError> {
        let message = text(message)?;
        // The third part keeps its commas: it is signed as it is.
        let mut parts = message.splitn(3, ',');
        let (Some(flag), Some(authorization), Some(bare)) =
            (parts.next(), parts.next(), parts.next())
        else {
            return Err(MessageError::Malformed);
        };
        match flag {
            // The client has no channel binding, or believes that the server has none, which is
            // true.
            "n" | "y" => {}
            _ if flag.starts_with("p=") => return Err(MessageError::ChannelBinding),
            _ => return Err(MessageError::Malformed),
        }
        let authorization = match authorization {
            "" => None,
            named => Some(name(value(named, "a=")?)?),
        };
        let mut attributes = bare.split(',');
        let first = attributes.next().unwrap_or_default();
        if first.starts_with("m=") {
            return Err(MessageError::MandatoryExtension);
        }
        let username = name(value(first, "n=")?)?;
        let nonce = nonce(attributes.next())?;
        // The nonce is repeated in the answer and kept until the next message.
        if nonce.len() > CLIENT_NONCE_BYTES_MAX {
            return Err(MessageError::Malformed);
        }
        extensions(attributes)?;
        let gs2_header = &message[..message.len() - bare.len()];
        Ok(Self { gs2_header, bare, authorization, username, nonce })
    }
}

/// The client's last message.
pub(super) struct ClientFinal<'a> {
    /// The part that is signed.
    pub(super) without_proof: &'a str,
    /// The GS2 header, repeated.
    pub(super) channel_binding: Vec<u8>,
    pub(super) nonce: &'a str,
    pub(super) proof: Digest,
}

impl<'a> ClientFinal<'a> {
    pub(super) fn parse(message: &'a [u8]) -> Result<Self, MessageError> {
        let message = text(message)?;
        let (without_proof, proof) = message.rsplit_once(',').ok_or(MessageError::Malformed)?;
        let proof = base64(value(proof, "p=")?)?;
        let proof: [u8; DIGEST_BYTES] = proof.try_into().map_err(|_| MessageError::Malformed)?;
        let mut attributes = without_proof.split(',');
        let channel_binding = base64(value(attributes.next().unwrap_or_default(), "c=")?)?;
        let nonce = nonce(attributes.next())?;
        extensions(attributes)?;
        Ok(Self { without_proof, channel_binding, nonce, proof: Digest(proof) })
    }
}

/// Returns the server's first message.
pub(super) fn server_first(nonce: &str, salt: &[u8], iterations: u32) -> String {
    format!("r={nonce},s={},i={iterations}", STANDARD.encode(salt))
}

/// Returns the server's last message.
pub(super) fn server_final(signature: &Digest) -> String {
    format!("v={}", STANDARD.encode(signature.0))
}

fn text(message: &[u8]) -> Result<&str, MessageError> {
    let text = str::from_utf8(message).map_err(|_| MessageError::Malformed)?;
    if text.contains('\0') { Err(MessageError::Malformed) } else { Ok(text) }
}

fn value<'a>(attribute: &'a str, name: &str) -> Result<&'a str, MessageError> {
    attribute.strip_prefix(name).ok_or(MessageError::Malformed)
}

/// Decodes a `saslname`: `=2C` is a comma and `=3D` an equals sign; nothing else is escaped.
fn name(escaped: &str) -> Result<Cow<'_, str>, MessageError> {
    // A name has at least one character. (RFC 5802, 7)
    if escaped.is_empty() {
        return Err(MessageError::Malformed);
    }
    // Most names have no escape, and are borrowed.
    if !escaped.contains('=') {
        return Ok(escaped.into());
    }
    let mut parts = escaped.split('=');
    let mut name = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (character, rest) = match (part.strip_prefix("2C"), part.strip_prefix("3D")) {
            (Some(rest), _) => (',', rest),
            (None, Some(rest)) => ('=', rest),
            // Any other escape must fail the login. (RFC 5802, 5.1)
            (None, None) => return Err(MessageError::Malformed),
        };
        name.push(character);
        name.push_str(rest);
    }
    Ok(name.into())
}

/// Returns a nonce: printable ASCII up to the next comma.
fn nonce(attribute: Option<&str>) -> Result<&str, MessageError> {
    let nonce = value(attribute.unwrap_or_default(), "r=")?;
    let is_printable = nonce.bytes().all(|byte| byte.is_ascii_graphic());
    if nonce.is_empty() || !is_printable { Err(MessageError::Malformed) } else { Ok(nonce) }
}

fn base64(value: &str) -> Result<Vec<u8>, MessageError> {
    STANDARD.decode(value).map_err(|_| MessageError::Malformed)
}

/// Skips unknown extensions, if they are well-formed: a letter and a value.
fn extensions<'a>(attributes: impl Iterator<Item = &'a str>) -> Result<(), MessageError> {
    for attribute in attributes {
        let (letter, value) = attribute.split_once('=').ok_or(MessageError::Malformed)?;
        let is_letter = matches!(letter.as_bytes(), [byte] if byte.is_ascii_alphabetic());
        if !is_letter || value.is_empty() {
            return Err(MessageError::Malformed);
        }
    }
    Ok(())
}
