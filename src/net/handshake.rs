//! Takes a connection from its first byte to a session: reads CONNECT, authenticates and authorizes
//! the client, and sends the connection to its home shard.

use super::linger::linger;
use std::{net::SocketAddr, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use tokio::{io::AsyncWriteExt, time::Instant};
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::Instrument as _;

use super::{
    admission::{Admitted, Stage},
    exchange,
    follow::follow,
    newcomer::{Newcomer, Shown, connect_limits, read_more},
    refusal::Refusal,
    refused::{Refused, other_protocol, subject},
    room::Room,
};
use crate::{
    auth::{
        AccessRequest, Action, AuthenticationError, BRIDGE_CLIENTS, BROKER_PROPERTY, Credentials,
        Decision, Identity, ListenerLogins, PrepareRequest, Prepared, prepare,
    },
    metrics::ConnectRefusal,
    mqtt::{
        Connect, DecodeError, DecodeErrorKind, Decoded, LastWill, Message, Packet, ProtocolVersion,
        Publication, ReasonCode, decode_connect, is_of_the_broker, refusal_version, whole_length,
    },
    router::ShardNumber,
    shard::{
        Core, RefusalAnswer,
        certificates::CertificateSeat,
        connect::{AcceptedConnect, AcceptedWill, EnhancedLogin, TakeClient},
    },
    told::{Subject, connection_span},
    transport::Transport,
};

/// A new connection, over any transport.
pub(crate) struct Arrival {
    pub(crate) transport: Box<dyn Transport>,
    pub(crate) peer: SocketAddr,
    /// The URL of the listener that accepted it.
    pub(crate) listener: Arc<str>,
    /// The login rules of that listener.
    pub(crate) logins: ListenerLogins,
    /// Deadline for a complete CONNECT.
    pub(crate) connect_by: Instant,
    /// The client certificate that the TLS handshake has verified.
    pub(crate) certificate: Shown,
    /// The shard whose thread accepted the connection; `None` if no shard did.
    pub(crate) came_to: Option<ShardNumber>,
    /// Its place, held until the connection ends.
    pub(crate) admitted: Admitted,
    /// Held until the stream is closed.
    pub(crate) open: TaskTrackerToken,
}

/// Counts a refusal, in the metrics of the calling thread.
pub(crate) type CountRefusal<'a> = &'a (dyn Fn(ConnectRefusal) + Send + Sync);

/// The shortest CONNACK of MQTT 5.0. A client with a smaller Maximum Packet Size cannot receive
/// any.
const CONN_ACK_BYTES_MIN: u32 = 5;

/// Takes a connection from its first byte to its home shard, or refuses it.
pub(crate) async fn handshake(arrival: Arrival, core: &Arc<Core>, count: CountRefusal<'_>) {
    match connection_span(&Subject::stranger(arrival.peer, &arrival.listener)) {
        None => shake_hands(arrival, core, count).await,
        Some(span) => Box::pin(shake_hands(arrival, core, count)).instrument(*span).await,
    }
}

async fn shake_hands(arrival: Arrival, core: &Arc<Core>, count: CountRefusal<'_>) {
    let Arrival {
        mut transport,
        peer,
        listener,
        logins,
        certificate,
        connect_by,
        came_to,
        mut admitted,
        open,
    } = arrival;
    // Before the first read, so that the log has CONNECT too.
    transport = follow(transport, peer, &listener);
    let (mut room, mut buffer) = (Room::new(Arc::clone(&core.incomplete_packets)), Vec::new());
    let read = read_connect(&mut *transport, &mut buffer, &mut room, core);
    let read = tokio::time::timeout_at(connect_by, read);
    // Before CONNECT the version of the client is unknown, so the broker cannot tell it that it ends.
    let Some(read) = core.unless_ending(read).await else { return };
    // No CONNECT within a reasonable time (section 3.1.4).
    let timed_out = |_| Err(Refusal::silent(ConnectRefusal::ConnectTimeout));
    let read = read.unwrap_or_else(timed_out).and_then(|length| {
        // After CONNECT is complete, so that silent
        // sockets do not use up the rate of their address.
        admitted.knock().map_err(|refused| Refusal::for_rate(&buffer, refused))?;
        Ok(length)
    });
    let length = match read {
        Ok(length) => length,
        Err(refusal) => {
            // A connection that closes without a byte is usually a port check by monitoring: do not
            // log it.
            if !(buffer.is_empty() && refusal.refused.counted_as == ConnectRefusal::Closed) {
                refusal.tell(core, &Subject::stranger(peer, &listener));
            }
            drop((buffer, room)); // free it now: the client may read slowly
            return refuse(&mut *transport, refusal, &mut admitted, count).await;
        }
    };
    // Taps before the credentials are checked, because a trace also records refused CONNECTs.
    if core.traces.is_any() {
        let name = certificate.as_ref().ok().and_then(Option::as_ref);
        let name = name.map(|certificate| &*certificate.common_name);
        transport = core.traces.tap_newcomer(transport, &buffer, (peer, name));
    }
    let mut read_ahead = buffer.split_off(length);
    // CONNECT stays buffered until the client is accepted; bytes read ahead count in addition.
    room.keep(length);
    let newcomer = Newcomer {
        transport: &mut *transport,
        read_ahead: &mut read_ahead,
        room: &mut room,
        admitted: &mut admitted,
        connect_by,
        peer,
        listener: &listener,
        logins,
        certificate: certificate.as_ref().ok().and_then(Option::as_ref),
        core,
    };
    let connect = match decode_and_accept(&buffer, newcomer, &certificate).await {
        Ok(connect) => connect,
        Err(refusal) => {
            drop((buffer, read_ahead, room));
            return refuse(&mut *transport, refusal, &mut admitted, count).await;
        }
    };
    let permit = Box::new((admitted, open));
    send_home(TakeClient { transport, read_ahead, connect, permit }, came_to, core);
}

/// Decodes CONNECT and accepts its client, or writes the log line of its refusal.
async fn decode_and_accept(
    bytes: &[u8],
    newcomer: Newcomer<'_>,
    certificate: &Shown,
) -> Result<AcceptedConnect, Refusal> {
    let (core, peer, listener) = (newcomer.core, newcomer.peer, newcomer.listener);
    let connect = match decode_connect(bytes, &connect_limits(core)) {
        Ok(Decoded::Packet { packet: Packet::Connect(connect), .. }) => connect,
        Ok(_) => return Err(Refusal::silent(ConnectRefusal::Malformed)), // [MQTT-3.1.0-1]
        Err(error) => {
            let refusal = refusal_of(&error, bytes);
            refusal.tell(core, &Subject::stranger(peer, listener));
            return Err(refusal);
        }
    };
    let accepted = match certificate {
        Ok(_) => {
            let accepted = core.unless_ending(accept_connect(&connect, newcomer)).await;
            accepted.unwrap_or_else(|| Err(Refusal::for_the_end(connect.version)))
        }
        Err(error) => Err(Refusal::of_certificate(&connect, error)),
    };
    accepted.map_err(|mut refusal| {
        refusal.tell(core, &subject(&connect, peer, listener));
        // The answer leaves out its Reason String rather than exceed this size. [MQTT-3.2.2-19]
        refusal.keep_within(connect.properties.maximum_packet_size);
        refusal
    })
}

/// Moves a connection to the home shard of its client identifier.
fn send_home(mut arrival: TakeClient, came_to: Option<ShardNumber>, core: &Core) {
    let home = core.home(&arrival.connect.client_id); // [MQTT-3.1.3-2]
    let Some(door) = core.arrivals(home) else {
        return;
    };
    if came_to != Some(home)
        && let Err(error) = arrival.transport.leave_reactor()
    {
        tracing::warn!(%error, "connection cannot move to its home shard");
        return;
    }
    // At most one message for each socket, and sockets are limited, so the mailbox is bounded.
    door.bring(arrival);
}

/// Reads until CONNECT is complete and returns its length.
async fn read_connect(
    transport: &mut dyn Transport,
    buffer: &mut Vec<u8>,
    room: &mut Room,
    core: &Core,
) -> Result<usize, Refusal> {
    let limits = connect_limits(core);
    loop {
        // Only the length is read here; CONNECT is decoded once, by the caller.
        if let Some(length) = whole_length(buffer) {
            return Ok(length);
        }
        // What is wrong with its header shows before the packet is complete.
        if let Err(error) = decode_connect(buffer, &limits) {
            return Err(refusal_of(&error, buffer));
        }
        read_more(transport, buffer).await?;
        if !room.has(buffer.len()) {
            // Older versions have no Return Code for a quota, so their connection is only closed.
            return Err(match refusal_version(buffer) {
                Some(ProtocolVersion::V5) => Refusal::for_want_of_room(),
                _ => Refusal::silent(ConnectRefusal::IncompletePacketBytesMax),
            });
        }
    }
}

/// Returns the refusal for a CONNECT that cannot be decoded.
fn refusal_of(error: &DecodeError, bytes: &[u8]) -> Refusal {
    let version = refusal_version(bytes);
    let refusal = match (error.kind, version) {
        (DecodeErrorKind::UnsupportedProtocolVersion { .. }, Some(version)) => Refusal::with(
            version,
            ReasonCode::UnsupportedProtocolVersion, // [MQTT-3.1.2-2]
            ConnectRefusal::ProtocolVersion,
        ),
        // MQTT 5.0 gets a Reason Code; older versions are only disconnected. [MQTT-3.1.4-1]
        (_, Some(ProtocolVersion::V5)) => {
            Refusal::with(ProtocolVersion::V5, error.reason(), ConnectRefusal::Malformed)
        }
        _ => Refusal::silent(ConnectRefusal::Malformed),
    };
    match other_protocol(bytes) {
        Some(spoken) => refusal.told(&spoken),
        None => refusal.told(error),
    }
}

/// Authenticates the client and checks that it may connect.
async fn accept_connect(
    connect: &Connect<'_>,
    mut newcomer: Newcomer<'_>,
) -> Result<AcceptedConnect, Refusal> {
    let Newcomer { core, peer, listener, .. } = newcomer;
    let version = connect.version;
    // Cheap checks come first; those that compute or wait for another service follow.
    refuse_at_the_door(connect, &newcomer)?;
    let is_assigned = connect.client_id.is_empty();
    let client_id = client_id(connect, core)?;
    if core.keeps_out(connect, &client_id, newcomer.certificate, peer.ip()) {
        return Err(Refusal::banned(version)); // before a password is hashed
    }
    // Noted before the check: a change of accounts during it makes the login be checked again.
    let proven = core.proves_now(connect.properties.authentication_method.map(Into::into));
    let has_certificate = newcomer.certificate.is_some();
    let (mut identity, enhanced) = authenticate(connect, &client_id, &mut newcomer).await?;
    let refused = |why| {
        let counted_as = ConnectRefusal::NotAuthorized;
        Err(Refusal::with(version, ReasonCode::NotAuthorized, counted_as).because(why))
    };
    if identity.has_expired(core.clock.now()) {
        return refused("the credentials have expired");
    }
    // Before any rule is asked, because the authorizer may need loaded rules for `Connect` too.
    identity.prepared = newcomer.prepare(&identity, &client_id, version).await?;
    let allows = |action: Action<'_>| {
        let (identity, client_id) = (&identity, &*client_id);
        let request = AccessRequest { identity, client_id, peer, listener, action };
        core.authorizer.authorize(&request) == Decision::Allow
    };
    // Checked now, because a client cannot be told any more when its Will is published.
    let may_publish_will = connect.will.as_ref().is_none_or(|will| {
        let &LastWill { topic, qos, retain, .. } = will;
        !is_of_the_broker(topic) && allows(Action::Publish { topic, qos, retain })
    });
    if !allows(Action::Connect) {
        return refused("no rule allows to connect with this client identifier"); // [MQTT-3.1.4-2]
    }
    if !may_publish_will {
        return refused("no rule allows to publish the Will");
    }
    newcomer.check_pin(&client_id, version, is_assigned).await?;
    let certificate = seat_of(&newcomer, &client_id, &identity);
    let owned = newcomer.claim(&client_id, version).await?;
    // Last, so that a refused client never takes a place from an accepted one.
    newcomer.admitted.accept().map_err(|refused| Refusal::for_want_of_places(version, refused))?;
    Ok(AcceptedConnect {
        is_assigned, // CONNACK tells the identifier then. [MQTT-3.1.3-7]
        version,
        is_bridge: connect.is_bridge,
        clean_start: connect.clean_start,
        keep_alive_secs: connect.keep_alive,
        will: connect.will.as_ref().map(accepted_will),
        session_expiry_secs: connect.properties.session_expiry_interval,
        settings: None,
        receive_maximum: connect.properties.receive_maximum.unwrap_or(u16::MAX),
        maximum_packet_size: connect.properties.maximum_packet_size.unwrap_or(u32::MAX),
        topic_alias_maximum: connect.properties.topic_alias_maximum.unwrap_or(0), // [MQTT-3.1.2-27]
        problem_information: connect.properties.request_problem_information.unwrap_or(true),
        // [MQTT-3.1.2-28]
        wants_response_information: connect.properties.request_response_information == Some(true),
        identity,
        proven,
        has_certificate,
        certificate,
        enhanced: enhanced.map(Box::new),
        owned,
        of_bridge: None,
        wants_broker_id: wants_broker_id(connect),
        client_id,
        peer,
        listener: Arc::clone(listener),
    })
}

