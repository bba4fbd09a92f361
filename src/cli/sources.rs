//! The sources of identities, in the order of the configuration.

use std::sync::Arc;

use hearthmq::{
    auth::{AuthenticationConfig, Chain, FileAuthenticator, FileError, ScramSha256, Source},
    config::{Config, SourceName},
};

/// The sources that are configured.
pub(super) struct Sources {
    accounts: Arc<FileAuthenticator>,
    scram: ScramSha256,
}

impl Sources {
    /// Opens all sources.
    pub(super) fn open(config: &Config) -> Result<Self, FileError> {
        let authentication = AuthenticationConfig::from(config);
        let accounts = Arc::new(FileAuthenticator::open(config.users_file(), authentication)?);
        let scram = ScramSha256::new(Arc::clone(&accounts));
        scram.set_offered(config.auth.scram);
        Ok(Self { accounts, scram })
    }

    /// Returns the chain of the sources that are configured.
    pub(super) fn chain(&self, config: &Config) -> Chain {
        let sources = config.auth.sources.iter().filter_map(|name| self.source(*name));
        sources.fold(Chain::new(), Chain::with)
    }

    fn source(&self, name: SourceName) -> Option<Source> {
        match name {
            SourceName::Accounts => {
                let accounts = Source::new(name.name(), Arc::clone(&self.accounts));
                Some(accounts.with_methods(self.scram.clone()))
            }
            SourceName::Users
            | SourceName::Tokens
            | SourceName::Jwt
            | SourceName::Http
            | SourceName::Postgres
            | _ => None,
        }
    }

    /// Applies the options of a reload, and reads the files again.
    pub(super) fn change(&self, config: &Config) {
        self.accounts.set_config(AuthenticationConfig::from(config));
        self.scram.set_offered(config.auth.scram);
        super::serve::tell("accounts", self.accounts.reload_from(config.users_file()));
    }
}
