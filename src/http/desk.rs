//! Batches the requests of one HTTP worker to the broker.
//!
//! Requests of one turn of the worker are sent to the broker together and answered together,
//! because a message between threads costs more than its content. A single request is not delayed.
//! The requests of a batch share one timeout. Knows no HTTP.

use std::{cell::RefCell, rc::Rc};

use actix_web::rt::{self, time::timeout};
use tokio::{sync::oneshot, task::yield_now, time::error::Elapsed};

use super::Api;
use crate::control::{ControlError, KeepAliveChanged, OnlineState, SetKeepAlive};

/// The desk of one worker.
pub(super) struct Desk {
    api: Api,
    online: Tray<String, OnlineState>,
    keep_alive: Tray<SetKeepAlive, KeepAliveChanged>,
}

/// Requests of one kind, with the senders for their answers.
type Tray<Q, A> = RefCell<Vec<(Q, oneshot::Sender<Result<A, ControlError>>)>>;

impl Desk {
    /// Creates a desk. Requests not answered within the time of a call fail with
    /// [`ControlError::Timeout`].
    pub(super) fn new(api: Api) -> Rc<Self> {
        let (online, keep_alive) = (Tray::default(), Tray::default());
        Rc::new(Self { api, online, keep_alive })
    }

    pub(super) async fn query_online(
        self: &Rc<Self>,
        client_id: String,
    ) -> Result<OnlineState, ControlError> {
        let control = &self.api.0.control;
        // Alone, because a node that does not answer would hold the others of its batch.
        if control.is_elsewhere(&client_id) {
            let answers = control.query_each_online(vec![client_id]);
            return of_one(timeout(self.api.options().call_timeout, answers).await);
        }
        let (answer, is_first) = hand_in(&self.online, client_id);
        // The first request of a turn sends for all that are handed in until its task runs.
        if is_first {
            let desk = Rc::clone(self);
            rt::spawn(async move {
                let (questions, waiting) = desk.online.gathered().await;
                let answers = desk.api.0.control.query_each_online(questions);
                hand_out(timeout(desk.api.options().call_timeout, answers).await, waiting);
            });
        }
        answer.await.unwrap_or(Err(ControlError::Unavailable))
    }

    pub(super) async fn set_keep_alive(
        self: &Rc<Self>,
        request: SetKeepAlive,
    ) -> Result<KeepAliveChanged, ControlError> {
        let control = &self.api.0.control;
        if control.is_elsewhere(&request.client_id) {
            let answers = control.set_each_keep_alive(vec![request]);
            return of_one(timeout(self.api.options().call_timeout, answers).await);
        }
        let (answer, is_first) = hand_in(&self.keep_alive, request);
        if is_first {
            let desk = Rc::clone(self);
            rt::spawn(async move {
                let (requests, waiting) = desk.keep_alive.gathered().await;
                let answers = desk.api.0.control.set_each_keep_alive(requests);
                hand_out(timeout(desk.api.options().call_timeout, answers).await, waiting);
            });
        }
        // The task always answers, unless the worker ends.
        answer.await.unwrap_or(Err(ControlError::Unavailable))
    }
}

type WaitingCalls<A> = Vec<oneshot::Sender<Result<A, ControlError>>>;

trait Gather<Q, A> {
    /// Waits until all tasks of this turn have run, and takes the collected requests.
    async fn gathered(&self) -> (Vec<Q>, WaitingCalls<A>);
}

impl<Q, A> Gather<Q, A> for Tray<Q, A> {
    async fn gathered(&self) -> (Vec<Q>, WaitingCalls<A>) {
        yield_now().await;
        self.take().into_iter().unzip()
    }
}

/// Adds a request to a tray. Returns the receiver of its answer, and whether the tray was empty.
fn hand_in<Q, A>(
    tray: &Tray<Q, A>,
    question: Q,
) -> (oneshot::Receiver<Result<A, ControlError>>, bool) {
    let (reply, answer) = oneshot::channel();
    let mut tray = tray.borrow_mut();
    tray.push((question, reply));
    (answer, tray.len() == 1)
}

/// Returns the answer to a request that was sent alone.
fn of_one<A>(answers: Result<Vec<Result<A, ControlError>>, Elapsed>) -> Result<A, ControlError> {
    let mut answers = answers.map_err(|_| ControlError::Timeout)?;
    answers.pop().unwrap_or(Err(ControlError::Unavailable))
}

fn hand_out<A>(answers: Result<Vec<Result<A, ControlError>>, Elapsed>, waiting: WaitingCalls<A>) {
    let answers =
        answers.unwrap_or_else(|_| waiting.iter().map(|_| Err(ControlError::Timeout)).collect());
    for (answer, waiting) in answers.into_iter().zip(waiting) {
        let _ = waiting.send(answer); // the caller may be gone
    }
}
