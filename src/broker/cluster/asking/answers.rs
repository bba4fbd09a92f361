//! Answers questions about the clients of this broker: those of other nodes, and those of this one.
//!
//! A call of another node is carried out only if this node owns the client. Permissions were checked there.

use std::sync::{Arc, Weak};

use futures_util::future::{BoxFuture, join_all};

use super::{
    forms::{
        failure_form, filter_of, keep_alive_of, keep_alive_outcome, kick_of, kick_outcome,
        redirection_of,
    },
    is_absent,
    session::{session_form, summary_bytes, summary_form},
};
use crate::{
    broker::{Broker, Running},
    cluster::asking::{
        NodeAsker,
        answering::AnswersAboutClients,
        form::{
            CallBody, CallForm, ClientsBody, ClientsReply, FailureForm, FilterForm, ListForm,
            OutcomeForm, PageForm, RedirectForm,
        },
    },
    control::{
        ClientPage, Clients, ControlError, CountClients, Kick, ListClients, Redirect, SetKeepAlive,
    },
};

/// Clients in one page for another node.
const PAGE_MAX: u32 = 10_000;

/// Answers the questions of other nodes, as long as the broker runs.
pub(in crate::broker::cluster) struct AnswersOfBroker(pub(in crate::broker::cluster) Weak<Running>);

impl AnswersAboutClients for AnswersOfBroker {
    fn answer(&self, body: ClientsBody, bytes_max: usize) -> BoxFuture<'static, ClientsReply> {
        let running = self.0.upgrade();
        Box::pin(async move {
            let broker = running.map(|running| Broker { running });
            let Some(broker) = broker.filter(Broker::is_ready) else {
                return ClientsReply::NotServing;
            };
            let Ok(Some(asker)) = broker.asker() else { return ClientsReply::NotServing };
            match body {
                ClientsBody::Each(calls) => {
                    ClientsReply::Each(broker.outcomes_here(&asker, calls, false).await)
                }
                ClientsBody::List(form) => broker.page_here(form, bytes_max).await,
                ClientsBody::Count(filter) => broker.number_here(filter).await,
            }
        })
    }
}

/// Calls of one kind, each with its position.
type Positioned<T> = Vec<(usize, T)>;

/// The calls of a question, by kind.
#[derive(Default)]
struct SortedCalls {
    online: Positioned<String>,
    keep_alive: Positioned<SetKeepAlive>,
    kicks: Positioned<Kick>,
    shows: Positioned<String>,
    redirects: Positioned<(String, RedirectForm)>,
}

impl Broker {
    /// Carries out calls about clients of this node; returns the outcomes in their order. `is_own`: the calls are of
    /// this node, which has made sure that no other one has the clients.
    pub(super) async fn outcomes_here(
        &self,
        asker: &NodeAsker,
        calls: Vec<CallForm>,
        is_own: bool,
    ) -> Vec<OutcomeForm> {
        let client_ids: Vec<Box<str>> = calls.iter().map(|call| call.client_id.clone()).collect();
        let mut outcomes = vec![OutcomeForm::NotOwner; calls.len()];
        let mut sorted = SortedCalls::default();
        for (at, call) in calls.into_iter().enumerate() {
            if is_own || self.may_answer(asker, &call).await {
                sorted.add(at, call, &mut outcomes);
            }
        }
        self.carry_out(sorted, &mut outcomes).await;
        for (outcome, client_id) in outcomes.iter_mut().zip(client_ids) {
            if !is_absent(outcome) {
                continue;
            }
            // Another node may have taken the client over meanwhile, or it has just come here.
            if !asker.holds(&client_id) {
                *outcome = OutcomeForm::NotOwner;
            } else if asker.is_arriving(&client_id) {
                *outcome = OutcomeForm::Arriving;
            }
        }
        outcomes
    }

    /// Returns whether a call of another node may be carried out here.
    async fn may_answer(&self, asker: &NodeAsker, call: &CallForm) -> bool {
        if asker.holds(&call.client_id) {
            return true;
        }
        let CallForm { by_record, client_id, body } = call;
        // A sticky value would be stored for a client that belongs to another node.
        let is_sticky = matches!(body, CallBody::SetKeepAlive(form) if form.is_sticky);
        *by_record && (!is_sticky || matches!(self.client_here(client_id).await, Ok(Some(_))))
    }

