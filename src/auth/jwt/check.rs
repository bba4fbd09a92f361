//! Checks the options of tokens, alone and together.
//!
//! Reads no file and calls no service. Called by the check of the configuration.

use super::{
    claims::ClaimRules,
    jwks,
    options::{JwtConfig, JwtError, is_hmac},
};

impl JwtConfig {
    /// Checks the options, without the files that they name.
    ///
    /// # Errors
    /// The first option that is invalid.
    pub fn check(&self) -> Result<(), JwtError> {
        if !self.is_used() {
            return Ok(());
        }
        let algorithms = self.algorithms()?;
        let has_hmac = algorithms.iter().any(|one| is_hmac(*one));
        let has_others = algorithms.iter().any(|one| !is_hmac(*one));
        // An unused secret is a mistake: the operator believes that its tokens are accepted.
        if !self.secrets.is_empty() && !has_hmac {
            return Err(JwtError::of("secrets", "no algorithm uses them; add \"HS256\""));
        }
        if !self.keys.is_empty() && !has_others {
            return Err(JwtError::of("keys", "no algorithm uses them; add \"ES256\" or \"RS256\""));
        }
        jwks::check_place(self)?;
        ClaimRules::new(self).map(drop)
    }
}
