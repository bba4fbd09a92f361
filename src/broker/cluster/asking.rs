//! Calls about clients of the whole cluster: each goes to the node that has the client, and the calls of one question
//! to the same node travel together.
//!
//! The permissions of a caller are checked on the node that it has called, which also notes the changes. Finds owners by
//! `cluster/asking/search.rs`; does not know NATS.

mod answers;
mod forms;
mod lists;
mod session;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio::{
    join,
    time::{Instant, sleep},
};

pub(super) use self::answers::AnswersOfBroker;
pub(in crate::broker) use self::lists::NodeList;
use self::{
    forms::{error_of, keep_alive_call, kick_call, redirect_call, will_of},
    session::session_of,
};
use super::Broker;
use crate::{
    cluster::{
        asking::{
            ASK_TIME_MAX, NodeAsker, NotAnswered,
            form::{CallBody, CallForm, ClientsBody, ClientsReply, FailureForm, OutcomeForm},
            search::{OwnerAnswer, OwnerSearch, SearchEnd, SearchStep},
        },
        members::MemberStanding,
        names::NodeId,
        owners::{Hold, OwnerRecord},
    },
    control::{
        ClientSession, Clients, ControlError, KeepAliveChanged, Kick, Kicked, OnlineState,
        Redirect, SetKeepAlive,
    },
    journal::Revision,
};

/// How long all questions of one call may take together. Less than the time of a call over REST.
const TIME_MAX: Duration = Duration::from_millis(1_600);
/// The pause before a client that is moving is searched again.
const AGAIN_AFTER: Duration = Duration::from_millis(20);
/// Owner records that are read at the same time for one call.
const READS_AT_A_TIME: usize = 64;
/// About the bytes of a call on its way, besides its texts.
const CALL_BYTES: usize = 64;

/// The outcome of a call, and the node that has it.
type SearchOutcome = Result<(OutcomeForm, Arc<str>), ControlError>;

/// The owner record for a call, by the position of the call.
type FoundRecord = (usize, Result<Option<(Revision, OwnerRecord)>, NotAnswered>);

/// A call whose node is searched.
struct SearchedCall {
    client_id: String,
    body: CallBody,
    search: OwnerSearch,
    /// The last outcome, and its node.
    found: Option<(OutcomeForm, NodeId)>,
    /// Whether the node has too much to do.
    is_busy: bool,
}

/// The answers to the questions of a round.
#[derive(Default)]
struct RoundAnswers {
    records: Vec<FoundRecord>,
    outcomes: Vec<(Vec<usize>, NodeId, Result<ClientsReply, NotAnswered>)>,
}

impl Broker {
    /// Returns what asks other nodes; `None` without a cluster.
    ///
    /// # Errors
    /// This node does not serve in its cluster, so it does not know which node has a client.
    pub(in crate::broker) fn asker(&self) -> Result<Option<Arc<NodeAsker>>, ControlError> {
        let member = self.running.cluster.member.load();
        let Some(member) = &*member else { return Ok(None) };
        let asker = member.asker().filter(|asker| asker.serves());
        asker.cloned().map(Some).ok_or(ControlError::ClusterUnavailable)
    }

    pub(in crate::broker) async fn online_anywhere(
        &self,
        asker: &Arc<NodeAsker>,
        client_id: &str,
    ) -> Result<bool, ControlError> {
        let (outcome, _) = self.call_one(asker, client_id, CallBody::Online).await?;
        online_of(&outcome)
    }

    pub(in crate::broker) async fn each_online_anywhere(
        &self,
        asker: &Arc<NodeAsker>,
        client_ids: Vec<String>,
    ) -> Vec<Result<OnlineState, ControlError>> {
        let calls = client_ids.into_iter().map(|client_id| (client_id, CallBody::Online));
        let outcomes = self.call_each(asker, calls.collect()).await;
        let state = |outcome: SearchOutcome| {
            let (outcome, node) = outcome?;
            Ok(OnlineState::of(online_of(&outcome)?.then_some(node)))
        };
        outcomes.into_iter().map(state).collect()
    }

    pub(in crate::broker) async fn set_keep_alive_anywhere(
        &self,
        asker: &Arc<NodeAsker>,
        request: SetKeepAlive,
    ) -> Result<KeepAliveChanged, ControlError> {
        let call = keep_alive_call(&request);
        keep_alive_changed(self.call_one(asker, &request.client_id, call).await)
    }

    pub(in crate::broker) async fn set_each_keep_alive_anywhere(
        &self,
        asker: &Arc<NodeAsker>,
        requests: Vec<SetKeepAlive>,
    ) -> Vec<Result<KeepAliveChanged, ControlError>> {
        let calls = requests.into_iter().map(|request| {
            let call = keep_alive_call(&request);
            (request.client_id, call)
        });
        let outcomes = self.call_each(asker, calls.collect()).await;
        outcomes.into_iter().map(keep_alive_changed).collect()
    }

