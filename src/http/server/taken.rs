//! The body of an answer on its way to actix-http: in pieces, and the connection learns when the last one
//! is taken.
//!
//! Knows nothing of sockets.

use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use actix_web::{
    body::{BodySize, BoxBody, MessageBody},
    web::Bytes,
};

use super::watch::ConnectionWatch;
use crate::http::pieces::{AnswerPieces, PIECE_BYTES};

/// The body of a response of a watched connection.
pub(super) struct WatchedBody {
    body: BoxBody,
    watch: Option<Rc<ConnectionWatch>>,
}

impl WatchedBody {
    pub(super) fn new(body: BoxBody, watch: Option<Rc<ConnectionWatch>>) -> Self {
        let is_large = matches!(body.size(), BodySize::Sized(bytes) if bytes > PIECE_BYTES as u64);
        let body = match is_large {
            true => body
                .try_into_bytes()
                .map_or_else(|body| body, |it| AnswerPieces::new(it, None).boxed()),
            false => body,
        };
        Self { body, watch }
    }
}

impl MessageBody for WatchedBody {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.body).poll_next(cx)
    }
}

impl Drop for WatchedBody {
    fn drop(&mut self) {
        if let Some(watch) = &self.watch {
            watch.end_body();
        }
    }
}
