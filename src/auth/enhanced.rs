//! Enhanced authentication: methods that take more than a user name and a password, section 4.12 of
//! MQTT 5.0.
//!
//! An [`EnhancedAuthenticator`] offers methods by name; an [`Exchange`] is the conversation with
//! one client, when it connects or re-authenticates. The method alone defines what is exchanged:
//! nothing here knows a packet or a socket. The broker starts each exchange and limits its length.

use std::sync::Arc;

use async_trait::async_trait;

use super::{AuthenticationError, Credentials, Identity, Standing};

/// Authentication Data is Binary Data, whose length has two bytes: section 1.5.6.
const DATA_BYTES_MAX: usize = u16::MAX as usize;

/// The facts about a client that the broker knows when an exchange with it begins.
#[derive(Clone, Copy, Debug)]
pub struct ExchangeStart<'a> {
    /// Authentication Method, one that [`EnhancedAuthenticator::knows`].
    pub method: &'a str,
    /// The credentials from CONNECT and TLS. MQTT leaves the meaning of User Name and Password to the
    /// method; a client that re-authenticates sends no password.
    pub credentials: Credentials<'a>,
    /// The current identity of a client that re-authenticates. It must not become another user.
    pub identity: Option<&'a Identity>,
}

/// Offers methods of enhanced authentication.
///
/// The method finds out the name of the user and returns it in [`Step::Done`]; sessions belong to
/// the user name given there. A method that requires the User Name of CONNECT to agree checks that
/// itself.
///
/// The broker limits the length of an exchange, see [`Exchange`]. It cannot judge what a failure
/// means, so it does not slow down guessing: wrap the authenticator in
/// [`Throttled`](super::Throttled) for that.
pub trait EnhancedAuthenticator: Send + Sync + 'static {
    /// Returns whether it has a method of this name, as clients give it in Authentication Method.
    fn knows(&self, method: &str) -> bool;

    /// Starts an exchange with a client that has named one of the methods. Nothing is decided here:
    /// an exchange refuses a client in its first step.
    fn begin(&self, start: ExchangeStart<'_>) -> Box<dyn Exchange>;

    /// Returns the same as [`Authenticator::generation`](super::Authenticator::generation).
    fn generation(&self) -> u64 {
        0
    }

    /// Returns the same as [`Authenticator::standing`](super::Authenticator::standing), for an
    /// identity of one of these methods.
    fn standing(&self, identity: &Identity, since: u64) -> Standing {
        let _ = (identity, since);
        Standing::Good
    }
}

/// A conversation that establishes the identity of one client.
///
/// The first step gets the data of CONNECT, or of the AUTH packet that starts re-authentication;
/// after each [`Step::Continue`] the next step gets the client's answer. Steps never overlap. A
/// step may be slow, as it never runs on a shard's data path. But the whole exchange must finish
/// within the time that a CONNECT has, and within a number of steps and bytes
/// (`connect_timeout_secs`, `authentication_rounds_max` and `authentication_bytes_max` of the
/// limits). When the client disconnects or the time is over, the exchange is dropped, possibly in
/// the middle of a step.
#[async_trait]
pub trait Exchange: Send {
    /// Takes the client's Authentication Data and returns the next step.
    ///
    /// # Errors
    /// The client is refused, or disconnected if it was connected already. After
    /// [`AuthenticationError::NotMine`] the next authenticator of a [`Chain`](super::Chain) gets the
    /// same data, unless the client was already sent data.
    async fn step(&mut self, data: Option<&[u8]>) -> Result<Step, AuthenticationError>;
}

/// The next step of an [`Exchange`]. Authentication Data is at most 65,535 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send this Authentication Data and wait for the client's answer.
    Continue(Option<Vec<u8>>),
    /// The client has proven its identity.
    Done {
        /// The identity.
        identity: Identity,
        /// Final Authentication Data for the client.
        data: Option<Vec<u8>>,
    },
}

impl<T: EnhancedAuthenticator + ?Sized> EnhancedAuthenticator for Arc<T> {
    fn knows(&self, method: &str) -> bool {
        (**self).knows(method)
    }

    fn begin(&self, start: ExchangeStart<'_>) -> Box<dyn Exchange> {
        (**self).begin(start)
    }

    fn generation(&self) -> u64 {
        (**self).generation()
    }

    fn standing(&self, identity: &Identity, since: u64) -> Standing {
        (**self).standing(identity, since)
    }
}

/// All methods of a broker. If two authenticators offer a method of the same name, the first one
/// serves it.
#[derive(Default)]
pub(crate) struct Methods(Vec<Box<dyn EnhancedAuthenticator>>);

impl Methods {
    /// Adds the methods of another authenticator.
    pub(crate) fn add(&mut self, authenticator: impl EnhancedAuthenticator) {
        self.0.push(Box::new(authenticator));
    }

    /// Returns the authenticator that has this method.
    pub(crate) fn find(&self, method: &str) -> Option<&dyn EnhancedAuthenticator> {
        let mut all = self.0.iter();
        Some(&**all.find(|one| one.knows(method))?)
    }

    /// Starts an exchange; `None` if no authenticator has the method.
    pub(crate) fn begin(
        &self,
        start: ExchangeStart<'_>,
        bounds: ExchangeBounds,
    ) -> Option<BoundedExchange> {
        let authenticator = self.find(start.method)?;
        Some(BoundedExchange { exchange: authenticator.begin(start), left: bounds })
    }
}

/// The limits of an exchange.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ExchangeBounds {
    /// Maximum number of steps.
    pub(crate) rounds_max: u16,
    /// Maximum number of bytes of Authentication Data that the client may send, in all.
    pub(crate) bytes_max: u32,
}

/// An exchange with its remaining limits.
pub(crate) struct BoundedExchange {
    exchange: Box<dyn Exchange>,
    left: ExchangeBounds,
}

impl BoundedExchange {
    /// Performs the next step; fails if it would exceed a limit.
    pub(crate) async fn step(&mut self, data: Option<&[u8]>) -> Result<Step, AuthenticationError> {
        let bytes = u32::try_from(data.map_or(0, <[u8]>::len)).unwrap_or(u32::MAX);
        let rounds_left = self.left.rounds_max.checked_sub(1);
        let bytes_left = self.left.bytes_max.checked_sub(bytes);
        let (Some(rounds_max), Some(bytes_max)) = (rounds_left, bytes_left) else {
            tracing::debug!("authentication exchange exceeds its limits");
            return Err(AuthenticationError::NotAllowed);
        };
        // Counted before the step, so that a method that
        // never ends costs a bounded number of calls.
        self.left = ExchangeBounds { rounds_max, bytes_max };
        let step = self.exchange.step(data).await?;
        let (Step::Continue(data) | Step::Done { data, .. }) = &step;
        if data.as_ref().is_some_and(|data| data.len() > DATA_BYTES_MAX) {
            tracing::error!("authentication method returned more data than a packet can carry");
            return Err(AuthenticationError::Unavailable);
        }
        Ok(step)
    }
}