    pub(in crate::broker) async fn kick_anywhere(
        &self,
        asker: &Arc<NodeAsker>,
        request: Kick,
    ) -> Result<Kicked, ControlError> {
        let call = kick_call(&request);
        kicked(self.call_one(asker, &request.client_id, call).await)
    }

    pub(in crate::broker) async fn kick_each_anywhere(
        &self,
        asker: &Arc<NodeAsker>,
        requests: Vec<Kick>,
    ) -> Vec<Result<Kicked, ControlError>> {
        let calls = requests.into_iter().map(|request| {
            let call = kick_call(&request);
            (request.client_id, call)
        });
        let outcomes = self.call_each(asker, calls.collect()).await;
        outcomes.into_iter().map(kicked).collect()
    }

    pub(in crate::broker) async fn redirect_anywhere(
        &self,
        asker: &Arc<NodeAsker>,
        request: Redirect,
    ) -> Result<usize, ControlError> {
        let Clients::One(client_id) = &request.clients else {
            return self.redirect_here(request).await;
        };
        let (outcome, _) = self.call_one(asker, client_id, redirect_call(&request.to)).await?;
        let OutcomeForm::Redirected(count) = outcome else { return Err(failure_of(&outcome)) };
        Ok(count as usize)
    }

    pub(in crate::broker) async fn client_anywhere(
        &self,
        asker: &Arc<NodeAsker>,
        client_id: &str,
    ) -> Result<Option<ClientSession>, ControlError> {
        let (outcome, node) = self.call_one(asker, client_id, CallBody::Show).await?;
        let OutcomeForm::Shown(shown) = outcome else { return Err(failure_of(&outcome)) };
        Ok(shown.map(|form| session_of(*form, node)))
    }

    async fn call_one(
        &self,
        asker: &Arc<NodeAsker>,
        client_id: &str,
        body: CallBody,
    ) -> SearchOutcome {
        let mut outcomes = self.call_each(asker, vec![(client_id.to_owned(), body)]).await;
        outcomes.pop().unwrap_or(Err(ControlError::Unavailable))
    }

    /// Makes each call on the node that has its client; returns the outcomes in the order of the calls.
    async fn call_each(
        &self,
        asker: &Arc<NodeAsker>,
        calls: Vec<(String, CallBody)>,
    ) -> Vec<SearchOutcome> {
        let until = Instant::now() + TIME_MAX;
        let searched = calls.into_iter().map(|(client_id, body)| {
            let known = asker.known_owner(&client_id);
            let search = OwnerSearch::new(asker.node().clone(), known);
            SearchedCall { client_id, body, search, found: None, is_busy: false }
        });
        let mut calls: Vec<SearchedCall> = searched.collect();
        let is_open = |call: &SearchedCall| !matches!(call.search.step(), SearchStep::Ended(_));
        while calls.iter().any(is_open) && Instant::now() < until {
            let answers = self.round(asker, &calls, until).await;
            take_answers(asker, &mut calls, answers);
        }
        calls.into_iter().map(SearchedCall::outcome).collect()
    }

    /// Asks the next question of each search.
    async fn round(
        &self,
        asker: &Arc<NodeAsker>,
        calls: &[SearchedCall],
        until: Instant,
    ) -> RoundAnswers {
        let (mut reads, mut here, mut waits) = (Vec::new(), Vec::new(), false);
        let mut by_node: BTreeMap<&NodeId, Vec<(usize, bool)>> = BTreeMap::new();
        for (at, call) in calls.iter().enumerate() {
            match call.search.step() {
                SearchStep::Here => here.push(at),
                SearchStep::Ask { node, by_record } => {
                    by_node.entry(node).or_default().push((at, *by_record));
                }
                SearchStep::Read => reads.push((at, call.client_id.clone())),
                SearchStep::Wait => waits = true,
                SearchStep::Ended(_) => {}
            }
        }
        let bytes_max = asker.question_bytes_max();
        let questions = by_node.into_iter().flat_map(|(node, its)| {
            let of_node = move |some| (node.clone(), some);
            questions_of(calls, &its, bytes_max).into_iter().map(of_node)
        });
        let asked: Vec<_> = questions
            .map(|(node, (at, forms))| ask_node(Arc::clone(asker), node, at, forms, until))
            .collect();
        let forms = here.iter().map(|at| calls[*at].form(true)).collect();
        let told_here = self.outcomes_here(asker, forms, true);
        let pause = async {
            if waits {
                sleep(AGAIN_AFTER).await;
            }
        };
        let (records, mut outcomes, told, ()) =
            join!(read_records(asker, reads, until), join_all(asked), told_here, pause);
        if !here.is_empty() {
            outcomes.push((here, asker.node().clone(), Ok(ClientsReply::Each(told))));
        }
        RoundAnswers { records, outcomes }
    }
}

