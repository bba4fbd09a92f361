//! The messages that reach a connection. The stream handles each of them in one turn, and answers what
//! is left to its actor: waiting, timers, and the end.

use super::ClientStream;
use crate::{
    control::{ControlError, KickOptions, Redirection},
    shard::{
        CERTIFICATE, Departure, IDENTITY_EXPIRED, Shard, connect::TakeStep, doors::ToConnection,
        not_authorized, presence::kicked::BeforeKick, refusal::reason_of,
    },
};

/// The next action of the actor of a connection after a message.
pub(crate) enum AfterMessage {
    /// Nothing.
    Waits,
    /// It leaves the session and closes.
    Departs(Departure),
    /// It waits until all other tasks had a turn, and says so to the stream.
    GivesWay,
    /// It waits for a step of an exchange.
    TakesStep(TakeStep),
    /// It waits for the source of the client's identity.
    RenewsIdentity,
    /// It writes these bytes and closes. The session is gone.
    Closes(Vec<u8>),
    /// It leaves once all output is written, or its time is over.
    Leaves,
}

impl ClientStream {
    /// Handles a message. The caller of a request may no longer wait for its answer; the action counts
    /// nevertheless.
    pub(crate) fn handle(&mut self, shard: &mut Shard, message: ToConnection) -> AfterMessage {
        let (at, now) = ((self.slot, self.link), shard.core.clock.now());
        match message {
            ToConnection::SetKeepAlive { request, reply } => {
                let _ = reply.send(shard.set_keep_alive(at, &request, now));
            }
            ToConnection::FollowOverride { by, reply } => {
                let _ = reply.send(shard.follow_override(at, by, now));
            }
            ToConnection::ChangeSettings { change, reply } => {
                let _ = reply.send(shard.change_settings(at, &change, now));
            }
            ToConnection::DescribeTls(reply) => {
                let _ = reply.send(self.transport.tls());
            }
            ToConnection::ChangeSubscriptions { changes, reply } => {
                let _ = reply.send(shard.change_subscriptions(at, &changes, now));
            }
            ToConnection::Kick { options, by, reply } => {
                let before = self.tell_kick(shard, &options);
                let bytes = self.leave(shard, Departure::kicked(&options, by));
                // After the end, whose result it is.
                let kicked = before.map(|before| shard.kicked(&before));
                let _ = reply.send(kicked.ok_or(ControlError::NotOnline));
                return bytes.map_or(AfterMessage::Waits, AfterMessage::Closes);
            }
            ToConnection::Redirect { to, by, reply } => {
                if self.tell_redirection(shard, &to) {
                    let _ = reply.send(());
                    return AfterMessage::Departs(Departure::redirected(by));
                }
            }
            ToConnection::GiveWay(baton) => {
                self.begin_to_give_way(baton);
                return AfterMessage::GivesWay;
            }
            // Bytes that have arrived but are not read yet count, so the stream is read first.
            ToConnection::KeepAliveExpired => self.keep_alive_expired = true,
            ToConnection::IdentityExpired => {
                // The client may have logged in again since the message was sent.
                if shard.has_expired_identity(self.slot, self.link) {
                    return AfterMessage::Departs(IDENTITY_EXPIRED);
                }
            }
            ToConnection::RenewIdentity => return AfterMessage::RenewsIdentity,
            ToConnection::VerifyCertificate => {
                // Authorities and revocation lists may have changed since the handshake.
                if let Err(error) = self.transport.verify_certificate() {
                    tracing::debug!(%error, "the client's certificate is not trusted any more");
                    return AfterMessage::Departs(not_authorized(CERTIFICATE));
                }
            }
            ToConnection::Trace(trace) => self.begin_trace(shard, &trace),
            ToConnection::TakeStep(step) => return AfterMessage::TakesStep(step),
            ToConnection::Finish(bytes) => return AfterMessage::Closes(bytes),
            ToConnection::Farewell => {
                self.is_leaving = true;
                return AfterMessage::Leaves;
            }
        }
        AfterMessage::Waits
    }

    /// Writes a DISCONNECT with the reason of a caller; returns the state of the session, if the
    /// connection still has it.
    fn tell_kick(&self, shard: &mut Shard, options: &KickOptions) -> Option<BeforeKick> {
        let slot = shard.linked(self.slot, self.link)?;
        slot.session.disconnect(options.reason_code, options.reason_string.as_deref());
        shard.before_kick(self.slot, options.will_request())
    }

    /// Writes a DISCONNECT that names another server; returns whether the connection still had its
    /// session.
    fn tell_redirection(&self, shard: &mut Shard, to: &Redirection) -> bool {
        let Some(slot) = shard.linked(self.slot, self.link) else { return false };
        slot.session.redirect(reason_of(to), to.server_reference());
        true
    }
}
