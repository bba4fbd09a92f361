//! Calls about live clients: to disconnect, redirect, select and describe them, and to change their
//! subscriptions.

use std::{rc::Rc, sync::Arc};

use futures_util::future::LocalBoxFuture;
use tokio::{
    sync::{mpsc, oneshot},
    task::yield_now,
};

use super::{answer_of, ask};
use crate::{
    between::retained::RetainedOutcome,
    control::{
        ChangeSubscriptions, ClientSession, ControlError, Kick, Kicked, Redirect, SelectClients,
        SelectedClients, SelectionPlace, SubscriptionsChanged, TraceTarget,
    },
    mqtt::{Message, Publication, QoS},
    shard::{
        client_turns::ClientTurns,
        doors::{CHANGES_AT_A_TIME, ToConnection},
        shared::SharedShard,
    },
    traces::Trace,
};

/// The minimum number of clients in an answer of [`select`]; fewer if no more exist.
const SELECTED_AT_A_TIME: usize = 500;

/// Disconnects a client, or ends the session of an absent one. The connection is asked before this
/// returns.
pub(crate) fn kick(
    clients: &Rc<ClientTurns>,
    request: Kick,
) -> impl Future<Output = Result<Kicked, ControlError>> + use<> {
    let Kick { client_id, options, by } = request;
    let kick = |reply| ToConnection::Kick { options: options.clone(), by, reply };
    // Asked before the future runs, so that calls for one client keep their order.
    let asked = ask(clients, &client_id, kick);
    let clients = Rc::clone(clients);
    async move {
        let kicked = answer_of(asked).await;
        // An absent client has no connection that could end its session.
        if !options.ends_session() || kicked != Err(ControlError::NotOnline) {
            return kicked;
        }
        let (stored, is_stored) = oneshot::channel();
        // The turn ends before the wait, so that the shard is not borrowed meanwhile.
        let kicked = {
            let mut shard = clients.shard.borrow_mut();
            let now = shard.core.clock.now();
            // The client may have come back since the answer; then this fails.
            let kicked = shard.end_absent(&client_id, options.will_request(), now)?;
            // Before the flush, which closes the ticket that the caller waits for.
            shard.tell_when_stored(stored);
            shard.flush();
            kicked
        };
        // A session that the caller believes ended must not return with the next start.
        let _ = is_stored.await;
        Ok(kicked)
    }
}

/// Walks along the clients of the shard, a few at a time, and redirects the chosen ones to another
/// server. Ends early when its caller no longer waits. Returns how many were redirected.
pub(crate) async fn redirect(
    clients: &ClientTurns,
    request: Redirect,
    is_wanted: impl Fn() -> bool,
) -> usize {
    let to = Arc::new(request.to.clone());
    let by = request.caller.as_ref().and_then(|it| it.identity.username.clone());
    let (redirected, mut answers) = mpsc::unbounded_channel();
    let mut next = Some(0);
    while let Some(from) = next.filter(|_| is_wanted()) {
        let (meant, then) = clients.shard.borrow().meant_by(&request, from);
        next = then;
        for client_id in meant {
            let (to, by, reply) = (Arc::clone(&to), by.clone(), redirected.clone());
            // A client with too many waiting requests is neither redirected nor counted.
            let _ = clients.send(&client_id, ToConnection::Redirect { to, by, reply });
        }
        yield_now().await;
    }
    // Each client has a sender of its own now; with this one, the loop would never end.
    drop(redirected);
    let mut count = 0;
    while answers.recv().await.is_some() {
        // Counted by answers, because a client may have left before it was redirected.
        count += 1;
    }
    count
}

/// Selects clients of the shard, from a place on. The place at which to continue may be on the next
/// shard.
pub(crate) async fn select(clients: Rc<ClientTurns>, request: SelectClients) -> SelectedClients {
    let mut found = SelectedClients::default();
    let mut next = Some(request.from.slot);
    while let Some(from) = next
        && found.client_ids.len() < SELECTED_AT_A_TIME
    {
        let (some, then) = clients.shard.borrow().selected_by(&request, from as usize);
        found.client_ids.extend(some);
        next = then.map(|slot| slot as u32);
        // Also after a portion without a match, so that a rare one does not hold the thread.
        yield_now().await;
    }
    let SelectionPlace { shard, .. } = request.from;
    found.next = match next {
        Some(slot) => Some(SelectionPlace::new(shard, slot)),
        None if usize::from(shard) + 1 < clients.core.shards().len() => {
            Some(SelectionPlace::new(shard + 1, 0))
        }
        None => None,
    };
    found
}

