//! Calls about the clients of a shard that take more than one turn: futures, which hold no shard while
//! they wait.
//!
//! A call reaches a live client through the connection of that client, behind what waits for the
//! client. Does not know who calls: the registry makes messages into these calls.

pub(crate) mod clients;
pub(crate) mod keep_alive;
#[cfg(feature = "cluster")]
pub(crate) mod owning;
pub(crate) mod publishing;
pub(crate) mod settings;

use tokio::sync::oneshot;

use crate::{
    control::ControlError,
    shard::{client_turns::ClientTurns, doors::ToConnection},
};

/// The answer that a connection will give; dropped if the client has none.
type Asked<T> = Result<oneshot::Receiver<Result<T, ControlError>>, ControlError>;

/// Asks the connection of a client, behind what waits for that client.
fn ask<T>(
    clients: &ClientTurns,
    client_id: &str,
    message: impl FnOnce(oneshot::Sender<Result<T, ControlError>>) -> ToConnection,
) -> Asked<T> {
    let (reply, answer) = oneshot::channel();
    clients.send(client_id, message(reply)).map(|()| answer)
}

async fn answer_of<T>(asked: Asked<T>) -> Result<T, ControlError> {
    asked?.await.unwrap_or(Err(ControlError::NotOnline))
}
