//! The rank of a login while more logins arrive than can be checked.

/// Rank of a login before its credentials are checked; the best first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Precedence {
    /// The user logged in from this address before.
    Known,
    /// The address has no recent failures.
    #[default]
    Fresh,
    /// The address has recent failures.
    Failed,
}
