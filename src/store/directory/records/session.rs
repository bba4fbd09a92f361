//! The encoding of a session's own record.
//!
//! Knows nothing of the other records of a session. Called by the store, with those of `records`.

use super::{
    super::bytes::{Flags, RecordReader, RecordWriter},
    VERSION,
};
use crate::journal::{CertificateRecord, LoginKind, LoginRecord, QueuePlace, SessionRecord};

const USERNAME: u8 = 1 << 0;
const ENDS_AT: u8 = 1 << 1;
const IS_CONNECTED: u8 = 1 << 2;
const CERTIFICATE: u8 = 1 << 3;
const METHOD: u8 = 1 << 4;
const NEEDS_ACCOUNT: u8 = 1 << 5;
const SOURCE: u8 = 1 << 6;
const ATTRIBUTES: u8 = 1 << 7;

/// Of a session that says how its client logged in. Without that it is written as before.
const VERSION_WITH_LOGIN: u8 = 2;
/// Of a session whose login has a source or attributes. Without these it is written as before.
const VERSION_WITH_SOURCE: u8 = 3;
/// Of a session whose login has a second byte of flags, after its attributes, and what these announce.
/// Without these it is written as before.
const VERSION_WITH_MORE: u8 = 4;

/// In the second byte.
const GROUPS: u8 = 1 << 0;
const CREDENTIAL: u8 = 1 << 1;
const RULES: u8 = 1 << 2;
const RULES_EXPIRE: u8 = 1 << 3;

pub(in crate::store::directory) fn encode_session(record: &SessionRecord) -> Vec<u8> {
    let SessionRecord {
        client_id,
        username,
        expiry_interval_secs,
        ends_at,
        is_connected,
        doubtful_up_to,
        peer,
        connected_at,
        login,
    } = record;
    let mut writer = RecordWriter::with_capacity(64 + client_id.len() + peer.len());
    let is_so = |is_so: fn(&LoginRecord) -> bool| login.as_ref().is_some_and(is_so);
    let has_source = is_so(|login| login.source.is_some());
    let has_attributes = is_so(|login| !login.attributes.is_empty());
    // The lowest version that has all parts of this record.
    let more = login.as_ref().map_or(Flags(0), more_of);
    // Older programs can read a record that has none of the later parts.
    writer.byte(match login {
        _ if more.0 != 0 => VERSION_WITH_MORE,
        _ if has_source || has_attributes => VERSION_WITH_SOURCE,
        Some(_) => VERSION_WITH_LOGIN,
        None => VERSION,
    });
    // The flags tell a reader which of the optional parts follow.
    let flags = Flags(0)
        .with(USERNAME, username.is_some())
        .with(ENDS_AT, ends_at.is_some())
        .with(IS_CONNECTED, *is_connected)
        .with(CERTIFICATE, is_so(|login| login.certificate.is_some()))
        .with(METHOD, is_so(|login| login.method.is_some()))
        .with(NEEDS_ACCOUNT, is_so(|login| login.needs_account))
        .with(SOURCE, has_source)
        .with(ATTRIBUTES, has_attributes);
    writer.byte(flags.0);
    writer.binary(client_id.as_bytes());
    if let Some(username) = username {
        writer.binary(username.as_bytes());
    }
    writer.number((*expiry_interval_secs).into());
    if let Some(at) = ends_at {
        writer.time(*at);
    }
    writer.number(doubtful_up_to.0);
    writer.binary(peer.as_bytes());
    writer.time(*connected_at);
    if let Some(login) = login {
        put_login(&mut writer, login);
        if more.0 != 0 {
            put_more(&mut writer, login, more);
        }
    }
    writer.into_bytes()
}

fn put_login(writer: &mut RecordWriter, login: &LoginRecord) {
    let LoginRecord { kind, method, listener, certificate, source, attributes, .. } = login;
    // The position in the list is the code, so the list may only grow.
    let kind = LoginKind::ALL.iter().position(|one| one == kind).unwrap_or_default();
    writer.byte(kind as u8);
    writer.binary(listener.as_bytes());
    if let Some(method) = method {
        writer.binary(method.as_bytes());
    }
    if let Some(CertificateRecord { common_name, serial_number }) = certificate {
        writer.binary(common_name.as_bytes());
        writer.binary(serial_number.as_bytes());
    }
    if let Some(source) = source {
        writer.binary(source.as_bytes());
    }
    if !attributes.is_empty() {
        writer.number(attributes.len() as u64);
        for text in attributes.iter().flat_map(|(name, value)| [name, value]) {
            writer.binary(text.as_bytes());
        }
    }
}

