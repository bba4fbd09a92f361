//! The parts of its owner's account that a session uses: for its subscriptions, and for the stored
//! messages of a durable session.

use std::sync::Arc;

use crate::{
    limits::subscription_bytes,
    mqtt::{FilterParts, validate_filter},
    owners::{Account, Charge},
};

/// The part of its owner's account that a durable session uses.
#[derive(Debug)]
pub(super) struct Owned {
    pub(super) messages: Charge,
    pub(super) bytes: Charge,
}

impl Owned {
    pub(super) fn new(account: &Arc<Account>) -> Self {
        Self {
            messages: Charge::new(account.clone(), |account| &account.stored_messages),
            bytes: Charge::new(account.clone(), |account| &account.stored_bytes),
        }
    }

    pub(super) fn move_to(&mut self, account: &Arc<Account>) {
        self.messages.move_to(account);
        self.bytes.move_to(account);
    }
}

/// The part of its owner's account that the subscriptions of a session use.
#[derive(Debug)]
pub(super) struct OwnedSubscriptions {
    bytes: Charge,
    /// The shapes of the filters, each with its number of filters. Most sessions have none or few.
    shapes: Vec<(Box<str>, u32)>,
}

impl OwnedSubscriptions {
    pub(super) const fn new(account: Arc<Account>) -> Self {
        let bytes = Charge::new(account, |account| &account.subscription_bytes);
        Self { bytes, shapes: Vec::new() }
    }

    pub(super) const fn account(&self) -> &Arc<Account> {
        self.bytes.account()
    }

    /// Counts a subscription, even beyond the account's limits.
    pub(super) fn add(&mut self, filter: &str) {
        let Ok(parts) = validate_filter(filter) else { return };
        self.bytes.set(self.bytes.taken() + counted_bytes(parts));
        let Some(shape) = shape_of(parts) else { return };
        match self.shapes.iter_mut().find(|(there, _)| *there == shape) {
            Some((_, filters)) => *filters += 1,
            None => {
                // Each shape is one more lookup in the index, so an account has a limit of different shapes.
                self.account().add_shape(&shape);
                self.shapes.push((shape, 1));
            }
        }
    }

    /// Counts a subscription no longer.
    pub(super) fn remove(&mut self, filter: &str) {
        let Ok(parts) = validate_filter(filter) else { return };
        self.bytes.set(self.bytes.taken().saturating_sub(counted_bytes(parts)));
        let Some(shape) = shape_of(parts) else { return };
        let Some(at) = self.shapes.iter().position(|(there, _)| *there == shape) else { return };
        self.shapes[at].1 -= 1;
        // The account counts a shape once for this session.
        if self.shapes[at].1 == 0 {
            self.shapes.swap_remove(at);
            self.account().remove_shape(&shape);
        }
    }

    pub(super) fn move_to(&mut self, account: &Arc<Account>) {
        if Arc::ptr_eq(self.account(), account) {
            return;
        }
        for (shape, _) in &self.shapes {
            self.account().remove_shape(shape);
            account.add_shape(shape);
        }
        self.bytes.move_to(account);
    }
}

impl Drop for OwnedSubscriptions {
    fn drop(&mut self) {
        for (shape, _) in &self.shapes {
            self.account().remove_shape(shape);
        }
    }
}

/// Returns the bytes that a subscription counts against limits on bytes.
fn counted_bytes(filter: FilterParts<'_>) -> u64 {
    let text = filter.filter.len() + filter.share_name.map_or(0, str::len);
    subscription_bytes(text, filter.filter.split('/').count()) as u64
}

/// Returns the shape of a filter: its share name, and which of its levels are wildcards. Returns
/// `None` if it has neither.
///
/// A topic decides all other levels of the filters that match it, so it matches at most one filter
/// of each shape.
#[must_use]
pub fn shape_of(filter: FilterParts<'_>) -> Option<Box<str>> {
    if filter.share_name.is_none() && !filter.filter.contains(['+', '#']) {
        return None;
    }
    let levels = filter.filter.split('/').map(|level| match level {
        "+" => '+',
        "#" => '#',
        _ => 'x',
    });
    let name = filter.share_name.into_iter().flat_map(|name| name.chars().chain(['/']));
    Some(name.chain(levels).collect::<String>().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        limits::{Limits, OwnLimits},
        owners::{Owner, Owners},
    };

    #[test]
    fn filters_have_one_shape_if_only_their_other_levels_differ() {
        let shape = |filter| shape_of(validate_filter(filter).expect("it is a filter"));
        assert_eq!(shape("a/b"), None);
        assert_eq!(shape("a/+/b/#").as_deref(), Some("x+x#"));
        assert_eq!(shape("a/+/b/#"), shape("b/+//#"));
        assert_eq!(shape("$share/g/a").as_deref(), Some("g/x"));
        for (one, other) in [
            ("a/+", "+/a"),
            ("a/+", "a/+/b"),
            ("a/#", "a/b/#"),
            ("a/+", "a/#"),
            ("a/+", "$share/g/a/+"),
            ("$share/g/a", "$share/h/a"),
            ("$share/g/a", "$share/g/a/b"),
        ] {
            assert_ne!(shape(one), shape(other), "{one} {other}");
        }
    }

    #[test]
    fn an_account_has_the_shapes_of_its_sessions() {
        // Without room for a new shape, an account takes only those that it has.
        let limits = Limits { filter_shapes_per_user_max: 0, ..Limits::default() };
        let owners = Owners::new(&limits, None);
        let account = |name: &str| owners.account(Owner::User(name.into()), None);
        let (ann, bob) = (account("ann"), account("bob"));
        let has = |account: &Account, shape: &str| account.takes_shape(shape);
        let (mut one, mut two) =
            (OwnedSubscriptions::new(ann.clone()), OwnedSubscriptions::new(ann.clone()));
        for filter in ["a/+", "b/+", "c"] {
            one.add(filter);
        }
        two.add("a/+");
        one.remove("a/+");
        one.remove("b/+");
        assert!(has(&ann, "x+") && !has(&ann, "x"));
        two.move_to(&bob);
        assert!(!has(&ann, "x+") && has(&bob, "x+"));
        drop(two);
        assert!(!has(&bob, "x+") && bob.subscription_bytes.used() == 0);
        let own = OwnLimits { filter_shapes_max: Some(1), ..OwnLimits::default() };
        let bob = owners.account(Owner::User("bob".into()), Some(own));
        assert!(has(&bob, "x+"));
    }
}
