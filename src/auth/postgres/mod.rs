//! Identities from a PostgreSQL database: configurable queries for the hash and the rules of a user.
//!
//! `rows` knows the meaning of the columns. Passwords are checked in the same way as those of accounts. If the
//! database does not answer, a login is Unavailable, never refused.

mod options;
mod rows;

use std::{
    fs,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime};
use futures_util::{StreamExt as _, pin_mut};
use tokio::time::{Instant, timeout_at};
use tokio_postgres::{Row, config::SslMode, error::SqlState, types::Type};
use tokio_postgres_rustls::MakeRustlsConnect;

pub use self::options::{PostgresConfig, PostgresError};
use self::rows::FoundUser;
use super::{
    AuthenticationError, Authenticator, ClientCertificate, Credentials, FileAuthenticator,
    Identity, Login, Renew, Renewal, Standing, StoredPassword,
    breaker::{Breaker, CallOutcome, Turned},
    identity::is_user_name,
    origin::Origin,
};
use crate::{
    mqtt::Timestamp,
    outbound,
    told::{UnusableAnswer, UnusableAnswers},
};

/// Maximum number of rows that are read: one more than an identity can have rules.
const ROWS_MAX: usize = 65;
/// Classes of SQLSTATE that are about the values of a query, and not about the database: for example a name
/// that is not a number, a subquery with two rows, or an error that a function raises.
const CLASSES_OF_VALUES: [&str; 5] = ["21", "22", "38", "39", "P0"];

/// Admits clients that a PostgreSQL database knows. Cloning copies a pointer.
#[derive(Clone)]
pub struct PostgresAuthenticator(Arc<PostgresShared>);

struct PostgresShared {
    /// `None` while no database is configured.
    database: ArcSwapOption<UserDatabase>,
    generation: AtomicU64,
    /// Checks passwords, together with those of its own accounts.
    passwords: Arc<FileAuthenticator>,
}

struct UserDatabase {
    pool: Pool,
    query: String,
    rules_query: String,
    time_max: Duration,
    refresh: Option<Duration>,
    breaker: Breaker,
    unusable: UnusableAnswers,
}

/// Why a query has no rows, with a text for the log.
enum NoRows {
    /// There is no connection to the database.
    Unreachable(String),
    /// The database does not answer, or refuses the query.
    Failed(String),
    /// The query fails with the values of this user.
    OfValues(String),
}

impl PostgresAuthenticator {
    /// Creates it; connects to nothing yet. Passwords are checked together with those of `passwords`.
    ///
    /// # Errors
    /// An option is invalid, or a file cannot be read.
    pub fn open(
        config: &PostgresConfig,
        passwords: Arc<FileAuthenticator>,
    ) -> Result<Self, PostgresError> {
        let authenticator = Self(Arc::new(PostgresShared {
            database: ArcSwapOption::empty(),
            generation: AtomicU64::new(0),
            passwords,
        }));
        authenticator.set_config(config)?;
        Ok(authenticator)
    }

    /// Applies a configuration, and reads its files again.
    ///
    /// # Errors
    /// The same as [`PostgresAuthenticator::open`]; the former configuration then stays in force.
    pub fn set_config(&self, config: &PostgresConfig) -> Result<(), PostgresError> {
        let database = match config.is_used() {
            true => Some(Arc::new(UserDatabase::new(config)?)),
            false => None,
        };
        self.0.database.store(database);
        self.0.generation.fetch_add(1, Ordering::Release);
        Ok(())
    }
}

