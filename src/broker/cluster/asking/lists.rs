//! Lists, numbers and selections of clients of other nodes, as far as a caller may see them.
//!
//! A node that does not answer is left out, and said to be missing.

use std::sync::Arc;

use futures_util::future::try_join_all;

use super::{
    forms::{error_of, filter_form},
    session::summary_of,
};
use crate::{
    auth::Authorizer,
    broker::Broker,
    cluster::{
        asking::{
            ASK_TIME_MAX, NodeAsker,
            form::{ClientsBody, ClientsReply, ListForm},
        },
        members::MemberStanding,
        names::NodeId,
    },
    control::{
        ClientFilter, ClientSummary, ControlError, CountClients, ListClients, MemberState,
        MissingNode, PlaceElsewhere, SelectClients, SelectedClients, SelectionPlace,
    },
};

/// Identifiers that are asked for at a time.
const IDS_AT_A_TIME: u32 = 10_000;
/// Selected clients that are asked for at a time.
const SELECTED_AT_A_TIME: u32 = 500;
/// The part of a question that the identifiers of a filter may take.
const IDS_SHARE: usize = 2;

/// The list of the clients of another node.
pub(in crate::broker) struct NodeList {
    asker: Arc<NodeAsker>,
    node: NodeId,
}

/// Identifiers of clients of a node, and where its list goes on.
type IdsOfNode = (Vec<Arc<str>>, Option<Arc<str>>);

impl NodeList {
    /// Returns the next clients behind an identifier that the caller may observe, and where the list goes on.
    ///
    /// # Errors
    /// The node has not answered.
    pub(in crate::broker) async fn page(
        &self,
        request: &ListClients,
        (after, limit): (Option<Arc<str>>, usize),
        rules: &dyn Authorizer,
    ) -> Result<(Vec<ClientSummary>, Option<Arc<str>>), ControlError> {
        let limit = u32::try_from(limit).unwrap_or(IDS_AT_A_TIME);
        let Some((form, last)) = self.question(&request.filter, after, (limit, false)) else {
            return Ok((Vec::new(), None));
        };
        let reply = self.ask(ClientsBody::List(form)).await?;
        let ClientsReply::Page(page) = reply else { return Err(failure(&reply)) };
        let node: Arc<str> = self.node.as_str().into();
        let clients = page.clients.into_iter().map(|form| summary_of(form, &node));
        let may_observe = |client: &ClientSummary| {
            let caller = request.caller.as_ref();
            caller.is_none_or(|caller| caller.may_observe(rules, &client.client_id))
        };
        Ok((clients.filter(may_observe).collect(), page.next.map(Arc::from).or(last)))
    }

    /// Returns the name of the node.
    pub(in crate::broker) fn name(&self) -> Arc<str> {
        self.node.as_str().into()
    }

    /// Returns the identifiers behind another one, and where the list goes on.
    async fn ids(
        &self,
        filter: &ClientFilter,
        after: Option<Arc<str>>,
        limit: u32,
    ) -> Result<IdsOfNode, ControlError> {
        let Some((form, last)) = self.question(filter, after, (limit, true)) else {
            return Ok((Vec::new(), None));
        };
        let reply = self.ask(ClientsBody::List(form)).await?;
        let ClientsReply::Ids { client_ids, next } = reply else { return Err(failure(&reply)) };
        Ok((client_ids.into_iter().map(Arc::from).collect(), next.map(Arc::from).or(last)))
    }

