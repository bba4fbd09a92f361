//! Loads configurations, policies, accounts and JSON of the documents with the program's own
//! parsers.

use std::{fs, path::Path};

use hearthmq::{
    auth::{Accounts, FilePolicy},
    config::Config,
};
use serde_json::Value;

use super::blocks::Block;

/// Loads a block as a policy, as accounts, or else as a configuration.
pub(crate) fn check_toml(block: &Block) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file.toml");
    fs::write(&file, &block.text).unwrap();
    let fault = if block.text.contains("[[rules]]") {
        FilePolicy::open(&file).err().map(|error| error.to_string())
    } else if block.text.contains("[[users]]") {
        let accounts = Accounts::parse(Path::new("users.toml"), &block.text);
        accounts.err().map(|error| error.to_string())
    } else {
        let nothing = Vec::<(String, String)>::new();
        Config::load(Some(&file), nothing, &[]).err().map(|error| error.to_string())
    };
    assert_eq!(fault, None, "{block}");
}

/// Returns the JSON values in a text, in order.
pub(crate) fn values(block: &Block, text: &str) -> Vec<Value> {
    let values = serde_json::Deserializer::from_str(text).into_iter();
    let values: Result<Vec<Value>, _> = values.collect();
    values.unwrap_or_else(|error| panic!("{block}: {error} in {text}"))
}
