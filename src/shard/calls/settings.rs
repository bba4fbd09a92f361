//! Calls about settings of clients: of live connections, and sticky ones of clients and users.

use std::{rc::Rc, sync::Arc};

use tokio::task::yield_now;

use super::{answer_of, ask};
use crate::{
    control::{ChangeSettings, ControlError, SettingsChanged, SettingsOf},
    shard::{
        client_turns::ClientTurns, common::Core, doors::ToConnection, shared::SharedShard,
        sticky::SettingsStep, table::StickyBounds,
    },
};

/// Changes settings of a client or a user. The connections of a user do not follow: see
/// [`follow_user`].
///
/// # Errors
/// A setting is out of its range, the change does not fit the connection, or it cannot be stored.
pub(crate) async fn change(
    clients: Rc<ClientTurns>,
    request: ChangeSettings,
) -> Result<SettingsChanged, ControlError> {
    let core = &*clients.core;
    let SettingsOf::Client(client_id) = &request.of else {
        return Ok(changed_by(core, store(core, &request).await?));
    };
    let stored = match request.is_sticky {
        true => Some(store(core, &request).await?),
        false => None,
    };
    let change = request.change;
    let asked = ask(&clients, client_id, |reply| ToConnection::ChangeSettings { change, reply });
    let step = match (answer_of(asked).await, stored) {
        (Ok(step), _) => step,
        // Whatever the connection can take of it, the settings are stored.
        (Err(_), Some(stored)) => stored,
        (Err(error), None) => return Err(error),
    };
    Ok(changed_by(core, step))
}

/// Has the connections of a user on a shard follow the sticky settings of the user, as they are stored
/// now.
pub(crate) async fn follow_user(shard: SharedShard, username: Arc<str>) {
    let mut next = Some(0);
    while let Some(from) = next {
        let mut turn = shard.borrow_mut();
        let now = turn.core.clock.now();
        next = turn.follow_user_settings(&username, from, now);
        drop(turn);
        yield_now().await;
    }
}

/// Stores a change of sticky settings; returns the former and the new ones once these are committed.
async fn store(core: &Core, request: &ChangeSettings) -> Result<SettingsStep, ControlError> {
    let ChangeSettings { of, change, by, is_within_share, .. } = request;
    let bounds = StickyBounds::of(&core.limits_now(), *is_within_share);
    core.sticky.change(of, (change, by.as_deref()), core.clock.now(), &bounds).await
}

/// Returns the result of a change that this node has made.
fn changed_by(core: &Core, step: SettingsStep) -> SettingsChanged {
    SettingsChanged::new(core.node.clone(), step.after).after(step.before)
}