    /// Returns the question for a page, and where the list goes on if the question has only a part of the identifiers
    /// of its filter. `None`: no identifier is left.
    fn question(
        &self,
        filter: &ClientFilter,
        after: Option<Arc<str>>,
        (limit, only_ids): (u32, bool),
    ) -> Option<(ListForm, Option<Arc<str>>)> {
        let mut form = filter_form(&ClientFilter { client_ids: None, ..filter.clone() });
        let mut last = None;
        if let Some(wanted) = &filter.client_ids {
            let begun = |id: &Arc<str>| after.as_ref().is_some_and(|after| **id <= **after);
            let left = &wanted[wanted.partition_point(begun)..];
            let (some, has_more) = part_of(left, self.asker.question_bytes_max() / IDS_SHARE);
            last = some.last().filter(|_| has_more).cloned();
            form.client_ids = Some(some.iter().map(|id| (**id).into()).collect());
            if some.is_empty() {
                return None;
            }
        }
        let after = after.map(|after| (*after).into());
        Some((ListForm { filter: form, after, limit, only_ids }, last))
    }

    async fn ask(&self, body: ClientsBody) -> Result<ClientsReply, ControlError> {
        let reply = self.asker.ask(&self.node, body, ASK_TIME_MAX).await;
        reply.map_err(|_| ControlError::NodeUnreachable)
    }
}

/// Returns the first of these identifiers that fit into the bytes, and whether more follow.
fn part_of(ids: &[Arc<str>], bytes_max: usize) -> (&[Arc<str>], bool) {
    let mut bytes = 0;
    let fitting = ids.iter().take_while(|id| {
        bytes += id.len() + 4;
        bytes <= bytes_max
    });
    let fitting = fitting.count().max(1).min(ids.len());
    (&ids[..fitting], fitting < ids.len())
}

const fn failure(reply: &ClientsReply) -> ControlError {
    match reply {
        ClientsReply::Failed(failure) => error_of(*failure),
        ClientsReply::Each(_)
        | ClientsReply::Page(_)
        | ClientsReply::Ids { .. }
        | ClientsReply::Count(_)
        | ClientsReply::NotServing
        | ClientsReply::Busy => ControlError::Unavailable,
    }
}

impl Broker {
    /// Returns the lists of the other nodes, and the nodes that cannot be asked.
    ///
    /// # Errors
    /// This broker has not reached NATS, and knows no other node.
    pub(in crate::broker) fn lists_elsewhere(
        &self,
    ) -> Result<(Vec<NodeList>, Vec<MissingNode>), ControlError> {
        let member = self.running.cluster.member.load();
        let Some(member) = &*member else { return Ok(Default::default()) };
        let asker = member.asker().ok_or(ControlError::ClusterUnavailable)?;
        let named = |(standing, state): (MemberStanding, MemberState)| {
            let nodes = asker.others(standing).into_iter();
            nodes.map(move |node| MissingNode::new(node.as_str(), state)).collect::<Vec<_>>()
        };
        let joining = (MemberStanding::Joining, MemberState::Joining);
        let mut missing =
            [named(joining), named((MemberStanding::Dead, MemberState::Dead))].concat();
        if !asker.serves() {
            missing.extend(named((MemberStanding::Serving, MemberState::Serving)));
            return Ok((Vec::new(), missing));
        }
        Ok((lists_of(asker, None), missing))
    }

    /// Returns the number of clients of this node and of those that serve.
    pub(in crate::broker) async fn count_anywhere(
        &self,
        asker: &Arc<NodeAsker>,
        request: &CountClients,
    ) -> Result<u64, ControlError> {
        let here = self.count_here(request).await?;
        let lists = lists_of(asker, None);
        let elsewhere = lists.iter().map(|list| self.count_of(list, request));
        Ok(here + try_join_all(elsewhere).await?.into_iter().sum::<u64>())
    }

