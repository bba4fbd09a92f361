//! Data that an authorizer has loaded for an identity.
//!
//! Plain data of any type. Part of the identity.

use std::{any::Any, fmt, sync::Arc};

/// Data of any type that an [`Authorizer`](super::Authorizer) has loaded for an identity. Cloning copies a
/// pointer; two are equal if they point to the same value.
#[derive(Clone, Default)]
pub struct Prepared(Option<Arc<dyn Any + Send + Sync>>);

impl Prepared {
    /// Holds a value, which identities of one user may share.
    #[must_use]
    pub fn new<T: Any + Send + Sync>(value: Arc<T>) -> Self {
        Self(Some(value))
    }

    /// Returns the value, if there is one of this type.
    #[must_use]
    pub fn get<T: Any>(&self) -> Option<&T> {
        self.0.as_ref()?.downcast_ref()
    }

    /// Returns whether nothing was loaded.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

impl PartialEq for Prepared {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (None, None) => true,
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, Some(_)) | (Some(_), None) => false,
        }
    }
}

impl Eq for Prepared {}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_empty() { "Prepared(nothing)" } else { "Prepared(..)" })
    }
}
