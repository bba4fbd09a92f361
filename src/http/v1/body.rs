//! Reads the JSON body of a call.

use std::{fmt, marker::PhantomData};

use actix_web::{
    HttpRequest,
    http::header::CONTENT_TYPE,
    rt::time::timeout,
    web::{Bytes, Payload},
};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, MapAccess, Visitor, value::MapAccessDeserializer},
};

use super::super::{Api, ApiError};

/// Maximum bytes of the body of a call about several clients: 10,000 Client Identifiers of 800 bytes
/// each. More than one such body for each connection is never in memory.
pub(super) const BULK_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Reads a body of at most `bytes_max` bytes and parses it, within the timeout of calls. Called after
/// the checks of the caller, so that a stranger cannot make the broker read a body.
///
/// # Errors
/// The Content-Type is not JSON (415; a form on a web page cannot set that type), the body is larger
/// (413), or it is not what the call expects (400).
pub(super) async fn read<T: DeserializeOwned>(
    api: &Api,
    request: &HttpRequest,
    payload: Payload,
    bytes_max: usize,
) -> Result<T, ApiError> {
    parse(&read_bytes(api, request, payload, bytes_max).await?)
}

/// Reads the same body, and leaves it to the call to parse it.
///
/// # Errors
/// As [`read`], except that the body is not parsed.
pub(super) async fn read_bytes(
    api: &Api,
    request: &HttpRequest,
    payload: Payload,
    bytes_max: usize,
) -> Result<Bytes, ApiError> {
    let content_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = content_type.and_then(|value| value.split(';').next()).unwrap_or_default();
    if !essence.trim().eq_ignore_ascii_case("application/json") {
        return Err(ApiError::unsupported_media_type());
    }
    read_any(api, payload, bytes_max).await
}

/// Reads a body of any type.
///
/// # Errors
/// The body is larger (413), or does not arrive in time (504) or in full (400).
pub(super) async fn read_any(
    api: &Api,
    payload: Payload,
    bytes_max: usize,
) -> Result<Bytes, ApiError> {
    let reading = timeout(api.options().call_timeout, payload.to_bytes_limited(bytes_max));
    let body = reading.await.map_err(|_| ApiError::timeout())?;
    let body = body.map_err(|_| ApiError::body_too_large(bytes_max))?;
    body.map_err(|_| ApiError::invalid_body("it did not arrive in full"))
}

/// A JSON object. A type whose fields are all optional would also be read from a list.
pub(super) struct JsonObject<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for JsonObject<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = JsonObject<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(JsonObject)
    }
}

/// Parses a body.
pub(super) fn parse<'b, T: Deserialize<'b>>(body: &'b [u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| ApiError::invalid_body(&error.to_string()))
}