    /// Counts the clients of another node. The permissions of a caller are known here alone, so with a caller the
    /// identifiers travel.
    async fn count_of(&self, list: &NodeList, request: &CountClients) -> Result<u64, ControlError> {
        let CountClients { filter, caller, .. } = request;
        // A filter with a list of identifiers may be too long for one question.
        if caller.is_none() && filter.client_ids.is_none() {
            let reply = list.ask(ClientsBody::Count(filter_form(filter))).await?;
            let ClientsReply::Count(count) = reply else { return Err(failure(&reply)) };
            return Ok(count);
        }
        let (mut count, mut after) = (0, None);
        loop {
            let (ids, next) = list.ids(filter, after, IDS_AT_A_TIME).await?;
            let rules = &*self.running.core.authorizer;
            let may_observe =
                |id: &&Arc<str>| caller.as_ref().is_none_or(|caller| caller.may_observe(rules, id));
            count += ids.iter().filter(may_observe).count() as u64;
            after = next;
            if after.is_none() {
                return Ok(count);
            }
            tokio::task::yield_now().await; // other calls of this thread
        }
    }

    /// Selects clients of this node, then those of one node after the other. The last answer is an error if a node has
    /// not answered.
    pub(in crate::broker) async fn select_anywhere(
        &self,
        asker: &Arc<NodeAsker>,
        request: SelectClients,
    ) -> Result<SelectedClients, ControlError> {
        let Some(place) = request.from.elsewhere.clone() else {
            let mut selected = self.select_here(request).await?;
            if selected.next.is_none() {
                selected.next = place_behind(asker, None, false)?;
            }
            return Ok(selected);
        };
        let PlaceElsewhere { node, after, has_missed } = *place;
        let Some(node) = NodeId::new(&node) else { return Ok(SelectedClients::default()) };
        let list = NodeList { asker: Arc::clone(asker), node };
        let selector = &request.selector;
        let filter = ClientFilter {
            client_id: selector.client_id.clone(),
            username: selector.username.as_deref().map(str::to_owned),
            online: (!selector.with_absent).then_some(true),
            ..ClientFilter::default()
        };
        let Ok((mut client_ids, next)) = list.ids(&filter, after, SELECTED_AT_A_TIME).await else {
            // The clients of a node that has died meanwhile are offline.
            let is_silent = asker.standing(&list.node) != Some(MemberStanding::Dead);
            let next = place_behind(asker, Some(&list.node), has_missed || is_silent)?;
            return Ok(SelectedClients { client_ids: Vec::new(), next });
        };
        if let Some(caller) = &request.caller {
            let rules = &*self.running.core.authorizer;
            client_ids.retain(|client_id| caller.may_control(rules, client_id));
        }
        let next = match next {
            Some(after) => Some(place_at(&list.node, Some(after), has_missed)),
            None if client_ids.is_empty() => place_behind(asker, Some(&list.node), has_missed)?,
            // The clients that were found are handled before an error is told.
            None => place_behind(asker, Some(&list.node), has_missed).unwrap_or_else(|_| {
                client_ids
                    .last()
                    .map(|last| place_at(&list.node, Some(Arc::clone(last)), has_missed))
            }),
        };
        Ok(SelectedClients { client_ids, next })
    }
}

/// Returns the lists of the nodes that serve and have a name behind this one.
fn lists_of(asker: &Arc<NodeAsker>, behind: Option<&NodeId>) -> Vec<NodeList> {
    let nodes = asker.others(MemberStanding::Serving).into_iter();
    let nodes = nodes.filter(|node| behind.is_none_or(|behind| node > behind));
    nodes.map(|node| NodeList { asker: Arc::clone(asker), node }).collect()
}

fn place_at(node: &NodeId, after: Option<Arc<str>>, has_missed: bool) -> SelectionPlace {
    let node = node.as_str().into();
    SelectionPlace::elsewhere(PlaceElsewhere { node, after, has_missed })
}

/// Returns the beginning of the next node; `None` behind the last one.
///
/// # Errors
/// It is behind the last one, and one of them has not answered.
fn place_behind(
    asker: &Arc<NodeAsker>,
    behind: Option<&NodeId>,
    has_missed: bool,
) -> Result<Option<SelectionPlace>, ControlError> {
    match lists_of(asker, behind).first() {
        Some(next) => Ok(Some(place_at(&next.node, None, has_missed))),
        None if has_missed => Err(ControlError::NodeUnreachable),
        None => Ok(None),
    }
}
