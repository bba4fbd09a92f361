//! The encoding of the records of namespaces. Reading is total, as in `records.rs`.

use bytes::Bytes;

use super::bytes::{Flags, RecordReader, RecordWriter};
use crate::journal::{Record, Revision};

const VERSION: u8 = 1;

const EXPIRES_AT: u8 = 1 << 0;

pub(super) fn encode(record: &Record) -> Vec<u8> {
    let Record { revision, value, expires_at } = record;
    let mut writer = RecordWriter::with_capacity(22 + value.len());
    writer.byte(VERSION);
    writer.byte(Flags(0).with(EXPIRES_AT, expires_at.is_some()).0);
    writer.number(revision.0);
    if let Some(at) = expires_at {
        writer.time(*at);
    }
    writer.rest(value);
    writer.into_bytes()
}

pub(super) fn decode(bytes: &[u8]) -> Option<Record> {
    let mut reader = RecordReader::new(bytes);
    if reader.byte()? != VERSION {
        return None;
    }
    let flags = Flags(reader.byte()?).known(EXPIRES_AT)?;
    let revision = Revision(reader.number()?);
    let expires_at = if flags.has(EXPIRES_AT) { Some(reader.time()?) } else { None };
    Some(Record { revision, value: Bytes::copy_from_slice(reader.rest()), expires_at })
}
