//! Where the calls of one HTTP worker hand in what they ask of the broker.
//!
//! What is handed in within one turn of the worker goes to the broker together and comes back
//! together: between threads it is the messages that cost, not what is in them. Nobody waits for
//! others: a call that is alone is asked alone. It knows no HTTP.

use std::{cell::RefCell, rc::Rc, sync::Arc};

use actix_web::rt;
use tokio::{sync::oneshot, task::yield_now};

use crate::control::{Control, ControlError, KeepAliveChanged, SetKeepAlive};

/// The desk of one worker.
pub(super) struct Desk {
    control: Arc<dyn Control>,
    online: Tray<String, bool>,
    keep_alive: Tray<SetKeepAlive, KeepAliveChanged>,
}

/// Questions of one kind, and who waits for the answers.
type Tray<Q, A> = RefCell<Vec<(Q, oneshot::Sender<Result<A, ControlError>>)>>;

impl Desk {
    pub(super) fn new(control: Arc<dyn Control>) -> Rc<Self> {
        Rc::new(Self { control, online: Tray::default(), keep_alive: Tray::default() })
    }

    pub(super) async fn query_online(
        self: &Rc<Self>,
        client_id: String,
    ) -> Result<bool, ControlError> {
        let (answer, is_first) = hand_in(&self.online, client_id);
        if is_first {
            let desk = Rc::clone(self);
            rt::spawn(async move {
                let (questions, waiting) = desk.online.gathered().await;
                hand_out(desk.control.query_each_online(questions).await, waiting);
            });
        }
        answer.await.unwrap_or(Err(ControlError::Unavailable))
    }

    pub(super) async fn set_keep_alive(
        self: &Rc<Self>,
        request: SetKeepAlive,
    ) -> Result<KeepAliveChanged, ControlError> {
        let (answer, is_first) = hand_in(&self.keep_alive, request);
        if is_first {
            let desk = Rc::clone(self);
            rt::spawn(async move {
                let (requests, waiting) = desk.keep_alive.gathered().await;
                hand_out(desk.control.set_each_keep_alive(requests).await, waiting);
            });
        }
        answer.await.unwrap_or(Err(ControlError::Unavailable))
    }
}

type Waiting<A> = Vec<oneshot::Sender<Result<A, ControlError>>>;

trait Gather<Q, A> {
    /// What is handed in until the others of this turn have had theirs.
    async fn gathered(&self) -> (Vec<Q>, Waiting<A>);
}

impl<Q, A> Gather<Q, A> for Tray<Q, A> {
    async fn gathered(&self) -> (Vec<Q>, Waiting<A>) {
        yield_now().await;
        self.take().into_iter().unzip()
    }
}

/// Puts a question on a tray; where its answer will come, and whether it lies there alone.
fn hand_in<Q, A>(
    tray: &Tray<Q, A>,
    question: Q,
) -> (oneshot::Receiver<Result<A, ControlError>>, bool) {
    let (reply, answer) = oneshot::channel();
    let mut tray = tray.borrow_mut();
    tray.push((question, reply));
    (answer, tray.len() == 1)
}

fn hand_out<A>(answers: Vec<Result<A, ControlError>>, waiting: Waiting<A>) {
    for (answer, waiting) in answers.into_iter().zip(waiting) {
        let _ = waiting.send(answer); // Whoever has asked may have gone.
    }
}
