//! A connected client authenticates again: section 4.12.1 of MQTT 5.0.
//!
//! The connection awaits the result of the exchange, which takes time, see [`TakeStep`]. Meanwhile
//! everything else continues under the present identity.

use std::sync::Arc;

use crate::{
    auth::{
        AccessRequest, Action, AuthenticationError, BoundedExchange, Credentials, Decision,
        ExchangeStart, Identity, Renew, Step,
    },
    hooks::DisconnectReason,
    mqtt::{Auth, AuthProperties, Packet, ReasonCode},
    shard::{
        Departure, Presence, Shard,
        connect::{EnhancedLogin, Proven, TakeStep},
        doors::ToConnection,
        presence::{
            expiry::IDENTITY_EXPIRED,
            recheck::{PERMISSION, not_authorized},
        },
    },
};

/// The time after which a source that was unavailable is asked again, in milliseconds.
const ASK_AGAIN_MILLIS: u64 = 5_000;

/// The authentication of a client that gave a method in CONNECT.
pub(in crate::shard) struct Authentication {
    login: Box<EnhancedLogin>,
    /// The facts on which the exchange in progress rests.
    proven: Option<Proven>,
    phase: Phase,
}

/// ```text
///            AUTH 0x19 ▼                 ┌────── AUTH 0x18 ◄── ┐
///   Settled ──────────────► Checking ◄───┘                     │
///      ▲                    │      │                           │
///      └── AUTH 0x00 ◄ done ┘      └ to be answered ► AUTH 0x18, Waiting
/// ```
/// A failure, another user and the time limit end the connection. Any other AUTH of the client is a
/// protocol error.
enum Phase {
    /// The client's identity is confirmed.
    Settled,
    /// A step is in progress; the connection has the exchange.
    Checking,
    /// The client must answer.
    Waiting(BoundedExchange),
}

impl Authentication {
    pub(in crate::shard) fn new(mut login: Box<EnhancedLogin>) -> Box<Self> {
        login.data = None; // The CONNACK, which has it, is encoded.
        Box::new(Self { login, proven: None, phase: Phase::Settled })
    }
}

impl Shard {
    /// Handles an AUTH of the client.
    pub(in crate::shard) fn handle_auth(
        &mut self,
        slot: u32,
        auth: &Auth<'_>,
    ) -> Result<(), Departure> {
        let Some(found) = self.slots.get_mut(slot as usize) else {
            return Ok(());
        };
        let Some(connected) = &mut found.connected else {
            return Ok(());
        };
        // Only a client that named a method in CONNECT may send AUTH.
        let Some(authentication) = &mut connected.authentication else {
            return Err(protocol_error("MQTT-4.12.0-7"));
        };
        let Authentication { login, phase, proven, .. } = &mut **authentication;
        // The method stays the same for the whole connection.
        if auth.properties.authentication_method != Some(&*login.method) {
            return Err(protocol_error("MQTT-4.12.0-5"));
        }
        let is_first = auth.reason == ReasonCode::ReAuthenticate;
        // `Checking` stands in the slot while the step runs, so a second AUTH meanwhile is out of turn.
        let exchange = match (auth.reason, std::mem::replace(phase, Phase::Checking)) {
            (ReasonCode::ReAuthenticate, Phase::Settled) => {
                let credentials = Credentials {
                    client_id: Some(found.session.client_id()),
                    username: login.username.as_deref(),
                    certificate: login.certificate.as_ref(),
                    ..Credentials::new(found.presence.peer, &found.presence.listener)
                };
                // Noted at the begin: rules that are reloaded during the exchange are newer than
                // what it proves.
                *proven = Some(self.core.proves_now(Some((*login.method).into())));
                let identity = Some(&found.presence.identity);
                let start = ExchangeStart { method: &login.method, credentials, identity };
                self.core.begin_exchange(start)
            }
            (ReasonCode::ContinueAuthentication, Phase::Waiting(exchange)) => Some(exchange),
            // The AUTH is out of turn. [MQTT-4.12.0-3]
            (_, Phase::Settled | Phase::Checking | Phase::Waiting(_)) => None,
        };
        // The connection ends in this case, so the replaced phase is never seen.
        let exchange = exchange.ok_or(protocol_error("MQTT-4.12.0-3"))?;
        let data = auth.properties.authentication_data.map(<[u8]>::to_vec);
        // At most one exchange is in progress.
        connected.door.send(ToConnection::TakeStep(TakeStep { exchange, data, is_first }));
        Ok(())
    }