/// Returns whether a bridge of another broker connects, which asks for the identifier of this one.
fn wants_broker_id(connect: &Connect<'_>) -> bool {
    let properties = connect.properties.user_properties;
    !properties.is_empty() && properties.iter().any(|(name, _)| name == BROKER_PROPERTY)
}

/// Refuses what needs no look at the client: no place, another broker, no packet that it would take.
fn refuse_at_the_door(connect: &Connect<'_>, newcomer: &Newcomer<'_>) -> Result<(), Refusal> {
    let version = connect.version;
    if let Some(to) = newcomer.core.draining.load_full() {
        // Redirect before the password is hashed: many clients may come at once, and the new
        // address is not secret.
        let answer = Some(RefusalAnswer::redirecting(version, to));
        return Err(Refusal { answer, refused: Refused::new(ConnectRefusal::Redirected) });
    }
    if connect.properties.maximum_packet_size.is_some_and(|bytes| bytes < CONN_ACK_BYTES_MIN) {
        return Err(Refusal::silent(ConnectRefusal::PacketTooLarge)); // [MQTT-3.1.2-24]
    }
    // A look without taking a place: it spares a full broker the check of a password.
    if newcomer.admitted.finds_all_taken() {
        return Err(Refusal::for_want_of_places(version, ConnectRefusal::ConnectionsMax));
    }
    Ok(())
}

