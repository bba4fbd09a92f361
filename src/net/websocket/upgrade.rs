//! The HTTP request that opens a WebSocket (RFC 6455, section 4), and its response.
//!
//! One function decides whether a request is accepted, for the broker's own listeners and for the
//! HTTP server of an embedding application. Knows nothing of MQTT but the name of its subprotocol.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Serialize;
use sha1::{Digest as _, Sha1};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{
    super::{linger::linger, origin::is_own_origin, refused::Refused},
    WebSocket,
};
use crate::{metrics::ConnectRefusal, transport::Transport};

/// Limits of a request; browsers need half of them.
const REQUEST_BYTES_MAX: usize = 8 * 1024;
const HEADERS_MAX: usize = 64;

/// Bytes read at a time.
const READ_BYTES: usize = 1024;

/// The server appends this to the client's key before hashing it. (RFC 6455, 1.3)
const KEY_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The supported subprotocols, the preferred one first. [MQTT-6.0.0-3] `mqttv3.1` is the older name
/// of MQTT 3.1, whose standard has no such clause; it is used if the client offers nothing else.
const SUBPROTOCOLS: [&str; 2] = ["mqtt", "mqttv3.1"];

/// The path of MQTT over WebSocket, and the web pages that may use it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebSocketOptions {
    /// The path of the URL, `/mqtt` by default.
    pub path: String,
    /// The web pages that may connect, as in the `Origin` header: `https://example.org`. If empty,
    /// all pages may. But where a client certificate can be the login, only pages of the same host
    /// may, because a browser sends the certificate for every page. This restricts browsers, whose
    /// `Origin` is true; a client without `Origin` is not a browser and is not affected.
    pub origins: Vec<String>,
}

impl Default for WebSocketOptions {
    fn default() -> Self {
        Self { path: "/mqtt".into(), origins: Vec::new() }
    }
}

impl From<&str> for WebSocketOptions {
    /// Uses this path and the default `origins`: all pages, or pages of the same host where a
    /// client certificate can be the login.
    fn from(path: &str) -> Self {
        Self { path: path.into(), origins: Vec::new() }
    }
}

impl WebSocketOptions {
    pub(in crate::net) fn path(&self) -> &str {
        &self.path
    }

    pub(crate) fn set_origins(&mut self, of: &Self) {
        self.origins.clone_from(&of.origins);
    }
}

/// The web pages that may connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pages<'a> {
    All,
    /// Pages of the host that the request names.
    Own,
    /// Pages of these origins.
    Of(&'a [String]),
}

impl<'a> Pages<'a> {
    /// Applies the configured `origins`. A page of another site must not use the certificate of a
    /// browser.
    pub(crate) const fn new(origins: &'a [String], certificate_can_be_login: bool) -> Self {
        match (origins.is_empty(), certificate_can_be_login) {
            (false, _) => Self::Of(origins),
            (true, true) => Self::Own,
            (true, false) => Self::All,
        }
    }
}

/// The head of an HTTP request.
pub(crate) struct UpgradeRequest<'a> {
    pub(crate) method: &'a str,
    pub(crate) is_http_1_1: bool,
    pub(crate) headers: Vec<(&'a str, &'a [u8])>,
}

/// The variable headers of the response that accepts a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Accepted {
    /// `Sec-WebSocket-Accept`
    pub(crate) key: String,
    /// `Sec-WebSocket-Protocol`
    pub(crate) subprotocol: &'static str,
}

/// Why a request cannot become a WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UpgradeRefusal {
    #[error("Unknown path.")]
    NotFound,
    #[error("MQTT over WebSocket requires the method GET.")]
    MethodNotAllowed,
    #[error("MQTT over WebSocket requires the header Upgrade: websocket.")]
    UpgradeRequired,
    #[error("The version of WebSocket must be 13.")]
    UnsupportedVersion,
    #[error("Exactly one Sec-WebSocket-Key of 16 bytes in Base64 is required.")]
    InvalidKey,
    #[error("The client must offer the subprotocol mqtt in Sec-WebSocket-Protocol.")]
    SubprotocolRequired,
    #[error(
        "Pages of this origin may not connect; see websocket_origins. Where a client certificate can \
         be the login, an empty list admits pages of the same host alone."
    )]
    ForbiddenOrigin,
    #[error("MQTT over WebSocket requires a valid HTTP/1.1 request.")]
    Malformed,
    #[error("The head of the request is too long.")]
    TooLong,
    #[error("The broker accepts no more connections now.")]
    #[cfg_attr(
        not(feature = "http"),
        expect(dead_code, reason = "a listener closes such a connection before its request")
    )]
    Unavailable,
}