impl UserDatabase {
    fn new(config: &PostgresConfig) -> Result<Self, PostgresError> {
        let mut database = config.database()?;
        let unreadable = |option, path: &std::path::Path| {
            let path = path.to_owned();
            move |source| PostgresError::Unreadable { option, path, source }
        };
        if !config.password_file.as_os_str().is_empty() {
            let password = fs::read_to_string(&config.password_file)
                .map_err(unreadable("password_file", &config.password_file))?;
            database.password(password.trim_end_matches(['\r', '\n']));
        }
        let time_max = Duration::from_millis(config.timeout_ms.into());
        database.connect_timeout(time_max);
        database.application_name("hearthmq");
        // Ends a query on the server that no login waits for any more.
        let given = database.get_options().unwrap_or_default();
        database.options(format!("{given} -c statement_timeout={}", config.timeout_ms));
        let authorities = match config.ca.as_os_str().is_empty() {
            true => None,
            false => {
                Some(outbound::authorities_in(&config.ca).map_err(unreadable("ca", &config.ca))?)
            }
        };
        let is_encrypted = options::is_encrypted(&database);
        if !is_encrypted {
            // `prefer` would fail where the server has a certificate that nobody trusts, as it has by default.
            database.ssl_mode(SslMode::Disable);
        }
        let tls = outbound::tls_config(authorities.as_deref(), is_encrypted);
        let tls = tls.map_err(|fault| PostgresError::of("ca", fault.to_string()))?;
        // Without a test query for each login; a broken connection shows at its first use.
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_config(database, MakeRustlsConnect::new(tls), recycling);
        let pool = Pool::builder(manager)
            .max_size(config.connections_max.into())
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| PostgresError::of("connections_max", error.to_string()))?;
        Ok(Self {
            pool,
            query: config.query.clone(),
            rules_query: config.rules_query.clone(),
            time_max,
            refresh: (config.refresh_secs > 0)
                .then(|| Duration::from_secs(config.refresh_secs.into())),
            breaker: Breaker::default(),
            unusable: UnusableAnswers::default(),
        })
    }

    /// Looks a user up; `None` if there is none.
    async fn find(&self, who: &UserLookup) -> Result<Option<FoundUser>, AuthenticationError> {
        let found = self.rows(("query", &self.query), who).await?;
        match &found[..] {
            [] => Ok(None),
            [row] => {
                rows::account(row).map(Some).map_err(|why| self.misunderstood("query", &why, who))
            }
            [_, ..] => Err(self.misunderstood("query", "more than one row for a user", who)),
        }
    }

    /// Returns the identity of a user that was found.
    async fn identity(
        &self,
        who: &UserLookup,
        account: FoundUser,
    ) -> Result<Identity, AuthenticationError> {
        let rows = match self.rules_query.trim().is_empty() {
            // Without a query for rules, those in the column `acl` are all.
            true => Vec::new(),
            false => self.rows(("rules_query", &self.rules_query), who).await?,
        };
        let rules = rows::rules(account.acl, &rows);
        Ok(Identity {
            username: Some(Arc::clone(&who.username)),
            certificate: who.certificate.clone(),
            login: Login::Password,
            attributes: account.attributes,
            groups: account.groups,
            rules: rules.map_err(|why| self.misunderstood("rules_query", &why, who))?,
            ..Identity::default()
        })
    }

    /// Runs a query with the user name, the client identifier and the address.
    async fn rows(
        &self,
        (option, query): (&str, &str),
        who: &UserLookup,
    ) -> Result<Vec<Row>, AuthenticationError> {
        let origin = Origin::of(who.ip);
        // Before a connection is taken, so that a dead database costs a login no time.
        if !self.breaker.admits(origin) {
            return Err(AuthenticationError::Unavailable);
        }
        let rows = self.run(query, who).await;
        let (outcome, failure) = match &rows {
            // Otherwise strangers could open the breaker by names that the database refuses.
            Ok(_) | Err(NoRows::OfValues(_)) => (CallOutcome::Good, None),
            Err(NoRows::Unreachable(why)) => (CallOutcome::Unreachable, Some(why)),
            Err(NoRows::Failed(why)) => (CallOutcome::Failed, Some(why)),
        };
        if let Some(why) = failure {
            tracing::debug!(why, "the database of auth.postgres has failed");
        }
        match (self.breaker.note(origin, outcome), failure) {
            (Turned::Failing, Some(why)) => tracing::warn!(
                why,
                "the database of auth.postgres has failed; this login is answered Server unavailable"
            ),
            (Turned::Open, Some(why)) => tracing::warn!(
                why,
                "the database of auth.postgres fails; logins that need it are answered Server unavailable"
            ),
            (Turned::Closed, _) => tracing::info!("the database of auth.postgres is back"),
            (Turned::Failing | Turned::Open | Turned::No, _) => {}
        }
        rows.map_err(|why| match why {
            NoRows::OfValues(why) => self.misunderstood(option, &why, who),
            NoRows::Unreachable(_) | NoRows::Failed(_) => AuthenticationError::Unavailable,
        })
    }

    async fn run(&self, query: &str, who: &UserLookup) -> Result<Vec<Row>, NoRows> {
        let parameters = [Some(&*who.username), who.client_id.as_deref(), Some(&*who.address)];
        // One deadline for connection and query together.
        let by = Instant::now() + self.time_max;
        let late = |_| NoRows::Failed(format!("no answer within {} ms", self.time_max.as_millis()));
        let client = timeout_at(by, self.pool.get()).await.map_err(late)?;
        let client = client.map_err(|error| NoRows::Unreachable(outbound::with_causes(&error)))?;
        // Given back only at the end: a connection whose
        // query was cut off would answer the next one.
        let client = BusyConnection(Some(client));
        let run = async {
            // All three have a type, so that a query may leave out the last ones.
            let types = [Type::TEXT, Type::TEXT, Type::TEXT];
            let connection = client.0.as_ref().expect("it leaves at the end");
            let statement = connection.prepare_typed_cached(query, &types).await?;
            let rows = connection.query_raw(&statement, parameters).await?;
            pin_mut!(rows);
            let mut read = Vec::new();
            while let Some(row) = rows.next().await {
                read.push(row?);
                // A query without a condition could return the whole table.
                if read.len() == ROWS_MAX {
                    break;
                }
            }
            Ok(read)
        };
        let rows = timeout_at(by, run).await.map_err(late)?;
        client.give_back();
        rows.map_err(|error| no_rows(&error))
    }

    /// Returns the password of a hash; logs a hash that cannot be checked.
    fn password(&self, hash: &str, who: &UserLookup) -> Option<StoredPassword> {
        let parsed = hash.parse();
        if let Err(error) = &parsed {
            self.tell("query", &format!("the hash: {error}"), (who, true));
        }
        parsed.ok()
    }

    /// Logs an answer that cannot be used. The login is Unavailable.
    fn misunderstood(&self, option: &str, why: &str, who: &UserLookup) -> AuthenticationError {
        self.tell(option, why, (who, false));
        AuthenticationError::Unavailable
    }

    fn tell(&self, option: &str, why: &str, (who, is_refused): (&UserLookup, bool)) {
        let (source, address, user) = ("auth.postgres", who.ip, &*who.username);
        self.unusable.tell(&UnusableAnswer { source, option, why, address, user, is_refused });
    }
}