/// Returns the client's own identifier, or assigns one where the version allows it.
fn client_id(connect: &Connect<'_>, core: &Core) -> Result<Arc<str>, Refusal> {
    let is_empty = connect.client_id.is_empty();
    // Another client with this name would take over the session of a bridge.
    if connect.client_id.starts_with(BRIDGE_CLIENTS) {
        let reason = ReasonCode::ClientIdentifierNotValid;
        let counted_as = ConnectRefusal::ClientIdentifier;
        let refusal = Refusal::with(connect.version, reason, counted_as);
        return Err(refusal.because("$bridge/ is for the bridges of this broker"));
    }
    let limits = core.limits_now();
    let is_short = connect.client_id.len() <= usize::from(limits.client_id_bytes_max);
    let is_acceptable = is_short
        && match connect.version {
            // The standard allows 1 to 23 characters, but many clients send more.
            ProtocolVersion::V3_1 => {
                let max = usize::from(limits.client_id_v3_1_chars_max);
                !is_empty && connect.client_id.chars().nth(max).is_none()
            }
            // An empty identifier needs a clean session. [MQTT-3.1.3-8] of 3.1.1
            ProtocolVersion::V3_1_1 => !is_empty || connect.clean_start,
            ProtocolVersion::V5 => true,
        };
    if !is_acceptable {
        let reason = ReasonCode::ClientIdentifierNotValid;
        let counted_as = ConnectRefusal::ClientIdentifier;
        return Err(Refusal::with(connect.version, reason, counted_as));
    }
    // A random identifier, so that no session has it already. [MQTT-3.2.2-16]
    Ok(if is_empty { assigned_client_id().into() } else { connect.client_id.into() })
}