#[derive(Serialize)]
struct Body {
    success: bool,
    code: &'static str,
    message: String,
}

impl UpgradeRefusal {
    /// Returns the HTTP status and the error code.
    pub(crate) const fn status(self) -> (u16, &'static str) {
        match self {
            Self::NotFound => (404, "not_found"),
            Self::MethodNotAllowed => (405, "method_not_allowed"),
            Self::UpgradeRequired => (426, "upgrade_required"),
            Self::UnsupportedVersion => (426, "unsupported_websocket_version"),
            Self::InvalidKey => (400, "invalid_websocket_key"),
            Self::SubprotocolRequired => (400, "subprotocol_required"),
            Self::ForbiddenOrigin => (403, "forbidden_origin"),
            Self::Malformed => (400, "malformed_request"),
            Self::TooLong => (431, "request_too_long"),
            Self::Unavailable => (503, "unavailable"),
        }
    }

    /// Returns a header that the status requires.
    pub(crate) const fn header(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::MethodNotAllowed => Some(("Allow", "GET")),
            Self::UpgradeRequired => Some(("Upgrade", "websocket")),
            Self::UnsupportedVersion => Some(("Sec-WebSocket-Version", "13")),
            Self::Unavailable => Some(("Retry-After", "1")),
            Self::NotFound
            | Self::InvalidKey
            | Self::SubprotocolRequired
            | Self::ForbiddenOrigin
            | Self::Malformed
            | Self::TooLong => None,
        }
    }

    /// Returns the response body, in the format of the REST calls.
    pub(crate) fn body(self) -> String {
        let body = Body { success: false, code: self.status().1, message: self.to_string() };
        serde_json::to_string(&body).expect("texts and a truth value are JSON")
    }

    fn answer(self) -> String {
        let (status, _) = self.status();
        let header = self.header().map(|(name, value)| format!("{name}: {value}\r\n"));
        let (header, body) = (header.unwrap_or_default(), self.body());
        // No client needs the reason phrase. (RFC 9112, 4)
        format!(
            "HTTP/1.1 {status} \r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
             {header}Connection: close\r\n\r\n{body}",
            body.len()
        )
    }
}

impl Accepted {
    fn answer(&self) -> String {
        let Self { key, subprotocol } = self;
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {key}\r\nSec-WebSocket-Protocol: {subprotocol}\r\n\r\n"
        )
    }
}

impl UpgradeRequest<'_> {
    /// Accepts or refuses a request whose path is right.
    pub(crate) fn decide(&self, pages: Pages<'_>) -> Result<Accepted, UpgradeRefusal> {
        if self.method != "GET" {
            return Err(UpgradeRefusal::MethodNotAllowed);
        }
        if !self.is_http_1_1 {
            return Err(UpgradeRefusal::Malformed);
        }
        let says = |name, wanted: &str| self.items(name).any(|s| s.eq_ignore_ascii_case(wanted));
        if !says("upgrade", "websocket") || !says("connection", "upgrade") {
            return Err(UpgradeRefusal::UpgradeRequired);
        }
        if !self.items("sec-websocket-version").eq(["13"]) {
            return Err(UpgradeRefusal::UnsupportedVersion);
        }
        // Before the key: a foreign page learns nothing more about its request.
        if !self.is_from(pages) {
            return Err(UpgradeRefusal::ForbiddenOrigin);
        }
        let key = self.key().ok_or(UpgradeRefusal::InvalidKey)?;
        let subprotocol = SUBPROTOCOLS
            .into_iter()
            .find(|known| self.items("sec-websocket-protocol").any(|offered| offered == *known))
            .ok_or(UpgradeRefusal::SubprotocolRequired)?; // [MQTT-6.0.0-3]
        Ok(Accepted { key: accept_key(key), subprotocol }) // [MQTT-6.0.0-4]
    }

    fn is_from(&self, pages: Pages<'_>) -> bool {
        let mut origins = self.values("origin");
        match pages {
            Pages::All => true,
            Pages::Own => {
                let host = self.values("host").next().and_then(|host| str::from_utf8(host).ok());
                let host = host.unwrap_or_default();
                origins.all(|origin| str::from_utf8(origin).is_ok_and(|it| is_own_origin(it, host)))
            }
            Pages::Of(known) => {
                origins.all(|origin| known.iter().any(|known| origin == known.as_bytes()))
            }
        }
    }

    fn key(&self) -> Option<&[u8]> {
        let mut keys = self.values("sec-websocket-key");
        let (key, None) = (keys.next()?, keys.next()) else {
            return None;
        };
        STANDARD.decode(key).is_ok_and(|nonce| nonce.len() == 16).then_some(key)
    }

    fn values<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'s [u8]> {
        let headers = self.headers.iter();
        headers.filter(move |(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
    }

    /// Returns the values of a list header, which may be split over several headers.
    fn items<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'s str> {
        let values = self.values(name).filter_map(|value| str::from_utf8(value).ok());
        values.flat_map(|value| value.split(',')).map(str::trim)
    }
}