/// A connection with a query under way. If nobody waits for the query any more, the connection leaves the
/// pool, because the next login would wait behind the query.
struct BusyConnection(Option<Object>);

impl BusyConnection {
    fn give_back(mut self) {
        drop(self.0.take());
    }
}

impl Drop for BusyConnection {
    fn drop(&mut self) {
        drop(self.0.take().map(Object::take));
    }
}

/// Returns the meaning of an error of a query.
fn no_rows(error: &tokio_postgres::Error) -> NoRows {
    let is_of_values =
        |state: &SqlState| CLASSES_OF_VALUES.iter().any(|class| state.code().starts_with(class));
    let why = outbound::with_causes(error);
    match error.code().is_some_and(is_of_values) {
        true => NoRows::OfValues(why),
        false => NoRows::Failed(why),
    }
}

/// The user to look up.
#[derive(Clone)]
struct UserLookup {
    username: Arc<str>,
    client_id: Option<Box<str>>,
    ip: IpAddr,
    /// The address as a text, for a query.
    address: Box<str>,
    certificate: Option<Arc<ClientCertificate>>,
}

/// Looks a user up again.
struct LookAgain {
    shared: Arc<PostgresShared>,
    who: UserLookup,
    hash: String,
}

#[async_trait]
impl Renew for LookAgain {
    async fn renew(&self) -> Result<Identity, AuthenticationError> {
        let database = self.shared.database.load_full();
        let database = database.ok_or(AuthenticationError::Unavailable)?;
        let account = database.find(&self.who).await?;
        let is_same = |account: &FoundUser| account.hash.as_ref() == Some(&self.hash);
        let account = account.filter(|account| !account.is_disabled && is_same(account));
        let account = account.ok_or(AuthenticationError::BadCredentials)?;
        let identity = database.identity(&self.who, account).await?;
        let (shared, who, hash) = (Arc::clone(&self.shared), self.who.clone(), self.hash.clone());
        Ok(refreshed(identity, &database, Self { shared, who, hash }))
    }
}

