//! Calls about clients that another node of the cluster has claimed, about sessions that come from other nodes, and the
//! end of all connections when this node has lost its leases.

use std::{rc::Rc, sync::Arc};

use tokio::{sync::oneshot, task::yield_now};

use crate::{
    auth::Patience,
    journal::QueuePlace,
    shard::{
        client_turns::ClientTurns,
        doors::ToConnection,
        handover::{MovingSession, Offered, RestPage},
        presence::preparing::prepare_found,
        shared::SharedShard,
    },
};

/// Ends the connection of a client for another node. Its session stays if it can be handed over, otherwise it ends.
/// Completes when this is stored. The connection is asked to give way before this returns.
pub(crate) fn offer(
    clients: &Rc<ClientTurns>,
    client_id: Arc<str>,
) -> impl Future<Output = Offered> + use<> {
    let (baton, gives_way) = oneshot::channel();
    // As before a takeover within the node: the connection is read once more, and its CONNACK was sent. Without a
    // connection the baton is dropped. If too much waits for the client, it does not give way first.
    let _ = clients.send(&client_id, ToConnection::GiveWay(baton));
    let shard = clients.shard.clone();
    async move {
        let _ = gives_way.await; // It is always dropped.
        let now = shard.borrow().core.clock.now();
        let stays = shard.borrow_mut().part_from(&client_id, now);
        is_stored(&shard).await;
        if stays { shard.borrow().offered(&client_id) } else { Offered::Nothing }
    }
}

/// Stores a session that has come from another node, in the place of one that lies here; returns whether it is stored.
pub(crate) async fn adopt(clients: Rc<ClientTurns>, moved: MovingSession) -> bool {
    let (shard, core) = (&clients.shard, &clients.core);
    let taken = shard.borrow_mut().take_moved(moved);
    let Some(session) = taken else { return false };
    let mut patience = Patience::new(core.connect_time());
    for session in prepare_found(core, vec![session], &mut patience).await {
        shard.borrow_mut().begin_moved(&session, core.clock.now());
    }
    is_stored(shard).await;
    true
}

/// Ends the session of an absent client, and completes when that is stored. `has_moved`: another node has it, with its Will
/// and its messages.
pub(crate) async fn drop_session(clients: Rc<ClientTurns>, client_id: Arc<str>, has_moved: bool) {
    let now = clients.core.clock.now();
    clients.shard.borrow_mut().drop_session(&client_id, has_moved, now);
    is_stored(&clients.shard).await;
}

/// Returns messages of an absent client from this place on; `None` if they cannot be read.
pub(crate) async fn rest(
    clients: Rc<ClientTurns>,
    client_id: Arc<str>,
    from: u64,
) -> Option<RestPage> {
    is_stored(&clients.shard).await;
    clients.shard.borrow().rest_of(&client_id, QueuePlace(from)).ok()
}

/// Adds messages that the former node has taken for a session; returns whether they are stored: the session is here.
/// `is_last`: there are no more. `is_marked`: the session must be the one that has come.
pub(crate) async fn append(
    clients: Rc<ClientTurns>,
    client_id: Arc<str>,
    page: RestPage,
    (is_last, is_marked): (bool, bool),
) -> bool {
    let now = clients.core.clock.now();
    let is_here = clients.shard.borrow_mut().append_rest(
        &client_id,
        page.messages,
        (is_last, is_marked),
        now,
    );
    is_stored(&clients.shard).await;
    is_here
}

/// Delivers what a session holds for the rest of its former node, which does not come in time.
pub(crate) fn give_up_order(clients: &ClientTurns, client_id: &str) {
    let now = clients.core.clock.now();
    clients.shard.borrow_mut().give_up_order(client_id, now);
}

/// Ends all connections.
pub(crate) async fn fence(clients: Rc<ClientTurns>) {
    let mut next = Some(0);
    while let Some(from) = next {
        next = clients.shard.borrow_mut().fence_some(from, clients.core.clock.now());
        yield_now().await;
    }
}

/// Returns the clients whose sessions outlive their connections.
pub(crate) async fn lasting(clients: Rc<ClientTurns>) -> Vec<Arc<str>> {
    let (mut found, mut next) = (Vec::new(), Some(0));
    while let Some(from) = next {
        let (some, then) = clients.shard.borrow().lasting_clients(from);
        found.extend(some);
        next = then;
        yield_now().await;
    }
    found
}

/// Waits until everything that was noted so far, and not flushed yet, is stored.
async fn is_stored(shard: &SharedShard) {
    let (stored, is_stored) = oneshot::channel();
    {
        let mut shard = shard.borrow_mut();
        shard.tell_when_stored(stored);
        shard.flush();
    }
    let _ = is_stored.await; // Without a store it is dropped.
}
