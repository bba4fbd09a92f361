//! `[auth.postgres]`: the database and the queries.

use std::{io, net::IpAddr, path::PathBuf};

use serde::{Deserialize, Serialize};
use tokio_postgres::config::{Host, SslMode};

use crate::auth::HiddenText;

/// The PostgreSQL database that is asked about clients. Without a URL, no database is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PostgresConfig {
    /// `postgresql://USER@HOST/DATABASE?sslmode=require`, or the `key=value` form of libpq.
    pub url: HiddenText,
    /// A file with the password of the database user; empty = it is in the URL, or none is needed.
    pub password_file: PathBuf,
    /// A PEM file of the certification authorities that are trusted for the database; empty = those of
    /// the system.
    pub ca: PathBuf,
    /// Whether a database on another machine may be reached without TLS.
    pub allow_plaintext: bool,
    /// The query for the password hash of a user.
    pub query: String,
    /// The query for the rules of a user; empty = none.
    pub rules_query: String,
    /// Maximum number of connections to the database.
    pub connections_max: u16,
    /// Milliseconds that a login may wait for the database, in all.
    pub timeout_ms: u32,
    /// Seconds after which a connected client is looked up again; 0 = never.
    pub refresh_secs: u32,
}

impl Default for PostgresConfig {
    fn default() -> Self {
        Self {
            url: HiddenText::default(),
            password_file: PathBuf::new(),
            ca: PathBuf::new(),
            allow_plaintext: false,
            query: String::new(),
            rules_query: String::new(),
            connections_max: 8,
            timeout_ms: 2_000,
            refresh_secs: 300,
        }
    }
}

/// Why the database cannot be asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PostgresError {
    /// An option is invalid.
    #[error("auth.postgres.{option}: {why}")]
    Option {
        /// The name of the option.
        option: &'static str,
        /// The fault, and its remedy.
        why: String,
    },
    /// A file cannot be read.
    #[error("auth.postgres.{option}: {}: cannot be read: {source}", path.display())]
    Unreadable {
        /// The name of the option.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
}

impl PostgresError {
    pub(super) fn of(option: &'static str, why: impl Into<String>) -> Self {
        Self::Option { option, why: why.into() }
    }
}

impl PostgresConfig {
    /// Returns whether there is a database.
    #[must_use]
    pub fn is_used(&self) -> bool {
        !self.url.as_str().is_empty()
    }

    /// Checks the options, without the files that they name.
    ///
    /// # Errors
    /// The first option that is invalid.
    pub fn check(&self) -> Result<(), PostgresError> {
        if self.is_used() { self.database().map(drop) } else { Ok(()) }
    }

    /// Returns how to connect, without the password of the file.
    pub(super) fn database(&self) -> Result<tokio_postgres::Config, PostgresError> {
        let database = self.url.as_str().parse::<tokio_postgres::Config>();
        // The error of the parser may quote the password.
        let database = database.map_err(|_| {
            PostgresError::of(
                "url",
                "write postgresql://USER@HOST/DATABASE?sslmode=require; that mode checks the certificate \
                 with its name, as verify-full of libpq does, and the authorities are in the option ca",
            )
        })?;
        if database.get_hosts().is_empty() && database.get_hostaddrs().is_empty() {
            return Err(PostgresError::of(
                "url",
                "it names no host; write localhost for this machine",
            ));
        }
        if self.query.trim().is_empty() {
            return Err(PostgresError::of(
                "query",
                "it is missing, so nobody could log in; write for example \"SELECT password_hash FROM \
                 mqtt_users WHERE username = $1\"",
            ));
        }
        let is_encrypted = is_encrypted(&database);
        if !is_encrypted && !self.ca.as_os_str().is_empty() {
            return Err(PostgresError::of("ca", "it is for TLS; write sslmode=require in url"));
        }
        // Rules come over this connection: an attacker that changes them may do everything.
        if !is_encrypted && !self.allow_plaintext && !is_local(&database) {
            return Err(PostgresError::of(
                "url",
                "hashes and rules can be changed on the way to another machine: write sslmode=require, or \
                 set allow_plaintext",
            ));
        }
        Ok(database)
    }
}

/// Returns whether the connection always has TLS. In the other modes of libpq, an attacker on the way can turn it
/// off by answering that the server has none.
pub(super) fn is_encrypted(database: &tokio_postgres::Config) -> bool {
    database.get_ssl_mode() == SslMode::Require
}

/// Returns whether the database is on this machine. An address counts before the name beside it.
fn is_local(database: &tokio_postgres::Config) -> bool {
    let is_loopback = |address: &IpAddr| address.to_canonical().is_loopback();
    let is_here = |host: &Host| match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            name == "localhost" || name.parse().is_ok_and(|address| is_loopback(&address))
        }
    };
    match database.get_hostaddrs() {
        [] => database.get_hosts().iter().all(is_here),
        addresses => addresses.iter().all(is_loopback),
    }
}
