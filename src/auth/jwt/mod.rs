//! Identities from signed tokens: JSON Web Tokens (RFC 7519).
//!
//! A token is in the password or user name of CONNECT, in the data of the Authentication Method `JWT`,
//! or in `Authorization: Bearer`. `keys` and `jwks` know the keys, `claims` what a token says about its
//! holder; this module puts them together. A login needs no password hash and asks nobody, unless the
//! token names a key that is not known yet.

mod check;
mod claims;
mod jwks;
mod keys;
mod options;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use jsonwebtoken::{Algorithm, Header, Validation, decode, decode_header, errors::ErrorKind};
use serde_json::{Map, Value};

pub use self::options::{JwtConfig, JwtError, TokenPlace};
use self::{
    claims::{ClaimRules, Holder},
    jwks::{Jwks, Lookup},
    keys::{Thumbprint, TokenKey},
};
use super::{
    AuthenticationError, Authenticator, ClientCertificate, Credentials, EnhancedAuthenticator,
    Exchange, ExchangeStart, Identity, Standing, Step,
};
use crate::mqtt::Timestamp;

/// The Authentication Method of MQTT 5.0 clients whose Authentication Data is a token.
pub const JWT_METHOD: &str = "JWT";

/// Maximum bytes of a token.
const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// Maximum number of keys by which one token is checked.
const TRIES_MAX: usize = 8;

/// Admits clients whose token is signed by a key of the configuration. Cloning copies a pointer.
#[derive(Clone, Default)]
pub struct JwtAuthenticator(Arc<JwtShared>);

#[derive(Default)]
struct JwtShared {
    /// `None` while there is no key.
    setup: ArcSwapOption<Setup>,
    generation: AtomicU64,
    /// The generation in which a key was last removed.
    lost_key_in: AtomicU64,
}

/// A configuration with its keys.
struct Setup {
    from: TokenPlace,
    algorithms: Vec<Algorithm>,
    validation: Validation,
    keys: Vec<TokenKey>,
    jwks: Option<Arc<Jwks>>,
    claims: ClaimRules,
}

impl JwtAuthenticator {
    /// Creates it, and reads the files that the configuration names.
    ///
    /// # Errors
    /// An option is invalid, or a file has no key.
    pub fn open(config: &JwtConfig) -> Result<Self, JwtError> {
        let authenticator = Self::default();
        authenticator.set_config(config)?;
        Ok(authenticator)
    }

    /// Applies a configuration, and reads its files again. If a key of a file is no longer there, the
    /// clients with a token must log in again.
    ///
    /// # Errors
    /// The same as [`JwtAuthenticator::open`]; the former configuration then stays in force.
    pub fn set_config(&self, config: &JwtConfig) -> Result<(), JwtError> {
        let shared = &self.0;
        let former = shared.setup.load_full();
        let setup = match config.is_used() {
            // Everything is read before anything is replaced,
            // so an error leaves the former setup in force.
            true => Some(Setup::read(config, former.as_deref())?),
            false => None,
        };
        let kept: Vec<Thumbprint> =
            setup.iter().flat_map(|setup| &setup.keys).map(TokenKey::thumbprint).collect();
        // A key that was taken out may have been stolen, so tokens of it must not keep connections.
        let lost = former.iter().flat_map(|former| &former.keys);
        let has_lost = lost.map(TokenKey::thumbprint).any(|key| !kept.contains(&key));
        let generation = shared.generation.load(Ordering::Acquire) + 1;
        if has_lost {
            shared.lost_key_in.store(generation, Ordering::Release);
        }
        shared.setup.store(setup.map(Arc::new));
        // Stored last: a login under way is then at worst considered older than it is.
        shared.generation.store(generation, Ordering::Release);
        Ok(())
    }

    /// Keeps the keys of a JWK Set fresh, until the authenticator is dropped. Without it they are read
    /// when a token needs them.
    pub async fn watch(&self) {
        let shared = Arc::downgrade(&self.0);
        loop {
            let jwks = match shared.upgrade() {
                Some(shared) => shared.setup.load().as_ref().and_then(|setup| setup.jwks.clone()),
                None => return,
            };
            let pause = match jwks {
                Some(jwks) => jwks.refresh_if_due().await,
                None => jwks::LOOK_AGAIN,
            };
            tokio::time::sleep(pause.min(jwks::LOOK_AGAIN)).await;
        }
    }