/// Divides the calls to one node among questions that fit into a message.
fn questions_of(
    calls: &[SearchedCall],
    its: &[(usize, bool)],
    bytes_max: usize,
) -> Vec<(Vec<usize>, Vec<CallForm>)> {
    let mut questions: Vec<(Vec<usize>, Vec<CallForm>)> = Vec::new();
    let mut bytes = usize::MAX;
    for (at, by_record) in its {
        let form = calls[*at].form(*by_record);
        let length = bytes_of(&form);
        if bytes.saturating_add(length) > bytes_max {
            questions.push(Default::default());
            bytes = 0;
        }
        bytes += length;
        if let Some((positions, forms)) = questions.last_mut() {
            positions.push(*at);
            forms.push(form);
        }
    }
    questions
}

/// Returns about how many bytes a call takes on its way.
fn bytes_of(call: &CallForm) -> usize {
    let length = |text: &Option<Box<str>>| text.as_ref().map_or(0, |text| text.len());
    let texts = match &call.body {
        CallBody::Online | CallBody::Show => 0,
        CallBody::SetKeepAlive(form) => length(&form.by),
        CallBody::Kick(form) => length(&form.by) + length(&form.reason_string),
        CallBody::Redirect(form) => form.server_reference.len(),
    };
    CALL_BYTES + call.client_id.len() + texts
}

async fn ask_node(
    asker: Arc<NodeAsker>,
    node: NodeId,
    at: Vec<usize>,
    forms: Vec<CallForm>,
    until: Instant,
) -> (Vec<usize>, NodeId, Result<ClientsReply, NotAnswered>) {
    let time_max = ASK_TIME_MAX.min(until.saturating_duration_since(Instant::now()));
    let reply = asker.ask(&node, ClientsBody::Each(forms), time_max).await;
    (at, node, reply)
}

/// Reads owner records, a bounded number at a time.
async fn read_records(
    asker: &Arc<NodeAsker>,
    reads: Vec<(usize, String)>,
    until: Instant,
) -> Vec<FoundRecord> {
    let mut records = Vec::with_capacity(reads.len());
    for some in reads.chunks(READS_AT_A_TIME) {
        if Instant::now() >= until {
            break; // NATS is slow: the searches end without an answer.
        }
        let reading = some.iter().map(|(_, client_id)| asker.record(client_id));
        let found = join_all(reading).await;
        records.extend(some.iter().map(|(at, _)| *at).zip(found));
    }
    records
}

/// Passes the answers of a round to the searches.
fn take_answers(asker: &NodeAsker, calls: &mut [SearchedCall], answers: RoundAnswers) {
    for call in calls.iter_mut() {
        call.search.handle_waited();
    }
    for (at, record) in answers.records {
        let SearchedCall { client_id, search, .. } = &mut calls[at];
        let Ok(record) = record else {
            search.handle_no_record();
            continue;
        };
        let holder = record.as_ref().map(|(_, record)| record);
        let holder = holder.filter(|record| record.hold == Hold::Holding).map(|it| &it.node);
        let holder = holder.filter(|it| asker.standing(it) == Some(MemberStanding::Serving));
        asker.note_owner(client_id, holder);
        let record = record.as_ref().map(|(revision, record)| (*revision, record));
        search.handle_record(record, |node| asker.standing(node));
    }
    for (positions, node, reply) in answers.outcomes {
        let outcomes = match reply {
            Ok(ClientsReply::Each(outcomes)) if outcomes.len() == positions.len() => outcomes,
            // An answer to another question is none.
            Ok(_) | Err(NotAnswered::Silent) => {
                positions
                    .iter()
                    .for_each(|at| calls[*at].search.handle_answer(OwnerAnswer::Silent));
                continue;
            }
            Err(NotAnswered::Busy) => {
                for at in positions {
                    calls[at].is_busy = true;
                    calls[at].search.handle_answer(OwnerAnswer::Silent);
                }
                continue;
            }
            Err(NotAnswered::NotReached) => {
                let not_reached = OwnerAnswer::NotReached;
                positions.iter().for_each(|at| calls[*at].search.handle_answer(not_reached));
                continue;
            }
        };
        for (at, outcome) in positions.into_iter().zip(outcomes) {
            let call = &mut calls[at];
            let answer = match &outcome {
                OutcomeForm::NotOwner => OwnerAnswer::NotOwner,
                OutcomeForm::Arriving => OwnerAnswer::Arriving,
                OutcomeForm::Failed(_)
                | OutcomeForm::Online(_)
                | OutcomeForm::KeepAlive { .. }
                | OutcomeForm::Kicked { .. }
                | OutcomeForm::Shown(_)
                | OutcomeForm::Redirected(_) => {
                    OwnerAnswer::Owner { is_there: !is_absent(&outcome) }
                }
            };
            if answer == OwnerAnswer::NotOwner {
                asker.note_owner(&call.client_id, None);
            }
            call.search.handle_answer(answer);
            call.found = Some((outcome, node.clone()));
        }
    }
}

