//! How the broker ends a connection: with DISCONNECT where the version has it, then by closing.

use hearthmq::mqtt::{Packet, ProtocolVersion::V5, ReasonCode};

use crate::{
    line::Line,
    model::{Told, Verdict},
    world::{TURNS_MAX, World},
};

impl World {
    /// Returns the Reason Code of a DISCONNECT that must have come; `None` if any failure will do.
    pub(crate) fn ended_by_broker(&self, client: usize) -> Option<ReasonCode> {
        use hearthmq::hooks::DisconnectReason::{
            AuthenticationExpired, Banned, KeepaliveTimeout, Kicked, NotAuthorized, Takeovered,
        };
        let last = self.model.told.iter().rev().find(|(who, _)| *who == client);
        match last {
            Some((_, Told::Disconnected(Kicked | Banned))) => {
                Some(ReasonCode::AdministrativeAction)
            }
            Some((_, Told::Disconnected(KeepaliveTimeout))) => Some(ReasonCode::KeepAliveTimeout),
            Some((_, Told::Disconnected(AuthenticationExpired | NotAuthorized))) => {
                Some(ReasonCode::NotAuthorized)
            }
            Some((_, Told::Disconnected(Takeovered))) => Some(ReasonCode::SessionTakenOver),
            _ => None,
        }
    }

    /// Checks that the broker ends a connection: with a reason if it can give one, then by closing.
    pub(crate) async fn farewell(&mut self, mut line: Line, reason: Option<ReasonCode>) -> Verdict {
        let mut last = None;
        for _ in 0..TURNS_MAX {
            line.read(usize::MAX);
            while let Some(said) = line.next(|packet, _| match packet {
                Packet::Disconnect(disconnect) => Some(disconnect.reason),
                _ => None,
            })? {
                last = said;
            }
            if line.is_ended() {
                let is_right = match (line.version(), last) {
                    (V5, Some(said)) => {
                        reason.is_none_or(|reason| reason == said) && said.is_failure()
                    }
                    // Answers that cannot be sent yet are queued before it.
                    (V5, None) => self.disk.is_failing(),
                    (_, said) => said.is_none(),
                };
                let wrong = || format!("DISCONNECT {last:?} came, {reason:?} was expected");
                return if is_right { Ok(()) } else { Err(wrong()) };
            }
            self.moment().await;
        }
        Err("a connection that has ended is not closed".to_owned())
    }
}
