//! The cause of a login that could not be checked, for the log. Knows no source of identities.

use std::{error::Error, fmt, sync::Arc};

/// The cause for which credentials could not be checked, such as the error of a database. Becomes an
/// [`AuthenticationError::Failed`](super::AuthenticationError::Failed) by `?`.
#[derive(Clone, Debug)]
pub struct AuthenticationFault(Arc<dyn Error + Send + Sync>);

impl AuthenticationFault {
    /// Creates it from an error or a text, which must not contain passwords or tokens.
    #[must_use]
    pub fn new(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(cause.into().into())
    }
}

impl fmt::Display for AuthenticationFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for AuthenticationFault {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

/// Two faults are equal if one is a copy of the other.
impl PartialEq for AuthenticationFault {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for AuthenticationFault {}
