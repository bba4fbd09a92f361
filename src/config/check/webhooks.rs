//! Checks of `[[webhook]]`, without the files that it names.

use std::collections::HashSet;

use crate::{
    config::{Config, problem::Problem, webhooks::Fault},
    webhooks::{WebhookError, WebhookSecret},
};

/// Stands for the secret in a file, which this check does not read.
const ANY_SECRET: &str = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz";

pub(super) fn check(config: &Config) -> Result<(), Problem> {
    let mut names = HashSet::new();
    for (number, webhook) in config.webhook.iter().enumerate() {
        let problem = |(option, why): Fault| {
            Problem::new(
                &[&format!("webhook.{number}.{option}"), "webhook"],
                format!("{option} of a [[webhook]]: {why}"),
                "see `hearthmq example-config`",
            )
        };
        let mut secrets = webhook.inline_secrets().map_err(problem)?;
        for _ in &webhook.secret_files {
            // Stands for the secret of a file, which is not
            // read here, so that their number is right.
            secrets.extend(ANY_SECRET.parse::<WebhookSecret>());
        }
        webhook.with_secrets(secrets).map(drop).map_err(problem)?;
        if !names.insert(&webhook.name) {
            let why = WebhookError::Repeated(webhook.name.clone()).to_string();
            return Err(problem(("name", why)));
        }
    }
    Ok(())
}