/// Changes subscriptions of a connected client, some at a time; returns after they are stored.
///
/// # Errors
/// The client is not online, or too much waits for it.
pub(crate) async fn change_subscriptions(
    clients: Rc<ClientTurns>,
    request: ChangeSubscriptions,
) -> Result<SubscriptionsChanged, ControlError> {
    let ChangeSubscriptions { client_id, changes } = request;
    let mut reasons = Vec::with_capacity(changes.len());
    for changes in changes.chunks(CHANGES_AT_A_TIME) {
        let changes = changes.to_vec();
        let change = |reply| ToConnection::ChangeSubscriptions { changes, reply };
        let (some, is_stored) = answer_of(ask(&clients, &client_id, change)).await?;
        reasons.extend(some);
        let _ = is_stored.await;
    }
    Ok(SubscriptionsChanged::new(clients.core.node.clone(), reasons))
}

/// Describes the session of a client; `None` if it has none. The connection is asked before this
/// returns.
pub(crate) fn describe(
    shard: &SharedShard,
    client_id: &str,
) -> impl Future<Output = Option<ClientSession>> + use<> {
    let shard = shard.borrow();
    let described = shard.describe(client_id);
    let (reply, tls) = oneshot::channel();
    shard.send_to(client_id, ToConnection::DescribeTls(reply));
    async move {
        let mut described = described?;
        // Without a connection, or if it has ended by now, nobody answers.
        described.tls = tls.await.ok().flatten().filter(|_| described.online);
        Some(described)
    }
}

/// Has a trace observe the connections of its clients. A single client is told before this returns.
pub(crate) fn follow_trace(
    clients: &Rc<ClientTurns>,
    trace: Arc<Trace>,
) -> impl Future<Output = ()> + use<> {
    let mut next = Some(0);
    if let TraceTarget::Client(client_id) = trace.target() {
        // A connection that waits for its turn is observed when it arrives.
        let _ = clients.send(client_id, ToConnection::Trace(Arc::clone(&trace)));
        next = None;
    }
    let clients = Rc::clone(clients);
    async move {
        while let Some(from) = next {
            next = clients.shard.borrow().begin_trace(&trace, from);
            yield_now().await;
        }
    }
}

/// Removes the retained message of a topic; returns whether there was one, once the removal is stored.
/// The message is removed before this returns.
///
/// # Errors
/// The stream of retained messages of the cluster does not take the removal.
pub(crate) fn clear_retained(
    shard: &SharedShard,
    topic: &str,
) -> LocalBoxFuture<'static, Result<bool, ControlError>> {
    let mut turn = shard.borrow_mut();
    let now = turn.core.clock.now();
    let removal = Arc::new(Message::new(&Publication {
        topic,
        payload: b"",
        qos: QoS::AtLeastOnce,
        retain: true,
        properties: &[],
        expires_at: None,
    }));
    // Asked before, because the stream may bring the removal before the answer.
    let was_there = turn.has_retained(topic, now);
    if let Some(written) = turn.begin_retained_call(&removal, None, now) {
        let shard = shard.clone();
        return Box::pin(async move {
            match written.await {
                Ok(RetainedOutcome::Written(sequence)) => {
                    shard.borrow().clear_retained_at(removal.topic(), sequence);
                    Ok(was_there)
                }
                Ok(RetainedOutcome::TooLarge | RetainedOutcome::Unavailable) | Err(_) => {
                    Err(ControlError::Unavailable)
                }
            }
        });
    }
    let (stored, is_stored) = oneshot::channel();
    let was_there = turn.clear_retained(topic, now);
    turn.tell_when_stored(stored);
    turn.flush();
    Box::pin(async move {
        let _ = is_stored.await;
        Ok(was_there)
    })
}
