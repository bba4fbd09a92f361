//! Answers that are the same for everybody: with an `ETag`, so that a caller that has one is not sent it
//! again, and compressed for callers that accept it.
//!
//! Needs no account; the rate of the address counts. Used for the description of the calls and for
//! pages.

use std::io::Write as _;

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{
        AcceptEncoding, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE,
        ETAG, Encoding, EntityTag, Header as _, IF_NONE_MATCH, IfNoneMatch, REFERRER_POLICY, VARY,
        X_CONTENT_TYPE_OPTIONS,
    },
    web::Bytes,
};
use flate2::{Compression, write::GzEncoder};
use sha2::{Digest as _, Sha256};

use super::{Api, ApiError, admission};

/// An answer of which there is one.
pub(super) struct FixedAnswer {
    content_type: &'static str,
    /// The permissions of a browser for it.
    policy: Option<&'static str>,
    /// As it is, for callers that do not accept gzip; `None` if all get it compressed.
    plain: Option<Representation>,
    compressed: Representation,
}

/// The bytes of an answer in one encoding, with the tag of these bytes.
struct Representation {
    body: Bytes,
    tag: EntityTag,
}

impl Representation {
    fn new(body: Bytes) -> Self {
        let hash = Sha256::digest(&body);
        let tag = hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Self { body, tag: EntityTag::new_strong(tag) }
    }
}

impl FixedAnswer {
    /// Creates an answer, which is compressed here.
    pub(super) fn new(content_type: &'static str, body: impl Into<Bytes>) -> Self {
        let body = body.into();
        let compressed = Representation::new(gzip(&body));
        let plain = Some(Representation::new(body));
        Self { content_type, policy: None, plain, compressed }
    }

    /// Creates an answer from bytes that are compressed by gzip. It is sent so to every caller.
    pub(super) fn compressed(content_type: &'static str, body: &'static [u8]) -> Self {
        let compressed = Representation::new(Bytes::from_static(body));
        Self { content_type, policy: None, plain: None, compressed }
    }

    /// Adds a Content-Security-Policy.
    pub(super) fn with_policy(self, policy: &'static str) -> Self {
        Self { policy: Some(policy), ..self }
    }

    /// Returns the response to this request.
    pub(super) fn answer_to(&self, api: &Api, request: &HttpRequest) -> HttpResponse {
        match admit(api, request) {
            Ok(()) => self.response(request),
            Err(error) => error.answer_to(request),
        }
    }

    fn response(&self, request: &HttpRequest) -> HttpResponse {
        let plain = self.plain.as_ref().filter(|_| !accepts_gzip(request));
        let Representation { body, tag } = plain.unwrap_or(&self.compressed);
        let is_known = match IfNoneMatch::parse(request) {
            Ok(IfNoneMatch::Any) => request.headers().contains_key(IF_NONE_MATCH),
            Ok(IfNoneMatch::Items(known)) => known.iter().any(|one| one.weak_eq(tag)),
            // A header that cannot be parsed must not cost the caller its answer.
            Err(_) => false,
        };
        let mut response = match is_known {
            true => HttpResponse::NotModified(),
            false => HttpResponse::Ok(),
        };
        response
            .insert_header((ETAG, tag.to_string()))
            .insert_header((CACHE_CONTROL, "no-cache")) // a new version has another tag
            .insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"));
        if self.plain.is_some() {
            // Otherwise a cache could give the compressed form to a caller that cannot read it.
            response.insert_header((VARY, "Accept-Encoding"));
        }
        if let Some(policy) = self.policy {
            response.insert_header((CONTENT_SECURITY_POLICY, policy));
            response.insert_header((REFERRER_POLICY, "no-referrer"));
        }
        if is_known {
            return response.finish();
        }
        if plain.is_none() {
            response.insert_header((CONTENT_ENCODING, "gzip"));
        }
        response.insert_header((CONTENT_TYPE, self.content_type)).body(body.clone())
    }
}

/// Returns whether a caller prefers gzip.
fn accepts_gzip(request: &HttpRequest) -> bool {
    let both = [Encoding::gzip(), Encoding::identity()];
    AcceptEncoding::parse(request)
        .is_ok_and(|accepted| accepted.negotiate(both.iter()) == Some(Encoding::gzip()))
}

fn gzip(bytes: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 3), Compression::best());
    let compressed = encoder.write_all(bytes).and_then(|()| encoder.finish());
    compressed.expect("writing to memory cannot fail").into()
}

fn admit(api: &Api, request: &HttpRequest) -> Result<(), ApiError> {
    let peer = admission::peer(api, request)?;
    api.0.rates.check_address(peer.ip())
}
