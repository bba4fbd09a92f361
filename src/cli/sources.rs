//! The sources of identities, in the order of the configuration.

use std::sync::Arc;

use hearthmq::{
    auth::{
        AuthenticationConfig, Chain, FileAuthenticator, FileError, HttpAuthError,
        HttpAuthenticator, JwtAuthenticator, JwtError, PostgresAuthenticator, PostgresError,
        ScramSha256, Source, StoredUsers, TokenAuthenticator,
    },
    config::{Config, SourceName},
};

use super::tell_reread;

/// The sources that the program has. Those that are not configured pass every client on.
pub(super) struct Sources {
    accounts: Arc<FileAuthenticator>,
    scram: ScramSha256,
    jwt: JwtAuthenticator,
    http: HttpAuthenticator,
    postgres: PostgresAuthenticator,
    chain: Chain,
}

/// Why a source cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum SourceError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Jwt(#[from] JwtError),
    #[error(transparent)]
    Http(#[from] HttpAuthError),
    #[error(transparent)]
    Postgres(#[from] PostgresError),
}

impl Sources {
    /// Opens all sources.
    pub(super) fn open(config: &Config) -> Result<Self, SourceError> {
        let auth = &config.auth;
        let authentication = AuthenticationConfig::from(config);
        let accounts = Arc::new(FileAuthenticator::open(config.users_file(), authentication)?);
        let scram = ScramSha256::new(Arc::clone(&accounts));
        scram.set_offered(auth.scram);
        let mut sources = Self {
            jwt: JwtAuthenticator::open(&auth.jwt)?,
            http: HttpAuthenticator::open(&auth.http, auth.throttle.clone())?,
            postgres: PostgresAuthenticator::open(&auth.postgres, Arc::clone(&accounts))?,
            accounts,
            scram,
            chain: Chain::new(),
        };
        let named = auth.sources.iter().filter_map(|name| sources.source(*name));
        // In the order of the configuration, which is the order in which they are asked.
        sources.chain = named.fold(Chain::new(), Chain::with);
        sources.chain.take_names_without_query(auth.username_without_query);
        Ok(sources)
    }

    /// Returns the accounts in the store, if they are a source.
    pub(super) fn stored_users(&self, config: &Config) -> Option<Arc<StoredUsers>> {
        let are_source = config.auth.sources.contains(&SourceName::Users);
        are_source.then(|| self.accounts.stored_users())
    }

    /// Checks the sources that are elsewhere, as far as that is possible without asking them.
    pub(super) fn check_elsewhere(config: &Config) -> Result<(), SourceError> {
        let auth = &config.auth;
        drop(JwtAuthenticator::open(&auth.jwt)?);
        drop(HttpAuthenticator::open(&auth.http, auth.throttle.clone())?);
        let nobody = FileAuthenticator::new(Default::default(), AuthenticationConfig::from(config));
        drop(PostgresAuthenticator::open(&auth.postgres, Arc::new(nobody))?);
        Ok(())
    }

    /// Returns the chain of the sources that the configuration names.
    pub(super) fn chain(&self) -> Chain {
        self.chain.clone()
    }

    fn source(&self, name: SourceName) -> Option<Source> {
        let text = name.name();
        match name {
            SourceName::Accounts => {
                let accounts = Source::new(text, Arc::clone(&self.accounts));
                Some(accounts.with_methods(self.scram.clone()))
            }
            SourceName::Tokens => Some(Source::new(text, TokenAuthenticator::new())),
            SourceName::Jwt => Some(Source::new(text, self.jwt.clone())),
            SourceName::Http => Some(Source::new(text, self.http.clone())),
            SourceName::Postgres => Some(Source::new(text, self.postgres.clone())),
            SourceName::Users => Some(Source::new(text, self.accounts.stored_users())),
            _ => None,
        }
    }

    /// Refreshes keys, lists and accounts from elsewhere, in the background.
    pub(super) fn watch(&self) {
        let jwt = self.jwt.clone();
        actix_web::rt::spawn(async move { jwt.watch().await });
    }

    /// Applies the options of a reload, and reads the files again.
    pub(super) fn change(&self, config: &Config) {
        let auth = &config.auth;
        self.accounts.set_config(AuthenticationConfig::from(config));
        self.scram.set_offered(auth.scram);
        self.chain.take_names_without_query(auth.username_without_query);
        tell_reread("accounts", self.accounts.reload_from(config.users_file()));
        tell_reread("keys of tokens", self.jwt.set_config(&auth.jwt));
        tell_reread(
            "options of auth.http",
            self.http.set_config(&auth.http, auth.throttle.clone()),
        );
        tell_reread("options of auth.postgres", self.postgres.set_config(&auth.postgres));
    }
}
