//! The body of an answer, which a server takes in pieces: so an answer that its caller does not read is in
//! memory once, and its room is taken until the last piece.
//!
//! Knows nothing of what answers say.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use actix_web::{
    body::{BodySize, MessageBody},
    web::Bytes,
};

use super::shares::OwnShare;

/// Bytes of a piece. actix-http copies pieces until it has 32 KiB to write.
pub(super) const PIECE_BYTES: usize = 16 * 1024;

/// The rest of a body.
pub(super) struct AnswerPieces {
    rest: Bytes,
    /// The room of the body.
    _room: Option<OwnShare>,
}

impl AnswerPieces {
    pub(super) const fn new(body: Bytes, room: Option<OwnShare>) -> Self {
        Self { rest: body, _room: room }
    }
}

impl MessageBody for AnswerPieces {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.rest.len() as u64)
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Infallible>>> {
        let piece = self.rest.len().min(PIECE_BYTES);
        Poll::Ready((piece > 0).then(|| Ok(self.rest.split_to(piece))))
    }
}