    /// Returns the identity of a token.
    async fn identify(
        &self,
        token: &[u8],
        holder: Holder<'_>,
    ) -> Result<Identity, AuthenticationError> {
        let Some(setup) = self.0.setup.load_full() else {
            // Without keys nothing is known about tokens, and the next source may accept the password.
            return Err(AuthenticationError::NotMine);
        };
        let outcome = setup.verify(token).await;
        let refused = |why: TokenRefused| {
            // The reason is for the operator; a client learns nothing that helps to forge a token.
            tracing::debug!(%why, "token refused");
            match why {
                TokenRefused::Unavailable => AuthenticationError::Unavailable,
                TokenRefused::OtherCertificate => AuthenticationError::OtherThanCertificate,
                TokenRefused::Wrong(_) | TokenRefused::Claims(_) => {
                    AuthenticationError::BadCredentials
                }
            }
        };
        let claims = outcome.map_err(refused)?;
        // By the wall clock, by which the issuer has set the times of the token.
        let now = Timestamp(jsonwebtoken::get_current_timestamp().saturating_mul(1_000));
        setup.claims.identity(&claims, holder, now).map_err(refused)
    }
}

/// Why a token is refused.
#[derive(Debug, thiserror::Error)]
enum TokenRefused {
    #[error("{0}")]
    Wrong(String),
    #[error("{0}")]
    Claims(String),
    #[error("the user of the token is not the one of the certificate")]
    OtherCertificate,
    #[error("the keys cannot be read now")]
    Unavailable,
}

impl Setup {
    fn read(config: &JwtConfig, former: Option<&Self>) -> Result<Self, JwtError> {
        let algorithms = config.algorithms()?;
        let mut validation = Validation::new(algorithms[0]);
        validation.leeway = config.leeway_secs.into(); // for nbf; `claims` checks exp without it
        validation.validate_nbf = true;
        // The library requires `exp` by default; here the options decide.
        validation.required_spec_claims.clear();
        if config.exp_required {
            validation.required_spec_claims.insert("exp".to_owned());
        }
        validation.validate_aud = !config.audiences.is_empty();
        for (claim, values) in [("iss", &config.issuers), ("aud", &config.audiences)] {
            if !values.is_empty() {
                validation.required_spec_claims.insert(claim.to_owned());
            }
        }
        if !config.issuers.is_empty() {
            validation.set_issuer(&config.issuers);
        }
        if !config.audiences.is_empty() {
            validation.set_audience(&config.audiences);
        }
        // The keys that were fetched last stay, as long as the place is the same.
        let kept = former.and_then(|former| former.jwks.clone());
        let jwks = Jwks::of(config, kept)?;
        Ok(Self {
            from: config.from,
            validation,
            keys: keys::read_files(config, &algorithms)?,
            algorithms,
            jwks,
            claims: ClaimRules::new(config)?,
        })
    }

    /// Returns the claims of a token, once signature and times are checked.
    async fn verify(&self, token: &[u8]) -> Result<Map<String, Value>, TokenRefused> {
        // Before it is decoded: strangers send tokens too.
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenRefused::Wrong("the token is too long".to_owned()));
        }
        let header =
            decode_header(token).map_err(|error| TokenRefused::Wrong(error.to_string()))?;
        // The algorithm is that of the configuration: the token only says which of them.
        if !self.algorithms.contains(&header.alg) {
            return Err(TokenRefused::Wrong(format!(
                "{:?} is not among the algorithms",
                header.alg
            )));
        }
        // Keys in files first, because they never wait.
        if let Some(claims) = self.verify_by(self.keys.iter(), token, &header)? {
            return Ok(claims);
        }
        let no_key = || TokenRefused::Wrong("no key has signed it".to_owned());
        let jwks = self.jwks.as_ref().ok_or_else(no_key)?;
        if let Some(claims) = self.verify_by(jwks.keys().iter(), token, &header)? {
            return Ok(claims);
        }
        // Only now, because this may ask another server.
        match jwks.look_for(&header).await {
            Lookup::Unavailable => Err(TokenRefused::Unavailable),
            Lookup::Unknown => Err(no_key()),
            Lookup::Read(keys) => self.verify_by(keys.iter(), token, &header)?.ok_or_else(no_key),
        }
    }

    /// Tries the keys that can have signed the token; `None` if none of them has.
    fn verify_by<'k>(
        &self,
        keys: impl Iterator<Item = &'k TokenKey>,
        token: &[u8],
        header: &Header,
    ) -> Result<Option<Map<String, Value>>, TokenRefused> {
        let mut validation = self.validation.clone();
        validation.algorithms = vec![header.alg];
        // Without a key name every key is a candidate, and each try costs a signature check.
        for key in keys.filter(|key| key.fits(header)).take(TRIES_MAX) {
            match decode::<Map<String, Value>>(token, key.decoding(), &validation) {
                Ok(token) => return Ok(Some(token.claims)),
                // A key of another kind, of the same family, fails in its own way.
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::InvalidSignature
                            | ErrorKind::InvalidKeyFormat
                            | ErrorKind::InvalidEcdsaKey
                            | ErrorKind::InvalidEddsaKey
                            | ErrorKind::InvalidRsaKey(_)
                    ) => {}
                Err(error) => return Err(TokenRefused::Wrong(error.to_string())),
            }
        }
        Ok(None)
    }
}

