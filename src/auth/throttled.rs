//! Slows down guesses at an authentication method of the embedding application, as guesses at passwords are.
//!
//! Knows only the outcome of an exchange. SCRAM does not use it: SCRAM learns the user name only in
//! the middle of an exchange, and shares its counts with the passwords of the same accounts.

use std::{
    fmt,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;

use super::{
    AuthenticationError, EnhancedAuthenticator, Exchange, ExchangeStart, FailureThrottle, Identity,
    Standing, Step, ThrottleConfig, throttle::now,
};

/// An [`EnhancedAuthenticator`] whose failures are counted by address, and by address and name. The
/// name is the User Name of CONNECT, or the Client Identifier if there is none. An exchange counts
/// as failed if it ends with [`AuthenticationError::BadCredentials`].
pub struct Throttled<A> {
    authenticator: A,
    failures: Arc<Mutex<FailureThrottle>>,
}

impl<A: EnhancedAuthenticator> Throttled<A> {
    /// Wraps `authenticator`.
    pub fn new(authenticator: A, config: ThrottleConfig) -> Self {
        Self { authenticator, failures: Arc::new(Mutex::new(FailureThrottle::new(config))) }
    }
}

impl<A: EnhancedAuthenticator> EnhancedAuthenticator for Throttled<A> {
    fn knows(&self, method: &str) -> bool {
        self.authenticator.knows(method)
    }

    fn begin(&self, start: ExchangeStart<'_>) -> Box<dyn Exchange> {
        let shown = start.credentials;
        Box::new(ThrottledExchange {
            address: shown.peer.ip(),
            name: shown.username.or(shown.client_id).unwrap_or_default().into(),
            exchange: self.authenticator.begin(start),
            failures: Arc::clone(&self.failures),
            has_begun: false,
        })
    }

    fn generation(&self) -> u64 {
        self.authenticator.generation()
    }

    fn standing(&self, identity: &Identity, since: u64) -> Standing {
        self.authenticator.standing(identity, since)
    }
}

struct ThrottledExchange {
    exchange: Box<dyn Exchange>,
    failures: Arc<Mutex<FailureThrottle>>,
    address: IpAddr,
    name: Box<str>,
    has_begun: bool,
}

impl ThrottledExchange {
    fn failures(&self) -> MutexGuard<'_, FailureThrottle> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the delay of the first step.
    fn admit(&self) -> Result<Duration, AuthenticationError> {
        self.failures().admit(self.address, &self.name, now()).delay()
    }
}

#[async_trait]
impl Exchange for ThrottledExchange {
    async fn step(&mut self, data: Option<&[u8]>) -> Result<Step, AuthenticationError> {
        let delay = self.admit()?;
        // Only the first step waits: a guess is a whole exchange.
        if !std::mem::replace(&mut self.has_begun, true) && !delay.is_zero() {
            tokio::time::sleep(delay).await;
            // Failures of other exchanges may have been counted meanwhile.
            self.admit()?;
        }
        let step = self.exchange.step(data).await;
        match &step {
            Err(AuthenticationError::BadCredentials) => {
                self.failures().failed(self.address, &self.name, now());
            }
            Ok(Step::Done { .. }) => self.failures().succeeded(self.address, &self.name),
            Ok(Step::Continue(_)) | Err(_) => {}
        }
        step
    }
}

impl<A: fmt::Debug> fmt::Debug for Throttled<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Throttled")
            .field("authenticator", &self.authenticator)
            .finish_non_exhaustive()
    }
}
