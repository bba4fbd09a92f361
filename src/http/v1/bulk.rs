//! Reads and answers lists, for all calls about several clients.

use std::{borrow::Cow, fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{IgnoredAny, SeqAccess, Visitor},
};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::super::{
    ApiError,
    parameters::{INTERVAL_SECS, check_client_id},
};
use crate::auth::JsonObject;

/// Maximum items of one call.
pub(super) const ITEMS_MAX: usize = 10_000;
/// The number of items that one message to the broker has at most, so that no turn of a shard is
/// long.
pub(super) const PORTION: usize = 500;

/// Maximum bytes of a result, without what it repeats of its item.
const RESULT_BYTES_MAX: usize = 400;

/// Returns how large the results of a call about these items become, if they repeat `repeated` bytes.
pub(super) const fn results_bytes(repeated: usize, items: usize) -> usize {
    repeated + items * RESULT_BYTES_MAX
}

/// The items of a call, usually each as its JSON text: an item with a mistake does not affect the
/// others, and a long list of small items takes little more memory than its text.
pub(super) struct Items<T> {
    pub(super) items: Vec<T>,
    /// Number of items in excess of [`ITEMS_MAX`], which are not kept.
    excess: usize,
}

impl<T> Items<T> {
    /// Returns these items, of which none is left out.
    pub(super) const fn all(items: Vec<T>) -> Self {
        Self { items, excess: 0 }
    }

    /// Returns the items of a call that may have at most `max`.
    pub(super) fn within(self, max: usize) -> Result<Vec<T>, ApiError> {
        match self.items.len() + self.excess {
            count if count <= max => Ok(self.items),
            _ => Err(ApiError::too_many_items(max)),
        }
    }

    /// Checks the number of items.
    pub(super) fn check(&self) -> Result<(), ApiError> {
        match self.excess {
            0 => Ok(()),
            _ => Err(ApiError::too_many_items(ITEMS_MAX)),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Items<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ItemsVisitor(PhantomData))
    }
}

struct ItemsVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ItemsVisitor<T> {
    type Value = Items<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Items<T>, A::Error> {
        let mut items = Vec::new();
        while items.len() < ITEMS_MAX {
            let Some(item) = list.next_element()? else { return Ok(Items { items, excess: 0 }) };
            items.push(item);
        }
        let mut excess = 0;
        while list.next_element::<IgnoredAny>()?.is_some() {
            excess += 1;
        }
        Ok(Items { items, excess })
    }
}

/// Parses an item that is an object.
pub(super) fn parse_object<'b, T: Deserialize<'b>>(item: &'b RawValue) -> Result<T, ApiError> {
    let JsonObject(parsed) = parse_item(item)?;
    Ok(parsed)
}

/// Parses an item, or a part of it.
pub(super) fn parse_item<'b, T: Deserialize<'b>>(item: &'b RawValue) -> Result<T, ApiError> {
    serde_json::from_slice(item.get().as_bytes())
        .map_err(|error| ApiError::invalid_body(&error.to_string()))
}

/// Parses the Client Identifier of an item.
pub(super) fn client_id_in(item: Option<&RawValue>) -> Result<String, ApiError> {
    let item = item.ok_or_else(|| ApiError::invalid_body("client_id is missing"))?;
    let client_id: Cow<'_, str> = parse_item(item)?;
    check_client_id(&client_id)?;
    Ok(client_id.into_owned())
}

/// Parses the interval of an item, in seconds.
pub(super) fn interval_in(item: Option<&RawValue>) -> Result<u16, ApiError> {
    let secs = item.and_then(|item| serde_json::from_slice(item.get().as_bytes()).ok());
    secs.filter(|secs| INTERVAL_SECS.contains(secs))
        .ok_or_else(|| ApiError::invalid_interval(INTERVAL_SECS))
}

/// The allowed time to live: at most a year.
const TTL_SECS: std::ops::RangeInclusive<u32> = 1..=31_536_000;

/// Parses the time to live of an item, in seconds; `None` if it has none.
pub(super) fn ttl_in(item: Option<&RawValue>) -> Result<Option<u32>, ApiError> {
    let Some(item) = item else { return Ok(None) };
    let secs = serde_json::from_slice(item.get().as_bytes()).ok();
    let secs = secs.filter(|secs| TTL_SECS.contains(secs));
    secs.map(Some).ok_or_else(|| ApiError::invalid_ttl(TTL_SECS))
}

/// Has the results of a call.
#[derive(Serialize, ToSchema)]
pub(super) struct BulkResults<T> {
    /// One result for each item, in the order of the items.
    pub(super) results: Vec<T>,
}