/// Returns whether a text has the form of a token: three parts, of which the first is a JSON object.
fn is_token(text: &[u8]) -> bool {
    text.starts_with(b"ey") && text.iter().filter(|byte| **byte == b'.').count() == 2
}

#[async_trait]
impl Authenticator for JwtAuthenticator {
    async fn authenticate(
        &self,
        credentials: Credentials<'_>,
    ) -> Result<Identity, AuthenticationError> {
        let Some(from) = self.0.setup.load().as_ref().map(|setup| setup.from) else {
            return Err(AuthenticationError::NotMine);
        };
        let in_connect = match from {
            TokenPlace::Password => credentials.password,
            TokenPlace::Username => credentials.username.map(str::as_bytes),
        };
        // Only a text in the form of a token is taken, so passwords reach the next source.
        let shown = credentials.bearer.or(in_connect);
        let Some(token) = shown.filter(|shown| is_token(shown)) else {
            return Err(AuthenticationError::NotMine);
        };
        self.identify(token, Holder::of(&credentials)).await
    }

    fn may_be_remembered(&self, _: &Identity) -> bool {
        true
    }

    fn generation(&self) -> u64 {
        self.0.generation.load(Ordering::Acquire)
    }

    fn standing(&self, _: &Identity, since: u64) -> Standing {
        match self.0.setup.load().is_some() {
            false => Standing::Suspended,
            true if since < self.0.lost_key_in.load(Ordering::Acquire) => Standing::Changed,
            true => Standing::Good,
        }
    }

    fn methods(&self) -> Option<Arc<dyn EnhancedAuthenticator>> {
        Some(Arc::new(self.clone()))
    }
}

impl EnhancedAuthenticator for JwtAuthenticator {
    fn knows(&self, method: &str) -> bool {
        method == JWT_METHOD && self.0.setup.load().is_some()
    }

    fn begin(&self, start: ExchangeStart<'_>) -> Box<dyn Exchange> {
        let shown = start.credentials;
        Box::new(JwtExchange {
            authenticator: self.clone(),
            client_id: shown.client_id.map(Into::into),
            username: shown.username.map(Into::into),
            certificate: shown.certificate.cloned(),
        })
    }

    fn generation(&self) -> u64 {
        Authenticator::generation(self)
    }

    fn standing(&self, identity: &Identity, since: u64) -> Standing {
        Authenticator::standing(self, identity, since)
    }
}

/// An exchange of one step: the data is a token.
struct JwtExchange {
    authenticator: JwtAuthenticator,
    client_id: Option<Box<str>>,
    username: Option<Box<str>>,
    certificate: Option<ClientCertificate>,
}

#[async_trait]
impl Exchange for JwtExchange {
    async fn step(&mut self, data: Option<&[u8]>) -> Result<Step, AuthenticationError> {
        let token = data.ok_or(AuthenticationError::BadCredentials)?;
        let holder = Holder {
            client_id: self.client_id.as_deref(),
            username: self.username.as_deref(),
            certificate: self.certificate.as_ref(),
        };
        let identity = self.authenticator.identify(token, holder).await?;
        Ok(Step::Done { identity, data: None })
    }
}

impl std::fmt::Debug for JwtAuthenticator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JwtAuthenticator").finish_non_exhaustive()
    }
}