/// Authenticates the client, by its Authentication Method if it names one.
async fn authenticate(
    connect: &Connect<'_>,
    client_id: &str,
    newcomer: &mut Newcomer<'_>,
) -> Result<(Identity, Option<EnhancedLogin>), Refusal> {
    if let Some(method) = connect.properties.authentication_method {
        // Boxed, so that the future of a client without a method stays small.
        let exchange = Box::pin(exchange::run(connect, client_id, method, newcomer));
        let (identity, login) = exchange.await?;
        return Ok((identity, Some(login)));
    }
    let credentials = newcomer.credentials(connect, client_id);
    let core = newcomer.core;
    let time_max = Duration::from_secs(core.limits_now().authentication_secs_max.into());
    // A bound of its own: an authenticator of the application may never answer.
    let checking = core.authenticator.authenticate(credentials);
    let identity = tokio::time::timeout(time_max, newcomer.admitted.ask(checking)).await;
    let identity = identity.unwrap_or(Err(AuthenticationError::Unavailable));
    let Credentials { username, password, certificate, .. } = credentials;
    let shows_nothing = username.is_none() && password.is_none() && certificate.is_none();
    let refused = |error: AuthenticationError| {
        use AuthenticationError::{BadCredentials, NotMine};
        if shows_nothing && matches!(error, BadCredentials | NotMine) {
            // The client sent no user name or password that could be wrong.
            let (reason, counted_as) = (ReasonCode::NotAuthorized, ConnectRefusal::BadCredentials);
            return Refusal::with(connect.version, reason, counted_as);
        }
        let refusal = Refusal::of_credentials(connect.version, &error);
        let has_query = username.is_some_and(|name| name.contains('?'));
        match matches!(error, BadCredentials | NotMine) && has_query {
            true => refusal.told(&format_args!("{error}; the user name has a `?`, {SEE_OPTION}")),
            false => refusal,
        }
    };
    identity.map(|identity| (identity, None)).map_err(refused)
}

