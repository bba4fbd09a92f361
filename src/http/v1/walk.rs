//! Calls about the clients that a selector selects, answered with a line for each.
//!
//! The broker finds some of the clients, the call handles them, and its caller reads the lines; then
//! the next ones. So a call about a million clients takes no more memory than one about a thousand,
//! and ends when its caller is gone.

use std::{collections::VecDeque, sync::Arc};

use actix_web::web::Bytes;
use futures_util::{future::LocalBoxFuture, stream};
use serde::Serialize;
use tokio::task::yield_now;

use super::{
    super::{
        Api, ApiError, WALKS, admission::HttpCaller, calls::Answer, error::ErrorBody,
        live::LongAnswer, shares::OwnShare,
    },
    bulk::PORTION,
    in_time,
};
use crate::{
    auth::Action,
    control::{ClientPattern, ClientSelector, SelectClients},
};

/// Handles some clients; returns a line for each.
pub(super) type HandleSome = Box<dyn Fn(Vec<String>) -> LocalBoxFuture<'static, Vec<Bytes>>>;

/// Returns the selector with these conditions, of which there must be one.
pub(super) fn selector(
    clients: Option<&str>,
    username: Option<&str>,
) -> Result<ClientSelector, ApiError> {
    // Without a condition the call would be about all clients, probably by mistake.
    if clients.is_none() && username.is_none() {
        return Err(ApiError::invalid_body("a selector needs clients or username"));
    }
    let mut selector = ClientSelector::new();
    if let Some(pattern) = clients {
        let pattern = ClientPattern::new(pattern).map_err(|_| ApiError::invalid_pattern())?;
        selector = selector.client_id(pattern);
    }
    if let Some(username) = username {
        selector = selector.username(username);
    }
    Ok(selector)
}

/// Returns a result as a line.
pub(super) fn line(result: &impl Serialize) -> Bytes {
    let mut text = serde_json::to_vec(result).expect("a result has text keys only");
    text.push(b'\n');
    text.into()
}

/// Answers by handling the selected clients, among those that the caller may control. If that fails on the way,
/// the last line is an error.
///
/// # Errors
/// Too many such calls are under way.
pub(super) fn walk(
    api: &Api,
    caller: &HttpCaller,
    selector: ClientSelector,
    handle: HandleSome,
) -> Result<Answer, ApiError> {
    let place = begin(api, caller)?;
    let next = Some(SelectClients::new(selector).by(caller.as_data()));
    let (rules, found) = (caller.admitted_at.rules, VecDeque::new());
    let its = (api.clone(), caller.clone());
    let walk = ClientWalk { its, next, found, rules, handle, _place: place };
    let lines = stream::unfold(walk, async |mut walk| Some((Ok(walk.step().await?), walk)));
    Ok(Answer::long(LongAnswer::to(api, caller), lines))
}

/// Gives a walk its place.
///
/// # Errors
/// Too many walks are under way, in all or of this account.
pub(super) fn begin(api: &Api, caller: &HttpCaller) -> Result<OwnShare, ApiError> {
    api.0.walks.take(caller.account(), 1, WALKS).ok_or_else(ApiError::busy)
}

/// A walk that has come this far.
struct ClientWalk {
    its: (Api, HttpCaller),
    /// `None` after the last client.
    next: Option<SelectClients>,
    /// Clients that were found and not handled.
    found: VecDeque<Arc<str>>,
    /// The generation of the rules before these clients were found.
    rules: u64,
    handle: HandleSome,
    _place: OwnShare,
}

impl ClientWalk {
    /// Returns the lines of the next clients; `None` after the last one.
    async fn step(&mut self) -> Option<Bytes> {
        let (api, caller) = &self.its;
        let rules = api.0.authorizer.generation();
        // A caller that reads slowly may have lost its permission for clients that were found long ago.
        if rules != self.rules {
            self.rules = rules;
            self.found.retain(|client_id| caller.may(api, client_id, Action::Control));
        }
        // A portion of the search may find nobody, and that is not the end.
        while self.found.is_empty() {
            let request = self.next.take()?;
            let found = in_time(api, api.0.control.select_clients(request.clone()));
            match found.await {
                Ok(found) => {
                    self.next = found.next.map(|place| request.from(place));
                    self.found.extend(found.client_ids);
                }
                Err(error) => return Some(line(&ErrorBody::of(&error))),
            }
            yield_now().await; // other calls of this worker
        }
        let some = self.found.len().min(PORTION);
        let some = self.found.drain(..some).map(|client_id| (*client_id).to_owned()).collect();
        Some((self.handle)(some).await.concat().into())
    }
}
