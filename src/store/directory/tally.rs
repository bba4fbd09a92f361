//! Counts the queues that contain each numbered message. The message is stored once with this count
//! and removed when the count reaches zero.
//!
//! The differences within a group are added up first, so a message is counted once in a group,
//! however many queues it goes to. Knows messages and counts, not queues.

use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::{
    database::{Database, Writes},
    keys::{self, Space},
    records,
};
use crate::{mqtt::Message, store::StoreError};

pub(super) struct Tally<'a> {
    changes: HashMap<u64, CountChange<'a>, RandomState>,
    /// The highest message number in the store before the group.
    highest_before: u64,
    highest: u64,
}

#[derive(Default)]
struct CountChange<'a> {
    difference: i64,
    /// The message, if a queue has received it in this group.
    message: Option<&'a Arc<Message>>,
}

impl<'a> Tally<'a> {
    pub(super) fn new(highest: u64) -> Self {
        Self { changes: HashMap::default(), highest_before: highest, highest }
    }

    /// Counts one more queue with the message.
    pub(super) fn add(&mut self, message: &'a Arc<Message>) {
        self.note(message);
        if let Some(number) = message.number() {
            let change = self.changes.entry(number.get()).or_default();
            change.difference += 1;
            change.message = Some(message);
        }
    }

    /// Counts one queue less with the message.
    pub(super) fn subtract(&mut self, number: u64) {
        self.changes.entry(number).or_default().difference -= 1;
    }

    /// Marks the number of a stored message as used, queued or not.
    pub(super) fn note(&mut self, message: &Message) {
        self.highest = self.highest.max(message.number().map_or(0, |number| number.get()));
    }

    pub(super) const fn highest(&self) -> u64 {
        self.highest
    }

    pub(super) fn write(self, database: &Database, writes: &mut Writes) -> Result<(), StoreError> {
        for (number, change) in self.changes {
            // Queued and removed in one group: the store never sees the message.
            if change.difference == 0 {
                continue; // the count is unchanged
            }
            let key = keys::message(number);
            // A new number cannot be in the store, so it is not looked up.
            let before = match number > self.highest_before {
                true => None,
                false => database.read(Space::Counts, &key)?,
            };
            let count = before.as_ref().map(|count| {
                let count = records::decode_number(count);
                count.ok_or_else(|| database.damaged("the count of a message cannot be read"))
            });
            let count = count.transpose()?.unwrap_or(0);
            // A count below zero would mean damage; it must not wrap around.
            let now = count.saturating_add_signed(change.difference);
            let record = (now > 0).then(|| records::encode_number(now));
            if record.is_some() || before.is_some() {
                writes.insert((Space::Counts, key.to_vec()), record);
            }
            // The content is written with the first reference, and removed with the last.
            match change.message {
                Some(message) if count == 0 && now > 0 => {
                    let record = records::encode_message(message);
                    writes.insert((Space::Messages, key.to_vec()), Some(record));
                }
                _ if now == 0 && count > 0 => {
                    writes.insert((Space::Messages, key.to_vec()), None);
                }
                _ => {}
            }
        }
        Ok(())
    }
}
