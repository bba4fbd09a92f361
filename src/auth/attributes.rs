//! Attributes of an identity: names with values that an authenticator has learned about a client, of limited size.
//!
//! Plain data. Never part of a log line: a value may be personal, or a secret of another system.

use std::{collections::BTreeMap, fmt, sync::Arc};

/// Maximum number of attributes of an identity.
const ATTRIBUTES_MAX: usize = 32;
/// Maximum bytes of all their names and values.
const BYTES_MAX: usize = 4_096;

/// Attributes of an [`Identity`](super::Identity): texts with names, for example claims of a token.
///
/// Rules use a value as `${attributes.NAME}`; an own [`Authorizer`](super::Authorizer) reads it from
/// the identity. At most 32, and at most 4,096 bytes of names and values. Cloning copies a pointer.
/// `Debug` shows the names alone.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Attributes(Option<Arc<BTreeMap<Box<str>, Box<str>>>>);

/// There are too many attributes, or they are too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an identity has at most 32 attributes, of at most 4096 bytes")]
pub struct AttributesError;

impl Attributes {
    /// Creates attributes. Of two with one name, the last one counts.
    ///
    /// # Errors
    /// There are too many, or they are too long.
    pub fn new<N, V>(all: impl IntoIterator<Item = (N, V)>) -> Result<Self, AttributesError>
    where
        N: Into<Box<str>>,
        V: Into<Box<str>>,
    {
        let (mut map, mut bytes) = (BTreeMap::new(), 0);
        for (name, value) in all {
            let (name, value): (Box<str>, Box<str>) = (name.into(), value.into());
            bytes += name.len() + value.len();
            map.insert(name, value);
            // Checked for each pair: the source may be a service that sends an endless list.
            if map.len() > ATTRIBUTES_MAX || bytes > BYTES_MAX {
                return Err(AttributesError);
            }
        }
        Ok(Self((!map.is_empty()).then(|| Arc::new(map))))
    }

    /// Returns the value of an attribute.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.as_ref()?.get(name).map(|value| &**value)
    }

    /// Returns all names with their values, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().flat_map(|all| all.iter()).map(|(name, value)| (&**name, &**value))
    }

    /// Returns whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

impl fmt::Debug for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(|(name, _)| name)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_few_and_short() {
        let numbered = |count: usize| (0..count).map(|number| (number.to_string(), "v"));
        assert!(Attributes::new(numbered(32)).is_ok());
        assert_eq!(Attributes::new(numbered(33)), Err(AttributesError));
        let of_length = |bytes| Attributes::new([("name", "x".repeat(bytes))]);
        assert!(of_length(4_092).is_ok());
        assert_eq!(of_length(4_093), Err(AttributesError));
        // A repeated name takes no more memory, but reading it is work.
        let again = (0..3_000).map(|_| ("name", "v"));
        assert_eq!(Attributes::new(again), Err(AttributesError));
    }

    #[test]
    fn a_value_is_found_by_its_name_and_shown_to_nobody() {
        let attributes = Attributes::new([("plan", "basic"), ("site", "s1"), ("plan", "gold")]);
        let attributes = attributes.unwrap();
        assert_eq!((attributes.get("plan"), attributes.get("other")), (Some("gold"), None));
        assert_eq!(attributes.iter().collect::<Vec<_>>(), [("plan", "gold"), ("site", "s1")]);
        assert_eq!(format!("{attributes:?}"), r#"{"plan", "site"}"#);
        assert_eq!(Attributes::new::<&str, &str>([]), Ok(Attributes::default()));
        assert!(Attributes::default().is_empty() && !attributes.is_empty());
    }
}
