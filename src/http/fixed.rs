//! Answers that are the same for everybody: with an `ETag`, so that a caller that has one is not sent it
//! again.
//!
//! Needs no account; the rate of the address counts. Used for the description of the calls.

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{
        CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, EntityTag,
        Header as _, IF_NONE_MATCH, IfNoneMatch, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    },
    web::Bytes,
};
use sha2::{Digest as _, Sha256};

use super::{Api, ApiError, admission};

/// An answer of which there is one.
pub(super) struct FixedAnswer {
    content_type: &'static str,
    /// Whether `body` is compressed by gzip.
    is_compressed: bool,
    /// What a browser may do with it.
    policy: Option<&'static str>,
    body: Bytes,
    tag: EntityTag,
}

impl FixedAnswer {
    pub(super) fn new(content_type: &'static str, body: impl Into<Bytes>) -> Self {
        let body = body.into();
        let hash = Sha256::digest(&body);
        let tag = hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let tag = EntityTag::new_strong(tag);
        Self { content_type, is_compressed: false, policy: None, body, tag }
    }

    /// Says that the body is compressed by gzip. It is sent so to every caller.
    pub(super) fn compressed(self) -> Self {
        Self { is_compressed: true, ..self }
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
        let is_known = match IfNoneMatch::parse(request) {
            Ok(IfNoneMatch::Any) => request.headers().contains_key(IF_NONE_MATCH),
            Ok(IfNoneMatch::Items(known)) => known.iter().any(|one| one.weak_eq(&self.tag)),
            Err(_) => false,
        };
        let mut response = match is_known {
            true => HttpResponse::NotModified(),
            false => HttpResponse::Ok(),
        };
        response
            .insert_header((ETAG, self.tag.to_string()))
            .insert_header((CACHE_CONTROL, "no-cache")) // a new version has another tag
            .insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"));
        if let Some(policy) = self.policy {
            response.insert_header((CONTENT_SECURITY_POLICY, policy));
            response.insert_header((REFERRER_POLICY, "no-referrer"));
        }
        if is_known {
            return response.finish();
        }
        if self.is_compressed {
            response.insert_header((CONTENT_ENCODING, "gzip"));
        }
        response.insert_header((CONTENT_TYPE, self.content_type)).body(self.body.clone())
    }
}

fn admit(api: &Api, request: &HttpRequest) -> Result<(), ApiError> {
    let peer = admission::peer(api, request)?;
    api.0.rates.check_address(peer.ip())
}
