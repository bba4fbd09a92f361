//! The methods of enhanced authentication of a chain.
//!
//! Knows the order of the sources and which of them know a method. The chain makes it; the broker
//! starts exchanges with it.

use std::collections::VecDeque;

use async_trait::async_trait;

use super::{
    super::{
        AuthenticationError, EnhancedAuthenticator, Exchange, ExchangeStart, Identity, Standing,
        Step,
    },
    Chain, Credentials, Source,
    generations::Member,
    unknown,
};

/// The methods of all sources.
pub(super) struct ChainMethods(pub(super) Chain);

impl EnhancedAuthenticator for ChainMethods {
    fn knows(&self, method: &str) -> bool {
        self.0.sources.iter().any(|source| source.knows(method))
    }

    fn begin(&self, start: ExchangeStart<'_>) -> Box<dyn Exchange> {
        let may_pass = start.credentials.may_pass;
        let shown = self.0.given(start.credentials);
        // A chain of the sources that know the method, so that the last of them decides.
        let chain = Chain {
            sources: self
                .0
                .sources
                .iter()
                .filter(|source| source.knows(start.method))
                .cloned()
                .collect(),
            ..Chain::default()
        };
        let begun = chain.in_order(may_pass).filter_map(|(source, may_pass)| {
            let credentials = Credentials { may_pass, ..shown };
            let exchange = source.methods.as_ref()?.begin(ExchangeStart { credentials, ..start });
            Some((source.clone(), exchange))
        });
        // All begin now, because the credentials are borrowed for this call alone.
        let begun = begun.collect();
        Box::new(ChainExchange { all: self.0.clone(), begun, may_pass, has_sent_data: false })
    }

    fn generation(&self) -> u64 {
        self.0.generation_of_all()
    }

    fn standing(&self, identity: &Identity, since: u64) -> Standing {
        let Some((at, inner)) = self.0.source_of(identity) else { return Standing::Suspended };
        let Some(methods) = &self.0.sources[at].methods else { return Standing::Suspended };
        let since = self.0.generations().at(since, Member::methods(at));
        methods.standing(inner.as_ref().unwrap_or(identity), since)
    }
}

impl Source {
    fn knows(&self, method: &str) -> bool {
        self.methods.as_ref().is_some_and(|methods| methods.knows(method))
    }
}

/// An exchange that continues with the first source that does not pass.
struct ChainExchange {
    all: Chain,
    /// The sources that know the method and have not passed, in order.
    begun: VecDeque<(Source, Box<dyn Exchange>)>,
    may_pass: bool,
    /// Whether data was sent to the client. From then on, the first of these sources decides.
    has_sent_data: bool,
}

#[async_trait]
impl Exchange for ChainExchange {
    async fn step(&mut self, data: Option<&[u8]>) -> Result<Step, AuthenticationError> {
        while let Some((source, exchange)) = self.begun.front_mut() {
            match exchange.step(data).await {
                // Nothing was sent yet, so the next source can begin with the same message.
                Err(AuthenticationError::NotMine) if !self.has_sent_data => {
                    self.begun.pop_front();
                }
                // The client has answered a challenge of this
                // source; another one could not understand it.
                Err(AuthenticationError::NotMine) => break,
                Err(error) => return Err(error),
                Ok(Step::Continue(data)) => {
                    self.has_sent_data |= data.is_some();
                    return Ok(Step::Continue(data));
                }
                Ok(Step::Done { identity, .. }) if self.all.is_of_earlier(source, &identity) => {
                    return Err(AuthenticationError::NotAllowed);
                }
                Ok(Step::Done { identity, data }) => {
                    return Ok(Step::Done { identity: source.mark(identity), data });
                }
            }
        }
        Err(unknown(self.may_pass && !self.has_sent_data))
    }
}
