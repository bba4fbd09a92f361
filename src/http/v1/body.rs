//! Reads the JSON body of a call.

use actix_web::{
    HttpRequest,
    http::{Method, header::CONTENT_TYPE},
    rt::time::timeout,
    web::{Bytes, BytesMut, Payload},
};
use futures_util::StreamExt as _;
use serde::{Deserialize, de::DeserializeOwned};

use super::super::{Api, ApiError, BODIES, admission, shares::OwnShare};
use crate::auth::JsonObject;

/// Maximum bytes of the body of a call about several clients: 10,000 Client Identifiers of 800 bytes
/// each.
pub(super) const BULK_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Size up to which a body needs no room among [`BODIES`].
const SMALL_BYTES_MAX: usize = 8 * 1024;
/// The room of a body grows by this.
const ROOM_STEP_BYTES: usize = 64 * 1024;

/// A body that has arrived. Unless it is small, it has its room among all bodies until it is dropped.
pub(super) struct ReadBody {
    pub(super) bytes: Bytes,
    _room: Option<OwnShare>,
}

/// Reads a body of at most `bytes_max` bytes and parses it, an object, within the timeout of calls. Called after
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
/// The body is larger (413), does not arrive in time (504) or in full (400), or there is no room for
/// what has arrived (503).
pub(super) async fn read_any(
    api: &Api,
    request: &HttpRequest,
    payload: Payload,
    bytes_max: usize,
) -> Result<ReadBody, ApiError> {
    let arriving = ArrivingBody { bytes: BytesMut::new(), room: None };
    let reading =
        timeout(api.options().call_timeout, arriving.all(api, request, payload, bytes_max));
    reading.await.map_err(|_| ApiError::timeout())?
}

/// The part of a body that has arrived.
struct ArrivingBody {
    bytes: BytesMut,
    room: Option<OwnShare>,
}

impl ArrivingBody {
    async fn all(
        mut self,
        api: &Api,
        request: &HttpRequest,
        mut payload: Payload,
        bytes_max: usize,
    ) -> Result<ReadBody, ApiError> {
        while let Some(piece) = payload.next().await {
            let piece = piece.map_err(|_| ApiError::invalid_body("it did not arrive in full"))?;
            let bytes = self.bytes.len() + piece.len();
            // Counted as it arrives: a chunked body announces no length.
            if bytes > bytes_max {
                return Err(ApiError::body_too_large(bytes_max));
            }
            self.make_room(api, request, bytes)?;
            self.bytes.extend_from_slice(&piece);
        }
        Ok(ReadBody { bytes: self.bytes.freeze(), _room: self.room })
    }

    /// Takes room for this size. It grows with what arrives, and not with what the caller announces.
    fn make_room(
        &mut self,
        api: &Api,
        request: &HttpRequest,
        bytes: usize,
    ) -> Result<(), ApiError> {
        let taken = self.room.as_ref().map_or(SMALL_BYTES_MAX, OwnShare::amount);
        if bytes <= taken {
            return Ok(());
        }
        // In steps, so that the shared counter is not touched for each piece.
        let needed = bytes.next_multiple_of(ROOM_STEP_BYTES);
        let has_room = match &mut self.room {
            Some(room) => room.grow(needed - taken, BODIES),
            None => {
                let account = admission::account_of(request);
                self.room = api.0.bodies.take(account, needed, BODIES);
                self.room.is_some()
            }
        };
        has_room.then_some(()).ok_or_else(ApiError::busy)
    }
}

/// Parses a body that is an object.
pub(super) fn parse<'b, T: Deserialize<'b>>(body: &'b [u8]) -> Result<T, ApiError> {
    let JsonObject(parsed) = parse_any(body)?;
    Ok(parsed)
}

/// Parses a body that may be another value, such as a list.
pub(super) fn parse_any<'b, T: Deserialize<'b>>(body: &'b [u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| ApiError::invalid_body(&error.to_string()))
}
