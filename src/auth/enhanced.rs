//! Enhanced authentication: methods that take more than a user name and a password, section 4.12
//! of MQTT 5.0.
//!
//! An [`EnhancedAuthenticator`] offers methods by name; an [`Exchange`] is the conversation with
//! one client, when it connects or authenticates again. What they say to each other is theirs:
//! nothing here knows a packet or a socket. The broker asks, and sees to it that an exchange has
//! an end.

use std::sync::Arc;

use async_trait::async_trait;

use super::{AuthenticationError, Credentials, Identity, Standing};

/// Authentication Data is Binary Data, whose length has two bytes: section 1.5.6.
const DATA_BYTES_MAX: usize = u16::MAX as usize;

/// What is known of a client when an exchange with it begins.
#[derive(Clone, Copy)]
pub struct ExchangeStart<'a> {
    /// Authentication Method, one of those that [`EnhancedAuthenticator::methods`] names.
    pub method: &'a str,
    /// What CONNECT and TLS have shown. MQTT leaves it to the method what User Name and Password
    /// mean to it; when a client authenticates again, there is no password.
    pub credentials: Credentials<'a>,
    /// Who the client is so far, if it authenticates again. It may not become another user.
    pub identity: Option<&'a Identity>,
}

/// Offers methods of enhanced authentication.
///
/// The name of the user is for the method to find out, and who it is goes into
/// [`Step::Done`]; sessions belong to the user name there. If the User Name of CONNECT has to
/// agree with it, the method says so.
///
/// The broker bounds what an exchange may take, see [`Exchange`]. It does not know what a failure
/// means, so that it does not slow down who guesses: wrap the authenticator in
/// [`Throttled`](super::Throttled) for that.
pub trait EnhancedAuthenticator: Send + Sync + 'static {
    /// The names of its methods, as clients give them in Authentication Method.
    fn methods(&self) -> &[&str];

    /// An exchange with a client that has given one of the methods. Nothing is decided here:
    /// the exchange refuses in its first step whom it does not like.
    fn begin(&self, start: ExchangeStart<'_>) -> Box<dyn Exchange>;

    /// As [`Authenticator::generation`](super::Authenticator::generation).
    fn generation(&self) -> u64 {
        0
    }

    /// As [`Authenticator::standing`](super::Authenticator::standing), for an identity of one of
    /// these methods.
    fn standing(&self, identity: &Identity, since: u64) -> Standing {
        let _ = (identity, since);
        Standing::Good
    }
}

/// A conversation with one client about who it is.
///
/// The first step gets what came in CONNECT, or in the AUTH that asked to authenticate again;
/// each [`Step::Continue`] is followed by another with what the client answers. Steps follow one
/// another. A step may take its time, it never runs on a shard's data path; but all of the
/// exchange has the time that a CONNECT has, and a bounded number of steps and bytes
/// (`connect_timeout_secs`, `authentication_rounds_max` and `authentication_bytes_max` of the
/// limits). When the client is gone, or time is over, the exchange is dropped, perhaps in the
/// middle of a step.
#[async_trait]
pub trait Exchange: Send {
    /// Takes the client's Authentication Data; what is next.
    ///
    /// # Errors
    /// The client is not let in, or, if it was in already, is disconnected.
    async fn step(&mut self, data: Option<&[u8]>) -> Result<Step, AuthenticationError>;
}

/// What an [`Exchange`] says next. Authentication Data is at most 65,535 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// This Authentication Data is sent, and the client is to answer.
    Continue(Option<Vec<u8>>),
    /// The client has shown who it is.
    Done {
        /// Who.
        identity: Identity,
        /// Authentication Data for the client, to end with.
        data: Option<Vec<u8>>,
    },
}

impl<T: EnhancedAuthenticator + ?Sized> EnhancedAuthenticator for Arc<T> {
    fn methods(&self) -> &[&str] {
        (**self).methods()
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

/// All methods of a broker. If two authenticators have one of the same name, the first is asked.
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
        Some(&**all.find(|one| one.methods().contains(&method))?)
    }

    /// An exchange; `None` if nobody knows the method.
    pub(crate) fn begin(
        &self,
        start: ExchangeStart<'_>,
        bounds: ExchangeBounds,
    ) -> Option<BoundedExchange> {
        let authenticator = self.find(start.method)?;
        Some(BoundedExchange { exchange: authenticator.begin(start), left: bounds })
    }
}

/// How long an exchange may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ExchangeBounds {
    /// Steps.
    pub(crate) rounds_max: u16,
    /// Bytes of Authentication Data that the client may send, in all.
    pub(crate) bytes_max: u32,
}

/// An exchange that comes to an end.
pub(crate) struct BoundedExchange {
    exchange: Box<dyn Exchange>,
    left: ExchangeBounds,
}

impl BoundedExchange {
    /// As [`Exchange::step`], as long as it is not one too many.
    pub(crate) async fn step(&mut self, data: Option<&[u8]>) -> Result<Step, AuthenticationError> {
        let bytes = u32::try_from(data.map_or(0, <[u8]>::len)).unwrap_or(u32::MAX);
        let rounds_left = self.left.rounds_max.checked_sub(1);
        let bytes_left = self.left.bytes_max.checked_sub(bytes);
        let (Some(rounds_max), Some(bytes_max)) = (rounds_left, bytes_left) else {
            tracing::debug!("an authentication exchange has become too long");
            return Err(AuthenticationError::NotAllowed);
        };
        self.left = ExchangeBounds { rounds_max, bytes_max };
        let step = self.exchange.step(data).await?;
        let (Step::Continue(data) | Step::Done { data, .. }) = &step;
        if data.as_ref().is_some_and(|data| data.len() > DATA_BYTES_MAX) {
            tracing::error!("an authentication method has more data than a packet can carry");
            return Err(AuthenticationError::Unavailable);
        }
        Ok(step)
    }
}
