//! The groups that an identity belongs to: names, of limited number and size.
//!
//! Plain data. Made by authenticators, kept with sessions, read by rules.

use std::{fmt, sync::Arc};

/// Maximum number of groups of an identity.
const GROUPS_MAX: usize = 32;
/// Maximum bytes of all their names.
const BYTES_MAX: usize = 4_096;

/// Groups of an [`Identity`](super::Identity), for example those of an account, or a claim of a token.
///
/// Rules name them in the condition `groups`. At most 32, and at most 4,096 bytes of names; each has a
/// name that is not empty. Cloning copies a pointer.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Groups(Option<Arc<[Box<str>]>>);

/// There are too many groups, or their names are empty or too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an identity has at most 32 groups, with names of at most 4096 bytes together, none empty")]
pub struct GroupsError;

impl Groups {
    /// Creates groups. A repeated name counts once.
    ///
    /// # Errors
    /// There are too many groups, a name is empty, or the names are too long.
    pub fn new<N: Into<Box<str>>>(all: impl IntoIterator<Item = N>) -> Result<Self, GroupsError> {
        let (mut names, mut bytes) = (Vec::<Box<str>>::new(), 0);
        for name in all {
            let name: Box<str> = name.into();
            bytes += name.len();
            if name.is_empty() || bytes > BYTES_MAX {
                return Err(GroupsError);
            }
            // Kept sorted, so that a repeated name is found without another set.
            let Err(at) = names.binary_search(&name) else { continue };
            names.insert(at, name);
            if names.len() > GROUPS_MAX {
                return Err(GroupsError);
            }
        }
        Ok(Self((!names.is_empty()).then(|| names.into())))
    }

    /// Returns whether the identity belongs to a group.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.0.as_ref().is_some_and(|all| all.iter().any(|group| **group == *name))
    }

    /// Returns all names, in their order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().flat_map(|all| all.iter()).map(|name| &**name)
    }

    /// Returns whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

impl fmt::Debug for Groups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_few_and_short_and_have_names() {
        let numbered = |count: usize| (0..count).map(|number| number.to_string());
        assert!(Groups::new(numbered(32)).is_ok());
        assert_eq!(Groups::new(numbered(33)), Err(GroupsError));
        assert!(Groups::new(["x".repeat(4_096)]).is_ok());
        assert_eq!(Groups::new(["x".repeat(4_097)]), Err(GroupsError));
        assert_eq!(Groups::new(["a", ""]), Err(GroupsError));
        // A repeated name takes no more memory, but reading it is work.
        assert_eq!(Groups::new((0..5_000).map(|_| "g")), Err(GroupsError));
    }

    #[test]
    fn a_group_is_found_by_its_name() {
        let groups = Groups::new(["night", "cars", "night"]).unwrap();
        assert!(groups.contains("cars") && !groups.contains("car") && !groups.contains(""));
        assert_eq!(groups.iter().collect::<Vec<_>>(), ["cars", "night"]);
        assert_eq!(format!("{groups:?}"), r#"{"cars", "night"}"#);
        assert_eq!(Groups::new::<&str>([]), Ok(Groups::default()));
        assert!(Groups::default().is_empty() && !groups.is_empty());
    }
}
