//! Answers the questions of other nodes about clients, on a thread of its own.
//!
//! A question of an earlier life of a node is dropped. A node that may not act answers that it does not serve: nothing else
//! may leave it. Knows no client: the broker answers.

use std::{io, sync::Arc, thread};

use futures_util::{
    StreamExt as _,
    future::{self, BoxFuture},
    stream::{BoxStream, FuturesUnordered},
};
use tokio::sync::oneshot;

use super::form::{ClientsBody, ClientsQuestion, ClientsReply};
use crate::cluster::{
    door::{AskedQuestion, Nats},
    names::{Incarnation, NodeId},
    node::{ActingLease, NodeWatch},
    wire,
};

/// Questions that are answered at the same time; a further one is refused.
const ANSWERED_AT_A_TIME: usize = 256;
/// The bytes of an answer besides its clients.
const FRAME_BYTES: usize = 1_024;

/// Answers questions about the clients of this node.
pub(crate) trait AnswersAboutClients: Send + Sync {
    /// Answers a question in at most about `bytes_max` bytes.
    fn answer(&self, body: ClientsBody, bytes_max: usize) -> BoxFuture<'static, ClientsReply>;
}

/// The answering side of a node.
pub(in crate::cluster) struct AnsweringNode {
    pub(in crate::cluster) door: Arc<dyn Nats>,
    pub(in crate::cluster) node: NodeId,
    pub(in crate::cluster) watch: NodeWatch,
    pub(in crate::cluster) lease: ActingLease,
    pub(in crate::cluster) answers: Arc<dyn AnswersAboutClients>,
}

impl AnsweringNode {
    /// Starts the thread. It ends when the returned value is dropped.
    ///
    /// # Errors
    /// If no thread can be started.
    pub(in crate::cluster) fn start(self) -> io::Result<oneshot::Sender<()>> {
        let (end, ended) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let run = move || {
            runtime.block_on(async {
                tokio::select! {
                    () = self.run() => {}
                    _ = ended => {}
                }
            });
        };
        thread::Builder::new().name("cluster-asked".to_owned()).spawn(run)?;
        Ok(end)
    }

    async fn run(mut self) {
        let mut life = Incarnation(0);
        let mut questions: Option<BoxStream<'static, AskedQuestion>> = None;
        let mut answering = FuturesUnordered::new();
        loop {
            // Each life has an address of its own, so a question to an earlier one reaches nobody.
            let now = self.watch.status.borrow_and_update().incarnation;
            if now != life {
                life = now;
                questions = Some(self.door.calls(&self.node, life.0));
            }
            let next = async {
                match &mut questions {
                    Some(questions) => questions.next().await,
                    None => future::pending().await,
                }
            };
            tokio::select! {
                changed = self.watch.status.changed() => if changed.is_err() { return },
                Some(()) = answering.next() => {}
                Some(question) = next => {
                    let is_busy = answering.len() >= ANSWERED_AT_A_TIME;
                    if let Some(answer) = self.answer(question, life, is_busy) {
                        answering.push(answer);
                    }
                }
            }
        }
    }

    /// Begins to answer a question; `None` if it gets no answer.
    fn answer(
        &self,
        question: AskedQuestion,
        life: Incarnation,
        is_busy: bool,
    ) -> Option<BoxFuture<'static, ()>> {
        let asked: ClientsQuestion = match wire::decode(&question.payload) {
            Ok(asked) => asked,
            Err(fault) => {
                tracing::warn!(reason = %fault, "a question about clients is unreadable");
                return None;
            }
        };
        let known = self.watch.status.borrow().members.get(&asked.from).map(|it| it.incarnation);
        if known.is_some_and(|known| asked.incarnation < known) {
            return None;
        }
        let bytes_max = self.door.payload_bytes_max().saturating_sub(FRAME_BYTES).max(FRAME_BYTES);
        let (door, lease) = (Arc::clone(&self.door), self.lease.clone());
        let answering = match (self.lease.acts_as(life), is_busy) {
            (false, _) => None,
            (true, true) => Some(Box::pin(future::ready(ClientsReply::Busy)) as BoxFuture<'_, _>),
            (true, false) => Some(self.answers.answer(asked.body, bytes_max)),
        };
        Some(Box::pin(async move {
            let reply = match answering {
                Some(answering) => answering.await,
                None => ClientsReply::NotServing,
            };
            // The leases may have run out meanwhile: then the answer may be wrong.
            let reply = if lease.acts_as(life) { reply } else { ClientsReply::NotServing };
            let mut payload = wire::encode(&reply);
            if payload.len() > door.payload_bytes_max() {
                payload = wire::encode(&ClientsReply::Busy);
            }
            let _ = door.answer(&question, payload).await; // Its caller gives up in time.
        }))
    }
}
