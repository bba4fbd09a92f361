//! The whole interface for controlling live clients, as `http` asks for it.
//!
//! Knows the names of its parts alone.

use super::{
    AccessControl, ClientCertificates, ClientViews, LiveClients, Publishing, Readiness, Redirects,
    SettingsOfClients, UserAccounts,
};

/// The broker's whole interface for controlling live clients: all its parts together.
pub trait Control:
    LiveClients
    + ClientViews
    + Redirects
    + Publishing
    + Readiness
    + SettingsOfClients
    + AccessControl
    + UserAccounts
    + ClientCertificates
{
}

impl<T> Control for T where
    T: LiveClients
        + ClientViews
        + Redirects
        + Publishing
        + Readiness
        + SettingsOfClients
        + AccessControl
        + UserAccounts
        + ClientCertificates
{
}