/// Returns whether a node has not carried out a call.
const fn is_without_result(outcome: &OutcomeForm) -> bool {
    matches!(outcome, OutcomeForm::NotOwner | OutcomeForm::Arriving)
}

/// Returns whether a call has not found its client.
pub(super) const fn is_absent(outcome: &OutcomeForm) -> bool {
    matches!(
        outcome,
        OutcomeForm::NotOwner
            | OutcomeForm::Online(false)
            | OutcomeForm::Failed(FailureForm::NotOnline)
            | OutcomeForm::Shown(None)
            | OutcomeForm::Redirected(0)
    )
}

impl SearchedCall {
    fn form(&self, by_record: bool) -> CallForm {
        let (client_id, body) = (self.client_id.as_str().into(), self.body.clone());
        CallForm { by_record, client_id, body }
    }

    fn outcome(self) -> SearchOutcome {
        let end = match self.search.step() {
            SearchStep::Ended(end) => *end,
            // The time is over.
            SearchStep::Here | SearchStep::Ask { .. } | SearchStep::Read | SearchStep::Wait => {
                SearchEnd::Unreachable
            }
        };
        match end {
            SearchEnd::Answered => Ok(match self.found {
                Some((outcome, node)) if !is_without_result(&outcome) => {
                    (outcome, node.as_str().into())
                }
                Some(_) | None => (absent(&self.body), "".into()),
            }),
            SearchEnd::Down => match &self.body {
                CallBody::Online | CallBody::Redirect(_) => Ok((absent(&self.body), "".into())),
                CallBody::Kick(kick) if !kick.ends_session => Ok((absent(&self.body), "".into())),
                CallBody::SetKeepAlive(change) if !change.is_sticky => {
                    Ok((absent(&self.body), "".into()))
                }
                // They need the session, or what is stored with it.
                CallBody::Kick(_) | CallBody::SetKeepAlive(_) | CallBody::Show => {
                    Err(ControlError::NodeDown)
                }
            },
            SearchEnd::Unreachable if self.is_busy => Err(ControlError::Unavailable),
            SearchEnd::Unreachable => Err(ControlError::NodeUnreachable),
        }
    }
}

/// Returns the outcome of a call about a client that is nowhere.
const fn absent(body: &CallBody) -> OutcomeForm {
    match body {
        CallBody::Online => OutcomeForm::Online(false),
        CallBody::SetKeepAlive(_) | CallBody::Kick(_) => {
            OutcomeForm::Failed(FailureForm::NotOnline)
        }
        CallBody::Show => OutcomeForm::Shown(None),
        CallBody::Redirect(_) => OutcomeForm::Redirected(0),
    }
}

fn online_of(outcome: &OutcomeForm) -> Result<bool, ControlError> {
    let OutcomeForm::Online(online) = outcome else { return Err(failure_of(outcome)) };
    Ok(*online)
}

fn keep_alive_changed(outcome: SearchOutcome) -> Result<KeepAliveChanged, ControlError> {
    let (outcome, node) = outcome?;
    let OutcomeForm::KeepAlive { old_secs, new_secs, is_not_told, is_below_own } = outcome else {
        return Err(failure_of(&outcome));
    };
    let changed = KeepAliveChanged::new(node, old_secs, new_secs);
    Ok(KeepAliveChanged { is_not_told, is_below_own, ..changed })
}

fn kicked(outcome: SearchOutcome) -> Result<Kicked, ControlError> {
    let (outcome, node) = outcome?;
    let OutcomeForm::Kicked { was_online, session_ended, will } = outcome else {
        return Err(failure_of(&outcome));
    };
    Ok(Kicked { was_online, session_ended, will: will_of(will), ..Kicked::new(node) })
}

/// Returns why a call failed whose outcome is not one of its own.
const fn failure_of(outcome: &OutcomeForm) -> ControlError {
    match outcome {
        OutcomeForm::Failed(failure) => error_of(*failure),
        OutcomeForm::NotOwner
        | OutcomeForm::Arriving
        | OutcomeForm::Online(_)
        | OutcomeForm::KeepAlive { .. }
        | OutcomeForm::Kicked { .. }
        | OutcomeForm::Shown(_)
        | OutcomeForm::Redirected(_) => ControlError::Unavailable,
    }
}
