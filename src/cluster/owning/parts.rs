//! A session that is larger than one message of NATS travels in parts: the claimant asks for one after the other. The
//! holder keeps the whole, as bytes, until the claim is confirmed or given up.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};

use super::life::OwnerLife;
use crate::cluster::{
    door::{AskedQuestion, Nats},
    names::{Incarnation, NodeId},
    owner_record::{ReleaseReply, ReleaseRequest},
    questions::{NodeQuestion, QuestionBody, QuestionReply},
    wire,
};

/// The bytes of an answer besides the part of the session.
const FRAME_BYTES: usize = 1_024;

/// How long one part may take.
const PART_TIME_MAX: Duration = Duration::from_secs(1);

impl OwnerLife<'_> {
    /// Returns the answer to a claimant: the whole session, or its first part.
    pub(super) fn in_parts(&mut self, asked: &AskedQuestion, reply: ReleaseReply) -> QuestionReply {
        let ReleaseReply::Session { copy, has_rest } = reply else {
            return QuestionReply::Release(reply);
        };
        let request = wire::decode::<NodeQuestion>(&asked.payload).map(|question| question.body);
        let Ok(QuestionBody::Release(request)) = request else {
            return QuestionReply::Release(ReleaseReply::Later); // Only a claim is answered so.
        };
        if copy.len() <= self.part_bytes_max() {
            return QuestionReply::Release(ReleaseReply::Session { copy, has_rest });
        }
        self.parted.insert(request.key, (request.term, copy));
        self.part(request, 0).unwrap_or(QuestionReply::Release(ReleaseReply::Later))
    }

    /// Returns a part of a session that was offered to this claim.
    pub(super) fn part(&self, request: ReleaseRequest, from: u64) -> Option<QuestionReply> {
        let (_, copy) = self.parted.get(&request.key).filter(|(term, _)| *term == request.term)?;
        let from = usize::try_from(from).ok().filter(|from| *from < copy.len())?;
        let to = copy.len().min(from + self.part_bytes_max());
        Some(QuestionReply::SessionPart {
            bytes_in_all: copy.len() as u64,
            part: copy.slice(from..to),
        })
    }

    fn part_bytes_max(&self) -> usize {
        self.parts.of.door.payload_bytes_max().saturating_sub(FRAME_BYTES).max(FRAME_BYTES)
    }
}

/// Asks the holder of a session.
pub(super) struct PartAsker {
    pub(super) door: Arc<dyn Nats>,
    pub(super) to: NodeId,
    pub(super) to_incarnation: u64,
    pub(super) from: NodeId,
    pub(super) incarnation: Incarnation,
    pub(super) request: ReleaseRequest,
}

impl PartAsker {
    /// Asks a question, and for the other parts if the answer is the first one. `None`: no answer in time.
    pub(super) async fn ask(&self, question: Bytes, time_max: Duration) -> Option<ReleaseReply> {
        let (bytes_in_all, first) = match self.ask_once(question, time_max).await? {
            QuestionReply::Release(reply) => return Some(reply),
            QuestionReply::SessionPart { bytes_in_all, part } => (bytes_in_all, part),
            QuestionReply::Forward(_)
            | QuestionReply::Routes(_)
            | QuestionReply::Done
            | QuestionReply::Rest(_) => return None,
        };
        let mut whole = BytesMut::from(&*first);
        while (whole.len() as u64) < bytes_in_all {
            let (from, incarnation) = (self.from.clone(), self.incarnation);
            let body =
                QuestionBody::SessionPart { request: self.request, from: whole.len() as u64 };
            let question = wire::encode(&NodeQuestion { from, incarnation, body });
            let reply = self.ask_once(question, PART_TIME_MAX).await?;
            let QuestionReply::SessionPart { part, .. } = reply else { return None };
            if part.is_empty() {
                return None;
            }
            whole.extend_from_slice(&part);
        }
        Some(ReleaseReply::Session { copy: whole.freeze(), has_rest: false })
    }

    async fn ask_once(&self, question: Bytes, time_max: Duration) -> Option<QuestionReply> {
        let answer = self.door.ask(&self.to, self.to_incarnation, question, time_max).await.ok()?;
        wire::decode(&answer).ok()
    }
}