/// Returns the second byte of flags.
fn more_of(login: &LoginRecord) -> Flags {
    Flags(0)
        .with(GROUPS, !login.groups.is_empty())
        .with(CREDENTIAL, login.credential.is_some())
        .with(RULES, login.rules.is_some())
        .with(RULES_EXPIRE, login.rules_expire_at.is_some())
}

fn put_more(writer: &mut RecordWriter, login: &LoginRecord, more: Flags) {
    writer.byte(more.0);
    if !login.groups.is_empty() {
        writer.number(login.groups.len() as u64);
        login.groups.iter().for_each(|name| writer.binary(name.as_bytes()));
    }
    if let Some(credential) = login.credential {
        writer.number(credential);
    }
    if let Some(rules) = &login.rules {
        writer.binary(rules.as_bytes());
    }
    if let Some(at) = login.rules_expire_at {
        writer.time(at);
    }
}

fn take_login(reader: &mut RecordReader<'_>, flags: Flags, has_more: bool) -> Option<LoginRecord> {
    // The fields come in the order of `put_login`, and then of `put_more`.
    let kind = *LoginKind::ALL.get(usize::from(reader.byte()?))?;
    let listener = reader.text()?.into();
    let method = if flags.has(METHOD) { Some(reader.text()?.into()) } else { None };
    let certificate = if flags.has(CERTIFICATE) {
        let (common_name, serial_number) = (reader.text()?.into(), reader.text()?.into());
        Some(CertificateRecord { common_name, serial_number })
    } else {
        None
    };
    let needs_account = flags.has(NEEDS_ACCOUNT);
    let source = if flags.has(SOURCE) { Some(reader.text()?.into()) } else { None };
    let count = if flags.has(ATTRIBUTES) { reader.length()? } else { 0 };
    // Collected one by one, because a corrupt count must not allocate memory.
    let attributes = (0..count).map(|_| Some((reader.text()?.into(), reader.text()?.into())));
    let attributes = attributes.collect::<Option<_>>()?;
    let more = GROUPS | CREDENTIAL | RULES | RULES_EXPIRE;
    // A flag of a later format makes the record unreadable rather than misread.
    let more = if has_more { Flags(reader.byte()?).known(more)? } else { Flags(0) };
    let count = if more.has(GROUPS) { reader.length()? } else { 0 };
    let groups = (0..count).map(|_| Some(reader.text()?.into())).collect::<Option<_>>()?;
    let credential = if more.has(CREDENTIAL) { Some(reader.number()?) } else { None };
    let rules = if more.has(RULES) { Some(reader.text()?.into()) } else { None };
    let rules_expire_at = if more.has(RULES_EXPIRE) { Some(reader.time()?) } else { None };
    Some(LoginRecord {
        kind,
        method,
        listener,
        certificate,
        needs_account,
        source,
        attributes,
        groups,
        credential,
        rules,
        rules_expire_at,
    })
}

pub(in crate::store::directory) fn decode_session(bytes: &[u8]) -> Option<SessionRecord> {
    let mut reader = RecordReader::new(bytes);
    let of_login = CERTIFICATE | METHOD | NEEDS_ACCOUNT;
    let version = reader.byte()?;
    // Each version allows its own flags; others mean that the record is damaged.
    let (has_login, of_login) = match version {
        VERSION => (false, 0),
        VERSION_WITH_LOGIN => (true, of_login),
        VERSION_WITH_SOURCE | VERSION_WITH_MORE => (true, of_login | SOURCE | ATTRIBUTES),
        _ => return None,
    };
    let known = USERNAME | ENDS_AT | IS_CONNECTED;
    let flags = Flags(reader.byte()?).known(known | of_login)?;
    let record = SessionRecord {
        client_id: reader.text()?.into(),
        username: if flags.has(USERNAME) { Some(reader.text()?.into()) } else { None },
        expiry_interval_secs: reader.number_u32()?,
        ends_at: if flags.has(ENDS_AT) { Some(reader.time()?) } else { None },
        is_connected: flags.has(IS_CONNECTED),
        doubtful_up_to: QueuePlace(reader.number()?),
        peer: reader.text()?.into(),
        connected_at: reader.time()?,
        login: match has_login {
            true => Some(take_login(&mut reader, flags, version == VERSION_WITH_MORE)?),
            false => None,
        },
    };
    // Bytes that are left over mean that the record is of another format.
    reader.end(record)
}
