//! Pages of lists: which one a caller wants, the room that it takes, and its answer.
//!
//! The room is taken before a page is made, and grows item by item, so that a caller that leaves its
//! answers unread does not have the broker make more. Knows no list.

use std::sync::Arc;

use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::{
    super::{
        Api, ApiError,
        admission::HttpCaller,
        calls::{Answer, reserve, reserve_more},
        shares::OwnShare,
    },
    cursor,
    target::Query,
};
use crate::control::MissingNode;

/// The number of items of a page, if the caller does not say.
pub(super) const LIMIT_DEFAULT: u64 = 100;
/// Maximum number of items of a page.
pub(super) const LIMIT_MAX: u64 = 10_000;

/// Bytes for which room is taken for each item that a page may have, before there is one.
const ITEM_BYTES: usize = 256;
/// Bytes by which the room of a page grows.
const GROWTH_BYTES: usize = 64 * 1024;

/// The place and the size of a page.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "only described here")]
pub(super) struct PageParameters {
    /// Maximum number of items of the page.
    #[param(minimum = 1, maximum = 10_000, default = 100)]
    limit: Option<u64>,
    /// The `next` of the page before.
    cursor: Option<String>,
}

/// A page of a list.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only described here; items are written one by one")]
pub(super) struct PageAnswer<T> {
    /// The items of this page.
    items: Vec<T>,
    /// The cursor of the next page; absent if nothing follows.
    next: Option<String>,
}

/// Which page a caller wants.
pub(super) struct AskedPage {
    /// The key of the item behind which it begins.
    pub(super) after: Option<Arc<str>>,
    /// Maximum number of its items.
    pub(super) limit: usize,
}

impl AskedPage {
    /// Parses `limit` and `cursor` of a query.
    pub(super) fn of(query: &Query<'_>) -> Result<Self, ApiError> {
        Self::within(query, LIMIT_MAX)
    }

    /// Does the same for a list whose pages have at most `max` items.
    pub(super) fn within(query: &Query<'_>, max: u64) -> Result<Self, ApiError> {
        let limit = query.number("limit", 1..=max)?.unwrap_or(LIMIT_DEFAULT) as usize;
        let after = query.text("cursor")?.map(|text| cursor::key_of(&text)).transpose()?;
        Ok(Self { after, limit })
    }

    /// Parses the key of the item behind which the page begins; `None` begins with the first.
    pub(super) fn place<T>(
        &self,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        let key = self.after.as_deref();
        key.map(|key| parse(key).ok_or_else(cursor::invalid)).transpose()
    }

    /// Leaves out what the page does not have; returns whether that was something.
    pub(super) fn cut<T>(&self, found: &mut Vec<T>) -> bool {
        let has_more = found.len() > self.limit;
        found.truncate(self.limit);
        has_more
    }

    /// Takes room for the page, before it is made.
    pub(super) fn begin(&self, api: &Api, caller: &HttpCaller) -> Result<PageText, ApiError> {
        PageText::begin(api, caller, self.limit * ITEM_BYTES)
    }
}

/// A page that is being written.
pub(super) struct PageText {
    text: String,
    /// Number of items so far.
    pub(super) items: usize,
    api: Api,
    caller: HttpCaller,
    room: Option<OwnShare>,
    /// The size for which room is taken.
    bytes: usize,
}

/// The members of a page that follow its items.
#[derive(Serialize)]
struct PageEnd {
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    missing_nodes: Vec<MissingNodeAnswer>,
}

/// A node of the cluster whose items an answer does not have.
#[derive(Serialize, ToSchema)]
#[schema(as = MissingNode)]
pub(super) struct MissingNodeAnswer {
    /// Its name.
    #[schema(value_type = String)]
    node: Arc<str>,
    /// The state in its record: `joining`, `serving` (it has not answered in time) or `dead`.
    #[schema(pattern = "^(joining|serving|dead)$")]
    state: &'static str,
}

impl From<MissingNode> for MissingNodeAnswer {
    fn from(MissingNode { node, state, .. }: MissingNode) -> Self {
        Self { node, state: state.name() }
    }
}

impl PageText {
    /// Takes room for a page of this many bytes.
    pub(super) fn begin(api: &Api, caller: &HttpCaller, bytes: usize) -> Result<Self, ApiError> {
        let room = reserve(api, caller, bytes)?;
        let (api, caller, text) = (api.clone(), caller.clone(), "{\"items\":[".to_owned());
        Ok(Self { text, items: 0, api, caller, room, bytes })
    }

    /// Writes an item.
    ///
    /// # Errors
    /// There is no more room.
    pub(super) fn push(&mut self, item: &impl Serialize) -> Result<(), ApiError> {
        if self.items > 0 {
            self.text.push(',');
        }
        self.items += 1;
        self.text += &serde_json::to_string(item).map_err(|_| ApiError::unavailable())?;
        if self.text.len() > self.bytes {
            self.bytes = self.text.len() + GROWTH_BYTES;
            reserve_more(&self.api, &self.caller, &mut self.room, self.bytes)?;
        }
        Ok(())
    }

    /// Ends the page, with the cursor of the next one.
    pub(super) fn end(self, next: Option<String>) -> Answer {
        self.end_counted(next, None, Vec::new())
    }

    /// Ends the page, also with the number of all items of the list, and the nodes whose items it does not have.
    pub(super) fn end_counted(
        mut self,
        next: Option<String>,
        total: Option<u64>,
        missing: Vec<MissingNode>,
    ) -> Answer {
        let missing_nodes = missing.into_iter().map(MissingNodeAnswer::from).collect();
        let end = serde_json::to_string(&PageEnd { next, total, missing_nodes });
        let end = end.expect("cursors, numbers and names are JSON");
        self.text.push(']');
        if end.len() > 2 {
            self.text.push(',');
        }
        self.text += &end[1..];
        Answer::json_text(self.text).within(self.room)
    }

    /// Answers with these items. If more may follow, the next page begins behind the last of them, which
    /// has this key.
    pub(super) fn answer<T, A: Serialize>(
        mut self,
        found: Vec<T>,
        has_more: bool,
        key: impl FnOnce(&T) -> String,
        shown: impl Fn(T) -> Result<A, ApiError>,
    ) -> Result<Answer, ApiError> {
        let next = found.last().filter(|_| has_more).map(|last| cursor::after(&key(last)));
        found.into_iter().try_for_each(|found| self.push(&shown(found)?))?;
        Ok(self.end(next))
    }
}
