//! The whole interface for controlling live clients, as `http` asks for it.
//!
//! Knows the names of its parts alone.

use super::{
    AccessControl, BridgeControl, ClientCertificates, ClientTraces, ClientViews, LiveClients,
    Publishing, Readiness, Redirects, SettingsOfClients, UserAccounts,
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
    + ClientTraces
    + BridgeControl
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
        + ClientTraces
        + BridgeControl
{
}
