//! The encoding of the history of a client. Reading is total, as in `records.rs`.

use std::net::{IpAddr, SocketAddr};

use super::bytes::{Flags, RecordReader, RecordWriter};
use crate::{
    history::{ClientHistory, ConnectionEnd, ConnectionRecord},
    mqtt::Timestamp,
};

/// The version of rings that are counted for their owners. Others are from before format 7, and are
/// counted when they are written again.
const VERSION: u8 = 2;
const VERSION_UNCOUNTED: u8 = 1;

const USERNAME: u8 = 1 << 0;
const END: u8 = 1 << 1;
const BY: u8 = 1 << 2;
/// The listener is that of the connection before.
const SAME_LISTENER: u8 = 1 << 3;
const KNOWN: u8 = USERNAME | END | BY | SAME_LISTENER;

/// Bytes of a usual connection.
const USUAL_BYTES: usize = 72;

pub(super) fn encode(ring: &ClientHistory) -> Vec<u8> {
    let ClientHistory { client_id, connections } = ring;
    let capacity = 8 + client_id.len() + USUAL_BYTES * connections.len();
    let mut writer = RecordWriter::with_capacity(capacity);
    writer.byte(VERSION);
    writer.binary(client_id.as_bytes());
    writer.number(connections.len() as u64);
    // Connections of a client mostly have one listener, which is written once.
    let mut listener = None;
    for connection in connections {
        encode_connection(&mut writer, connection, listener);
        listener = Some(&*connection.listener);
    }
    writer.into_bytes()
}

fn encode_connection(
    writer: &mut RecordWriter,
    connection: &ConnectionRecord,
    listener_before: Option<&str>,
) {
    let ConnectionRecord { version, connected_at, peer, listener, username, protocol, end } =
        connection;
    let by = end.as_ref().and_then(|end| end.by.as_deref());
    let is_same = listener_before == Some(&**listener);
    // The flags tell a reader which of the fields below follow.
    let flags = Flags(0)
        .with(USERNAME, username.is_some())
        .with(END, end.is_some())
        .with(BY, by.is_some())
        .with(SAME_LISTENER, is_same);
    writer.byte(flags.0);
    writer.byte(*protocol);
    writer.number(*version);
    writer.time(*connected_at);
    // Four or sixteen bytes: the length tells the reader the kind of address.
    match peer.ip() {
        IpAddr::V4(address) => writer.binary(&address.octets()),
        IpAddr::V6(address) => writer.binary(&address.octets()),
    }
    writer.number(peer.port().into());
    if !is_same {
        writer.binary(listener.as_bytes());
    }
    if let Some(username) = username {
        writer.binary(username.as_bytes());
    }
    if let Some(ConnectionEnd { at, reason, .. }) = end {
        writer.time(*at);
        writer.binary(reason.as_bytes());
    }
    if let Some(by) = by {
        writer.binary(by.as_bytes());
    }
}

/// Returns whether the ring is counted for its owner.
pub(super) fn is_counted(bytes: &[u8]) -> bool {
    bytes.first() == Some(&VERSION)
}

pub(super) fn decode(bytes: &[u8]) -> Option<ClientHistory> {
    let mut reader = RecordReader::new(bytes);
    if ![VERSION, VERSION_UNCOUNTED].contains(&reader.byte()?) {
        return None;
    }
    let mut ring = ClientHistory::new(reader.text()?.into());
    // Each connection has at least ten bytes, so a wrong number ends with the bytes.
    for _ in 0..reader.length()? {
        let connection = decode_connection(&mut reader, ring.connections.last())?;
        ring.connections.push(connection);
    }
    reader.end(ring)
}

fn decode_connection(
    reader: &mut RecordReader<'_>,
    before: Option<&ConnectionRecord>,
) -> Option<ConnectionRecord> {
    let flags = Flags(reader.byte()?).known(KNOWN)?;
    let protocol = reader.byte()?;
    let (version, connected_at) = (reader.number()?, reader.time()?);
    let address = reader.binary()?;
    // The length tells the kind of address.
    let address = match *address {
        [a, b, c, d] => IpAddr::from([a, b, c, d]),
        _ => IpAddr::from(<[u8; 16]>::try_from(address).ok()?),
    };
    let port = u16::try_from(reader.number()?).ok()?;
    let listener = match flags.has(SAME_LISTENER) {
        true => before?.listener.clone(),
        false => reader.text()?.into(),
    };
    let username = if flags.has(USERNAME) { Some(reader.text()?.into()) } else { None };
    let mut end = None;
    if flags.has(END) {
        let (at, reason): (Timestamp, _) = (reader.time()?, reader.text()?.to_owned().into());
        end = Some(ConnectionEnd { at, reason, by: None });
    }
    // An author without an end is invalid.
    if flags.has(BY) {
        end.as_mut()?.by = Some(reader.text()?.into());
    }
    let peer = SocketAddr::new(address, port);
    Some(ConnectionRecord { version, connected_at, peer, listener, username, protocol, end })
}