    async fn carry_out(&self, sorted: SortedCalls, outcomes: &mut [OutcomeForm]) {
        let SortedCalls { online, keep_alive, kicks, shows, redirects } = sorted;
        let (at, client_ids): (Vec<_>, Vec<_>) = online.into_iter().unzip();
        if !at.is_empty() {
            for (at, state) in at.into_iter().zip(self.each_online_here(client_ids).await) {
                outcomes[at] = match state {
                    Ok(state) => OutcomeForm::Online(state.online),
                    Err(error) => OutcomeForm::Failed(failure_form(error)),
                };
            }
        }
        let (at, requests): (Vec<_>, Vec<_>) = keep_alive.into_iter().unzip();
        if !at.is_empty() {
            let changed = self.set_each_keep_alive_here(requests).await;
            for (at, result) in at.into_iter().zip(changed) {
                outcomes[at] = keep_alive_outcome(result);
            }
        }
        let (at, requests): (Vec<_>, Vec<_>) = kicks.into_iter().unzip();
        for (at, result) in at.into_iter().zip(self.kick_each_here(requests).await) {
            outcomes[at] = kick_outcome(result);
        }
        let shown = join_all(shows.iter().map(|(_, client_id)| self.client_here(client_id))).await;
        for ((at, _), shown) in shows.iter().zip(shown) {
            outcomes[*at] = match shown {
                Ok(shown) => {
                    OutcomeForm::Shown(shown.map(|client| Box::new(session_form(&client))))
                }
                Err(error) => OutcomeForm::Failed(failure_form(error)),
            };
        }
        for (at, (client_id, form)) in redirects {
            outcomes[at] = match self.redirect_one_here(client_id, &form).await {
                Ok(count) => OutcomeForm::Redirected(count as u64),
                Err(error) => OutcomeForm::Failed(failure_form(error)),
            };
        }
    }

    async fn redirect_one_here(
        &self,
        client_id: String,
        form: &RedirectForm,
    ) -> Result<usize, ControlError> {
        let to = redirection_of(form).ok_or(ControlError::Unavailable)?;
        self.redirect_here(Redirect::new(Clients::One(client_id), to)).await
    }

    /// Returns a page of the list of clients of this node, as far as it fits into these bytes.
    async fn page_here(&self, form: ListForm, bytes_max: usize) -> ClientsReply {
        let Some(filter) = filter_of(form.filter) else {
            return ClientsReply::Failed(FailureForm::Unavailable);
        };
        let mut request = ListClients::new(filter, form.limit.clamp(1, PAGE_MAX) as usize);
        request.after = form.after.map(Arc::from);
        let ClientPage { mut clients, mut next, .. } = match self.list_here(request).await {
            Ok(page) => page,
            Err(error) => return ClientsReply::Failed(failure_form(error)),
        };
        let mut bytes = 0;
        let fitting = clients.iter().take_while(|client| {
            bytes += summary_bytes(client);
            bytes <= bytes_max
        });
        let fitting = fitting.count().max(1);
        if fitting < clients.len() {
            clients.truncate(fitting);
            next = clients.last().map(|last| Arc::clone(&last.client_id));
        }
        let next = next.map(|next| (*next).into());
        if form.only_ids {
            let client_ids = clients.iter().map(|client| (*client.client_id).into()).collect();
            return ClientsReply::Ids { client_ids, next };
        }
        ClientsReply::Page(PageForm { clients: clients.iter().map(summary_form).collect(), next })
    }

    async fn number_here(&self, filter: FilterForm) -> ClientsReply {
        let Some(filter) = filter_of(filter) else {
            return ClientsReply::Failed(FailureForm::Unavailable);
        };
        match self.count_here(&CountClients::new(filter)).await {
            Ok(count) => ClientsReply::Count(count),
            Err(error) => ClientsReply::Failed(failure_form(error)),
        }
    }
}

impl SortedCalls {
    fn add(&mut self, at: usize, call: CallForm, outcomes: &mut [OutcomeForm]) {
        let client_id = String::from(call.client_id);
        match call.body {
            CallBody::Online => self.online.push((at, client_id)),
            CallBody::SetKeepAlive(form) => {
                self.keep_alive.push((at, keep_alive_of(client_id, form)));
            }
            CallBody::Kick(form) => match kick_of(client_id, form) {
                Some(kick) => self.kicks.push((at, kick)),
                None => outcomes[at] = OutcomeForm::Failed(FailureForm::Unavailable),
            },
            CallBody::Show => self.shows.push((at, client_id)),
            CallBody::Redirect(form) => self.redirects.push((at, (client_id, form))),
        }
    }
}