    /// Handles the result of a step; returns whether it was the last.
    ///
    /// # Errors
    /// Returns how the connection must end.
    pub(crate) fn step_taken(
        &mut self,
        slot: u32,
        exchange: BoundedExchange,
        step: Result<Step, AuthenticationError>,
    ) -> Result<bool, Departure> {
        match step {
            Err(error) => {
                tracing::debug!(%error, "client failed to authenticate again");
                Err(not_authenticated(error)) // [MQTT-4.12.1-2]
            }
            Ok(Step::Continue(data)) => {
                if let Some(authentication) = self.authentication(slot) {
                    authentication.phase = Phase::Waiting(exchange);
                }
                // [MQTT-4.12.0-2]
                self.send_auth(slot, ReasonCode::ContinueAuthentication, data.as_deref());
                Ok(false)
            }
            Ok(Step::Done { identity, data }) => {
                // Taken once; a later exchange notes its own.
                let proven =
                    self.authentication(slot).and_then(|under_way| under_way.proven.take());
                // The identity changes first: Success must not be sent for a user that is refused.
                self.replace_identity(slot, identity, proven)?;
                self.send_auth(slot, ReasonCode::Success, data.as_deref());
                if let Some(authentication) = self.authentication(slot) {
                    authentication.phase = Phase::Settled;
                }
                Ok(true)
            }
        }
    }

    /// Returns the renewal of the client's identity, with the facts on which the new identity will rest.
    pub(crate) fn begin_renewal(&self, slot: u32, link: u64) -> Option<(Arc<dyn Renew>, Proven)> {
        let found = self.slot(slot)?;
        found.connected.as_ref().filter(|connected| connected.link == link)?;
        let Presence { identity, proven, .. } = &found.presence;
        let method = proven.as_ref().and_then(|proven| proven.method.clone());
        Some((identity.renewal.by()?, self.core.proves_now(method)))
    }

    /// Takes the renewed identity of a connected client.
    ///
    /// # Errors
    /// Returns how the connection must end.
    pub(crate) fn identity_renewed(
        &mut self,
        slot: u32,
        renewed: Result<Identity, AuthenticationError>,
        proven: Proven,
    ) -> Result<(), Departure> {
        match renewed {
            Ok(identity) => {
                // The source that decided the login stays responsible for the client.
                let source =
                    self.slot(slot).and_then(|found| found.presence.identity.source.clone());
                self.replace_identity(slot, Identity { source, ..identity }, Some(proven))
            }
            // The source does not answer: the client keeps its identity, and the question is repeated.
            Err(AuthenticationError::Unavailable | AuthenticationError::Failed(_)) => {
                let at = self.core.clock.now().plus_millis(ASK_AGAIN_MILLIS);
                let connected = self.slot_mut(slot).and_then(|found| found.connected.as_mut());
                if let Some(connected) = connected {
                    connected.renews_at = Some(at);
                }
                self.set_timer(slot);
                Ok(())
            }
            // The source refuses the client, so its connection ends.
            Err(error) => {
                tracing::debug!(%error, "the identity of a client is not renewed");
                Err(not_authenticated(error))
            }
        }
    }

