//! Calls about Keep Alives: those of live connections, and overrides for later ones.

use std::{rc::Rc, sync::Arc, vec};

use futures_util::future::{LocalBoxFuture, join_all};

use super::{Asked, answer_of, ask};
use crate::{
    control::{ControlError, KeepAliveChanged, KeepAliveOverride, RemoveOverride, SetKeepAlive},
    shard::{
        client_turns::ClientTurns, doors::ToConnection, overrides::end_of, table::StickyBounds,
    },
};

/// Connections that are asked at the same time. Each is a task of its own, and all of them run before the
/// tasks of other clients that become ready meanwhile.
const CONNECTIONS_AT_A_TIME: usize = 32;

type KeepAliveOutcome = Result<KeepAliveChanged, ControlError>;

/// Changes the Keep Alive of a client. The connection is asked before this returns.
pub(crate) fn set_keep_alive(
    clients: &Rc<ClientTurns>,
    request: SetKeepAlive,
) -> LocalBoxFuture<'static, KeepAliveOutcome> {
    if !request.is_sticky {
        return Box::pin(answer_of(ask_to_set(clients, request)));
    }
    let seen = match request.interval_secs {
        0 => Err(ControlError::InvalidInterval),
        _ => ask_to_set(clients, SetKeepAlive { is_dry_run: true, ..request.clone() }),
    };
    Box::pin(set_override(Rc::clone(clients), seen, request))
}

/// Changes the Keep Alives of several clients; the answers have the order of the requests.
pub(crate) fn set_each_keep_alive(
    clients: &Rc<ClientTurns>,
    requests: Vec<SetKeepAlive>,
) -> LocalBoxFuture<'static, Vec<KeepAliveOutcome>> {
    if requests.iter().any(|request| request.is_sticky) {
        // Together, so that the store commits them together.
        let set = requests.into_iter().map(|request| set_keep_alive(clients, request));
        return Box::pin(join_all(set.collect::<Vec<_>>()));
    }
    let clients = Rc::clone(clients);
    let mut left = requests.into_iter();
    let mut answers = Vec::with_capacity(left.len());
    // The first immediately: a connection is reached in the order of the requests.
    let mut asked = ask_some(&clients, &mut left);
    Box::pin(async move {
        while !asked.is_empty() {
            for one in asked {
                answers.push(answer_of(one).await);
            }
            asked = ask_some(&clients, &mut left);
        }
        answers
    })
}

/// Removes the override of a client, whose connection then follows it no longer; returns the one that
/// was there.
///
/// # Errors
/// The store cannot be written.
pub(crate) async fn remove_override(
    clients: Rc<ClientTurns>,
    request: RemoveOverride,
) -> Result<Option<KeepAliveOverride>, ControlError> {
    let RemoveOverride { client_id, by } = request;
    let former = clients.core.overrides.remove(&client_id).await?;
    let follow = |reply| ToConnection::FollowOverride { by, reply };
    let _ = answer_of(ask(&clients, &client_id, follow)).await;
    Ok(former)
}

/// Asks the next few connections.
fn ask_some(
    clients: &ClientTurns,
    left: &mut vec::IntoIter<SetKeepAlive>,
) -> Vec<Asked<KeepAliveChanged>> {
    let some = left.by_ref().take(CONNECTIONS_AT_A_TIME);
    some.map(|request| ask_to_set(clients, request)).collect()
}

fn ask_to_set(clients: &ClientTurns, request: SetKeepAlive) -> Asked<KeepAliveChanged> {
    let client_id = request.client_id.clone();
    ask(clients, &client_id, |reply| ToConnection::SetKeepAlive { request, reply })
}

/// Stores an override and puts it into force. First asks the connection, if there is one, so that a
/// call that fails stores nothing.
async fn set_override(
    clients: Rc<ClientTurns>,
    seen: Asked<KeepAliveChanged>,
    request: SetKeepAlive,
) -> KeepAliveOutcome {
    let core = Arc::clone(&clients.core);
    let seen = match answer_of(seen).await {
        Ok(result) => Some(result),
        Err(ControlError::NotOnline) => None,
        Err(error) => return Err(error),
    };
    let bounds = StickyBounds::of(&core.limits_now(), request.is_within_share);
    bounds.check_client_id(&request.client_id)?;
    let SetKeepAlive { client_id, interval_secs, by, is_dry_run, ttl_secs, .. } = request;
    let former = core.overrides.find(&client_id).map_or(0, |found| found.interval_secs);
    let of_absent = || KeepAliveChanged::new(core.node.clone(), former, interval_secs);
    let result = seen.unwrap_or_else(of_absent);
    if is_dry_run {
        return Ok(result);
    }
    let now = core.clock.now();
    let mut wanted = KeepAliveOverride::new(client_id, interval_secs, now);
    (wanted.by, wanted.expires_at) = (by.clone(), end_of(ttl_secs, now));
    core.overrides.set(&wanted, &bounds).await?;
    // The connection follows what is stored then, so a later call is not undone.
    let follow = |reply| ToConnection::FollowOverride { by, reply };
    let followed = answer_of(ask(&clients, &wanted.client_id, follow)).await;
    // Whatever happened to the connection meanwhile, the override is stored.
    Ok(followed.map_or(result, |followed| KeepAliveChanged { new_secs: interval_secs, ..followed }))
}