fn refreshed(identity: Identity, database: &UserDatabase, by: LookAgain) -> Identity {
    let Some(time) = database.refresh else { return identity };
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // A tenth more or less, so that clients that came at the same time do not return at the same time.
    let share = f64::from(since.subsec_micros() % 1_000) / 1e3;
    let at = since + time.mul_f64(0.9 + share * 0.2);
    let at = u64::try_from(at.as_millis()).unwrap_or(u64::MAX);
    Identity { renewal: Renewal::new(Timestamp(at), Arc::new(by)), ..identity }
}

#[async_trait]
impl Authenticator for PostgresAuthenticator {
    async fn authenticate(
        &self,
        credentials: Credentials<'_>,
    ) -> Result<Identity, AuthenticationError> {
        let database = self.0.database.load_full().ok_or(AuthenticationError::NotMine)?;
        let name = credentials.username.filter(|_| credentials.bearer.is_none());
        let name = name.filter(|name| is_user_name(name)).ok_or(AuthenticationError::NotMine)?;
        let password = credentials.password.ok_or(AuthenticationError::NotMine)?;
        let who = UserLookup {
            username: name.into(),
            client_id: credentials.client_id.map(Into::into),
            ip: credentials.peer.ip(),
            address: credentials.peer.ip().to_string().into(),
            certificate: credentials.certificate.cloned().map(Arc::new),
        };
        // A name that is not in the table belongs to the next source of the chain.
        let account = database.find(&who).await?.ok_or(AuthenticationError::NotMine)?;
        // Without a hash that can be checked, no password is right. The refusal takes as long as another.
        let stored = account.hash.as_deref().and_then(|hash| database.password(hash, &who));
        self.0.passwords.check_elsewhere(&credentials, name, password, stored.as_ref()).await?;
        // After the password, so that only its owner learns of it.
        if account.is_disabled {
            return Err(AuthenticationError::NotAllowed);
        }
        if who.certificate.as_ref().is_some_and(|shown| shown.common_name != name) {
            return Err(AuthenticationError::OtherThanCertificate);
        }
        let hash = account.hash.clone().unwrap_or_default();
        let identity = database.identity(&who, account).await?;
        let again = LookAgain { shared: Arc::clone(&self.0), who, hash };
        Ok(match credentials.client_id {
            Some(_) => refreshed(identity, &database, again),
            None => identity, // A REST caller: each call is checked.
        })
    }

    fn generation(&self) -> u64 {
        self.0.generation.load(Ordering::Acquire)
    }

    fn standing(&self, _: &Identity, _: u64) -> Standing {
        match self.0.database.load().is_some() {
            true => Standing::Good,
            false => Standing::Suspended,
        }
    }
}

impl std::fmt::Debug for PostgresAuthenticator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresAuthenticator").finish_non_exhaustive()
    }
}