    /// Replaces the client's identity from here on by `identity`: the same user, because the
    /// session belongs to that user.
    fn replace_identity(
        &mut self,
        slot: u32,
        identity: Identity,
        proven: Option<Proven>,
    ) -> Result<(), Departure> {
        let Some(found) = self.slots.get_mut(slot as usize) else {
            return Ok(());
        };
        let request = AccessRequest {
            identity: &identity,
            client_id: found.session.client_id(),
            peer: found.presence.peer,
            listener: &found.presence.listener,
            action: Action::Connect,
        };
        let now = self.core.clock.now();
        // The exchange takes time, in which short-lived credentials may have expired.
        if identity.has_expired(now) {
            return Err(IDENTITY_EXPIRED);
        }
        let rules = &*self.core.authorizer;
        // Rules that were reloaded during the exchange may disagree with what was loaded for it.
        if proven.as_ref().is_some_and(|proven| proven.has_missed_rules(&identity, rules)) {
            return Err(not_authenticated(AuthenticationError::Unavailable));
        }
        if found.presence.identity.username != identity.username {
            let refused = not_authenticated(AuthenticationError::NotAllowed);
            return Err(refused.because("the credentials are those of another user"));
        }
        // The new identity may have other groups and attributes, on which the rules depend.
        if self.core.authorizer.authorize(&request) == Decision::Deny {
            return Err(not_authorized(PERMISSION));
        }
        found.presence.identity = identity;
        found.presence.proven = proven;
        found.recent_topic = None; // It was decided for the former identity.
        if let Some(connected) = &mut found.connected {
            connected.is_expiry_told = false;
            connected.renews_at = found.presence.identity.renewal.at();
        }
        // The timer of the slot has the times of the former identity.
        self.set_timer(slot);
        // A start judges the session by its stored login.
        self.note_session(slot, true);
        // Last: the subscriptions are judged by the identity in the slot.
        self.revoke_subscriptions(slot, now);
        Ok(())
    }

    fn send_auth(&mut self, slot: u32, reason: ReasonCode, data: Option<&[u8]>) {
        let Some(found) = self.slots.get_mut(slot as usize) else {
            return;
        };
        let authentication = found.connected.as_ref().and_then(|c| c.authentication.as_ref());
        if let (Some(authentication), Some(link)) = (authentication, found.session.link_mut()) {
            self.buffers.lend(link.out_mut());
            let properties = AuthProperties {
                authentication_method: Some(&authentication.login.method), // [MQTT-4.12.0-5]
                authentication_data: data,
                ..AuthProperties::default()
            };
            link.send(&Packet::Auth(Auth { reason, properties }));
        }
        found.wake();
    }

    fn authentication(&mut self, slot: u32) -> Option<&mut Authentication> {
        let connected = self.slots.get_mut(slot as usize)?.connected.as_mut()?;
        connected.authentication.as_deref_mut()
    }
}

const fn protocol_error(clause: &'static str) -> Departure {
    Departure::by_server(DisconnectReason::ProtocolError, ReasonCode::ProtocolError).because(clause)
}

/// Returns the departure of a client that failed to authenticate again. DISCONNECT has fewer reason
/// codes than CONNACK.
pub(crate) fn not_authenticated(error: AuthenticationError) -> Departure {
    let (code, why) = match error {
        AuthenticationError::BadCredentials
        | AuthenticationError::NotMine
        | AuthenticationError::NotAllowed
        | AuthenticationError::OtherThanCertificate
        | AuthenticationError::NoAccount => {
            (ReasonCode::NotAuthorized, "the credentials are not accepted any more")
        }
        AuthenticationError::TooManyAttempts { .. } => {
            (ReasonCode::ConnectionRateExceeded, "too many attempts to log in have failed")
        }
        AuthenticationError::Unavailable | AuthenticationError::Failed(_) => {
            (ReasonCode::ServerBusy, "the credentials cannot be checked now")
        }
    };
    Departure::by_server(DisconnectReason::NotAuthorized, code).because(why)
}
