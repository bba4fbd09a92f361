//! Reads the JSON body of a call.

use std::{fmt, marker::PhantomData, sync::Arc};

use actix_web::{
    HttpRequest,
    http::{
        Method,
        header::{CONTENT_LENGTH, CONTENT_TYPE},
    },
    rt::time::timeout,
    web::{Bytes, Payload},
};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, MapAccess, Visitor, value::MapAccessDeserializer},
};
use tokio::sync::OwnedSemaphorePermit;

use super::super::{Api, ApiError};

/// Maximum bytes of the body of a call about several clients: 10,000 Client Identifiers of 800 bytes
/// each.
pub(super) const BULK_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Size up to which a body needs no room among [`super::super::BODIES_KIB_MAX`].
const SMALL_BYTES_MAX: usize = 512 * 1024;

/// A body that has arrived. A large one has its room among all large bodies until it is dropped.
pub(super) struct ReadBody {
    pub(super) bytes: Bytes,
    _room: Option<OwnedSemaphorePermit>,
}

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
    parse(&read_json(api, request, payload, bytes_max).await?.bytes)
}

/// Reads the same body, and leaves it to the call to parse it.
///
/// # Errors
/// As [`read`], except that the body is not parsed.
pub(super) async fn read_json(
    api: &Api,
    request: &HttpRequest,
    payload: Payload,
    bytes_max: usize,
) -> Result<ReadBody, ApiError> {
    let content_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = content_type.and_then(|value| value.split(';').next()).unwrap_or_default();
    let essence = essence.trim();
    // The body of a PATCH is a JSON Merge Patch, RFC 7396.
    let is_json = essence.eq_ignore_ascii_case("application/json")
        || request.method() == Method::PATCH
            && essence.eq_ignore_ascii_case("application/merge-patch+json");
    if !is_json {
        return Err(ApiError::unsupported_media_type());
    }
    read_any(api, request, payload, bytes_max).await
}

/// Reads a body of any type.
///
/// # Errors
/// The body is larger (413), does not arrive in time (504) or in full (400), or is large and there are
/// too many large ones at present (503).
pub(super) async fn read_any(
    api: &Api,
    request: &HttpRequest,
    payload: Payload,
    bytes_max: usize,
) -> Result<ReadBody, ApiError> {
    let room = room_for(api, request, bytes_max)?;
    let reading = timeout(api.options().call_timeout, payload.to_bytes_limited(bytes_max));
    let body = reading.await.map_err(|_| ApiError::timeout())?;
    let body = body.map_err(|_| ApiError::body_too_large(bytes_max))?;
    let bytes = body.map_err(|_| ApiError::invalid_body("it did not arrive in full"))?;
    Ok(ReadBody { bytes, _room: room })
}

/// Takes room for a body that is large, or whose size is not known.
fn room_for(
    api: &Api,
    request: &HttpRequest,
    bytes_max: usize,
) -> Result<Option<OwnedSemaphorePermit>, ApiError> {
    let length = request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    let length = length.and_then(|length| length.parse().ok()).unwrap_or(bytes_max);
    match length.min(bytes_max) {
        0..=SMALL_BYTES_MAX => Ok(None),
        large => {
            let kib = u32::try_from(large.div_ceil(1024)).unwrap_or(u32::MAX);
            let room = Arc::clone(&api.0.bodies).try_acquire_many_owned(kib);
            room.map(Some).map_err(|_| ApiError::unavailable())
        }
    }
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