/// Returns the `Sec-WebSocket-Accept` value, which proves that the server understood the request.
/// (RFC 6455, 4.2.2)
fn accept_key(key: &[u8]) -> String {
    STANDARD.encode(Sha1::digest([key, KEY_SUFFIX].concat()))
}

/// Reads the opening request on one of the broker's own listeners and answers it.
///
/// # Errors
/// If the request is refused, which the client has been told, or the connection is lost.
pub(crate) async fn accept<S: Transport>(
    mut stream: S,
    options: &WebSocketOptions,
    certificate_can_be_login: bool,
) -> Result<WebSocket<S>, Refused> {
    let mut bytes = Vec::new();
    let outcome = match read_head(&mut stream, &mut bytes).await? {
        Ok(length) => decide(&bytes[..length], options, certificate_can_be_login)
            .map(|accepted| (accepted, length)),
        Err(refusal) => Err(refusal),
    };
    let answer = match &outcome {
        Ok((accepted, _)) => accepted.answer(),
        Err(refusal) => refusal.answer(),
    };
    // One answer for both outcomes; only an accepted client must also have received it.
    let written = stream.write_all(answer.as_bytes()).await;
    let flushed = stream.flush().await;
    match outcome {
        Ok((_, length)) => {
            written.and(flushed).map_err(|_| ConnectRefusal::Closed)?;
            // Bytes behind the request are the beginning of the first frame.
            Ok(WebSocket::new(stream, bytes.split_off(length)))
        }
        Err(refusal) => {
            // A socket that is closed with unread bytes is reset, and the client could lose the answer.
            if stream.shutdown().await.is_ok() {
                linger(&mut stream).await;
            }
            Err(Refused::because(ConnectRefusal::WebSocket, refusal))
        }
    }
}

/// Reads up to the empty line and returns the length of the head.
async fn read_head<S: Transport>(
    stream: &mut S,
    bytes: &mut Vec<u8>,
) -> Result<Result<usize, UpgradeRefusal>, ConnectRefusal> {
    const END: &[u8] = b"\r\n\r\n";
    loop {
        // The end may be split over two reads, so its first bytes are searched again.
        let seen = bytes.len().saturating_sub(END.len() - 1);
        bytes.reserve(READ_BYTES);
        let read = stream.read_buf(bytes).await.map_err(|_| ConnectRefusal::Closed)?;
        if bytes.first().is_some_and(|first| !first.is_ascii_uppercase()) {
            // Not an HTTP method: answer now, because a client of MQTT or TLS would wait for a
            // timeout.
            return Ok(Err(UpgradeRefusal::Malformed));
        }
        if let Some(end) = bytes[seen..].windows(END.len()).position(|window| window == END) {
            return Ok(Ok(seen + end + END.len()));
        }
        // After the search: a request that ends within the last read is accepted.
        if bytes.len() >= REQUEST_BYTES_MAX {
            return Ok(Err(UpgradeRefusal::TooLong));
        }
        if read == 0 {
            return Err(ConnectRefusal::Closed);
        }
    }
}

fn decide(
    head: &[u8],
    options: &WebSocketOptions,
    certificate_can_be_login: bool,
) -> Result<Accepted, UpgradeRefusal> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut headers);
    match parsed.parse(head) {
        Ok(status) if status.is_complete() => {}
        Err(httparse::Error::TooManyHeaders) => return Err(UpgradeRefusal::TooLong),
        // The end of the head was found, so one that seems incomplete is malformed.
        Ok(_) | Err(_) => return Err(UpgradeRefusal::Malformed),
    }
    // A client library may add a query; the path alone chooses the listener.
    let (path, _query) =
        parsed.path.map_or(("", ""), |target| target.split_once('?').unwrap_or((target, "")));
    if path != options.path {
        return Err(UpgradeRefusal::NotFound);
    }
    let request = UpgradeRequest {
        method: parsed.method.unwrap_or_default(),
        is_http_1_1: parsed.version == Some(1),
        headers: parsed.headers.iter().map(|header| (header.name, header.value)).collect(),
    };
    request.decide(Pages::new(&options.origins, certificate_can_be_login))
}