impl Newcomer<'_> {
    /// Has the authorizer load what it needs for the client, within the time of CONNECT.
    async fn prepare(
        &mut self,
        identity: &Identity,
        client_id: &str,
        version: ProtocolVersion,
    ) -> Result<Prepared, Refusal> {
        let Self { peer, listener, connect_by, .. } = *self;
        let request = PrepareRequest { identity, client_id: Some(client_id), peer, listener };
        let preparing = prepare(&*self.core.authorizer, request, connect_by);
        self.admitted.ask(preparing).await.map_err(|error| {
            let counted_as = ConnectRefusal::AuthorizerUnavailable;
            Refusal::with(version, ReasonCode::ServerUnavailable, counted_as).told(&error)
        })
    }
}

/// The log line about a user name with a query.
const SEE_OPTION: &str = "see auth.username_without_query";

/// Returns the entry of a client among the certificates of all connections; `None` if it has shown none.
fn seat_of(
    newcomer: &Newcomer<'_>,
    client_id: &str,
    identity: &Identity,
) -> Option<Box<CertificateSeat>> {
    newcomer.certificate?;
    let facts = newcomer.transport.tls()?.certificate?;
    let connected = &newcomer.core.certificates.connected;
    let who = (client_id, identity.username.as_ref());
    Some(Box::new(connected.seat(facts, who, newcomer.listener)))
}

fn accepted_will(will: &LastWill<'_>) -> AcceptedWill {
    let mut properties = Vec::new();
    will.properties.publish.encode_forwarded(&mut properties);
    let publication = Publication {
        topic: will.topic,
        payload: will.payload,
        qos: will.qos,
        retain: will.retain, // [MQTT-3.1.2-14] [MQTT-3.1.2-15]
        properties: &properties,
        expires_at: None,
    };
    AcceptedWill {
        message: Arc::new(Message::new(&publication)),
        delay_secs: will.properties.will_delay_interval.unwrap_or(0),
        expiry_secs: will.properties.publish.message_expiry_interval,
        share: None,
        record: None,
    }
}

/// Returns a client identifier that cannot be guessed. [MQTT-3.1.3-6]
fn assigned_client_id() -> String {
    let mut random = [0; 16];
    getrandom::fill(&mut random).expect("the operating system has random bytes");
    format!("auto-{}", URL_SAFE_NO_PAD.encode(random))
}

/// Sends the CONNACK of a refusal, if it has one, and closes the connection.
async fn refuse(
    transport: &mut dyn Transport,
    refusal: Refusal,
    admitted: &mut Admitted,
    count: CountRefusal<'_>,
) {
    count(refusal.refused.counted_as);
    // A client that is told of its refusal is evicted before all others that still wait.
    admitted.reach(Stage::Leaving);
    if let Some(answer) = &refusal.answer {
        let bytes = answer.encode();
        let _ = tokio::time::timeout(REFUSAL_TIME_MAX, transport.write_all(&bytes)).await;
    }
    // A refusal always ends the connection, with or without an answer. [MQTT-3.2.2-7] [MQTT-4.13.2-1]
    let is_shut = tokio::time::timeout(REFUSAL_TIME_MAX, transport.shutdown()).await;
    // Only a client that was sent an answer can lose it by a reset.
    if refusal.answer.is_some() && matches!(is_shut, Ok(Ok(()))) {
        linger(transport).await;
    }
}

/// Maximum time to write the answer to a refused client.
const REFUSAL_TIME_MAX: Duration = Duration::from_secs(2);
