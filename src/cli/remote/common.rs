//! The common parts of many commands: their options, lists, and calls whose answers are written.

use clap::Args;
use serde_json::Value;

use super::{
    OutputOptions, Remote, RemoteError, RemoteOptions, query,
    table::{TextTable, write_json, write_object},
};
use crate::cli::Failure;

/// Number of items of one page.
const PAGE: usize = 1_000;

/// The broker, the account, and how results are written.
#[derive(Args)]
pub(super) struct Common {
    #[command(flatten)]
    pub(super) remote: RemoteOptions,
    #[command(flatten)]
    pub(super) output: OutputOptions,
}

impl Common {
    /// Writes all items of a list, page by page.
    pub(super) fn list(
        &self,
        path: &str,
        limit: usize,
        head: &'static [&'static str],
        row: impl Fn(&Value) -> Vec<String>,
    ) -> Result<(), Failure> {
        let remote = self.remote.remote()?;
        let (mut items, mut left, mut cursor) = (Vec::new(), limit, None);
        while left > 0 {
            let page = query(&[("cursor", cursor)]);
            let answer = remote.get(&format!("{path}?limit={}{page}", left.min(PAGE)))?;
            let found = answer["items"].as_array().cloned().unwrap_or_default();
            // At least one, so that a broker that answers
            // empty pages with a cursor cannot hold the loop.
            left = left.saturating_sub(found.len().max(1));
            if self.output.is_json() {
                found.iter().try_for_each(write_json)?;
            } else {
                items.extend(found);
            }
            cursor = answer["next"].as_str().map(str::to_owned);
            if cursor.is_none() {
                break;
            }
        }
        match self.output.is_json() {
            true => Ok(()),
            false => self.write_all(items.iter(), head, row),
        }
    }

    pub(super) fn write_all<'v>(
        &self,
        items: impl Iterator<Item = &'v Value>,
        head: &'static [&'static str],
        row: impl Fn(&Value) -> Vec<String>,
    ) -> Result<(), Failure> {
        if self.output.is_json() {
            for item in items {
                write_json(item)?;
            }
            return Ok(());
        }
        let mut table = TextTable::new(head);
        items.for_each(|item| table.add(row(item)));
        Ok(table.write()?)
    }

    /// Makes a call and writes its answer.
    pub(super) fn make(
        &self,
        method: &str,
        target: &str,
        body: Option<&Value>,
    ) -> Result<(), Failure> {
        let answer = ask(&self.remote.remote()?, method, target, body)?;
        match self.output.is_json() {
            true => write_json(&answer)?,
            false => write_object(&answer)?,
        }
        Ok(())
    }
}

/// Makes a call with a JSON body.
pub(super) fn ask(
    remote: &Remote,
    method: &str,
    target: &str,
    body: Option<&Value>,
) -> Result<Value, RemoteError> {
    remote.ask(method, target, body.map(|body| ("application/json", body.to_string().into_bytes())))
}
