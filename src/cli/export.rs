//! Exports a store as lines of JSON: all that `import` needs to build the store again.
//!
//! A line is an object with a `kind`: `bounds`, `session`, `queued`, `retained`, `login`,
//! `record` or `history`. The last line, of the kind `end`, has the number of the lines before it, so that a part
//! of an export is not mistaken for a whole one. Payloads, properties and values of records are in base64, times in milliseconds since the Unix epoch.

use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::BuildHasher as _,
    io::{self, Write},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hearthmq::{
    mqtt::Message,
    store::{
        ClientHistory, ConnectionRecord, LoginRecord, Owner, PageBounds, QueuePlace, QueuedMessage,
        Record, RecordKey, SentAs, SessionNumber, StoreSnapshot, StoredRetained, StoredSession,
        SubscriptionRecord, WillRecord,
    },
};
use serde_json::{Map, Value, json};

use super::Failure;

/// How much of a queue is in memory at a time.
const PAGE: PageBounds = PageBounds { messages_max: 1_000, bytes_max: 4 << 20 };

/// Writes the contents of `store` and the last line; returns the number of lines before that.
pub(super) fn export(store: &StoreSnapshot, output: &mut dyn Write) -> Result<u64, Failure> {
    let mut lines = LineWriter { output, count: 0 };
    let output = &mut lines;
    // First the numbers that are taken: an import must not give them out again.
    let bounds = store.bounds()?;
    let bounds = json!({
        "kind": "bounds",
        "presence_version": bounds.versions,
        "session": bounds.session,
        "message": bounds.message,
        "clock": bounds.clock.millis(),
        "revision": bounds.revision.0,
    });
    line(output, &bounds)?;
    let mut numbers = Vec::new();
    // By a hash, because there may be a million: a false alarm does no harm.
    let mut clients = HashMap::new();
    let hasher = RandomState::new();
    // The store cannot be stopped while it lists, so
    // the first error is kept and returned afterwards.
    let mut written = Ok(());
    store.sessions(&mut |session| {
        numbers.push(session.number);
        let client = hasher.hash_one(&*session.record.client_id);
        let replaces = clients.insert(client, session.number);
        if written.is_ok() {
            written = line(output, &of_session(&session, replaces));
        }
    })?;
    written?;
    // Queues after all sessions: an import knows the session of each message then.
    for number in numbers {
        export_queue(store, number, output)?;
    }
    let mut written = Ok(());
    store.retained(&mut |StoredRetained { message, owner }| {
        if written.is_ok() {
            let (message, owner) = (of_message(&message), owner.as_ref().map(of_owner));
            let retained = json!({ "kind": "retained", "message": message, "owner": owner });
            written = line(output, &retained);
        }
    })?;
    written?;
    let mut written = Ok(());
    store.logins(&mut |key, at| {
        if written.is_ok() {
            let login = json!({ "kind": "login", "key": STANDARD.encode(key), "at": at.millis() });
            written = line(output, &login);
        }
    })?;
    written?;
    let mut written = Ok(());
    store.records(&mut |name, record| {
        if written.is_ok() {
            written = line(output, &of_record(&name, &record));
        }
    })?;
    written?;
    let mut written = Ok(());
    store.histories(&mut |history| {
        if written.is_ok() {
            written = line(output, &of_history(&history));
        }
    })?;
    written?;
    // Without this line, an export that was cut off could be taken for a whole one.
    let count = output.count;
    line(output, &json!({ "kind": "end", "lines": count }))?;
    output.output.flush()?;
    Ok(count)
}

/// The output, and the number of lines written to it.
struct LineWriter<'o> {
    output: &'o mut dyn Write,
    count: u64,
}

fn export_queue(
    store: &StoreSnapshot,
    session: SessionNumber,
    output: &mut LineWriter<'_>,
) -> Result<(), Failure> {
    // Before the waiting ones, in the order in which the session would send them again.
    for entry in store.in_flight(session)? {
        line(output, &of_queued(session, entry.place, Some(entry.sent), entry.message.as_ref()))?;
    }
    let mut from = Some(QueuePlace(0));
    while let Some(place) = from {
        // Page by page, because a queue may be larger than the memory of this command.
        let page = store.waiting(session, place, PAGE)?;
        for (place, queued) in &page {
            line(output, &of_queued(session, *place, None, Some(queued)))?;
        }
        from = page.last().and_then(|(last, _)| last.0.checked_add(1)).map(QueuePlace);
    }
    Ok(())
}

fn line(lines: &mut LineWriter<'_>, value: &Value) -> io::Result<()> {
    lines.count += 1;
    writeln!(lines.output, "{value}")
}

/// Returns the line of a session. If the snapshot was taken while the client got a new session, the
/// former one, which the new one replaces, may still be there.
fn of_session(session: &StoredSession, replaces: Option<SessionNumber>) -> Value {
    let record = &session.record;
    let subscriptions = session.subscriptions.iter();
    let accepted = session.accepted.iter().map(|packet_id| packet_id.number());
    json!({
        "kind": "session",
        "session": session.number.0,
        "client_id": record.client_id,
        "replaces": replaces.map(|former| former.0),
        "username": record.username,
        "expiry_interval_secs": record.expiry_interval_secs,
        "ends_at": record.ends_at.map(|at| at.millis()),
        "is_connected": record.is_connected,
        "doubtful_up_to": record.doubtful_up_to.0,
        "peer": record.peer,
        "connected_at": record.connected_at.millis(),
        "login": record.login.as_ref().map(of_login),
        "subscriptions": subscriptions.map(of_subscription).collect::<Vec<_>>(),
        "accepted": accepted.collect::<Vec<_>>(),
        "will": session.will.as_ref().map(of_will),
    })
}

fn of_login(login: &LoginRecord) -> Value {
    let attributes = login.attributes.iter().map(|(name, value)| (name.to_string(), json!(value)));
    let attributes: Map<String, Value> = attributes.collect();
    json!({
        "kind": login.kind.name(),
        "method": login.method,
        "listener": login.listener,
        "common_name": login.certificate.as_ref().map(|shown| &shown.common_name),
        "serial_number": login.certificate.as_ref().map(|shown| &shown.serial_number),
        "needs_account": login.needs_account,
        "source": login.source,
        "attributes": attributes,
        "groups": login.groups,
        "credential": login.credential,
        "rules": login.rules,
        "rules_expire_at": login.rules_expire_at.map(|at| at.millis()),
    })
}

fn of_subscription((filter, record): &(Box<str>, SubscriptionRecord)) -> Value {
    json!({
        "filter": filter,
        "qos": record.options.qos.number(),
        "no_local": record.options.no_local,
        "retain_as_published": record.options.retain_as_published,
        "retain_handling": record.options.retain_handling as u8,
        "identifier": record.identifier,
        "is_withdrawn": record.is_withdrawn,
    })
}

fn of_will(will: &WillRecord) -> Value {
    json!({
        "message": of_message(&will.message),
        "delay_secs": will.delay_secs,
        "expiry_secs": will.expiry_secs,
        "due_at": will.due_at.map(|at| at.millis()),
    })
}

/// Returns the line of a place in a queue. A place without a message has received its PUBREC.
fn of_queued(
    session: SessionNumber,
    place: QueuePlace,
    sent: Option<SentAs>,
    queued: Option<&QueuedMessage>,
) -> Value {
    json!({
        "kind": "queued",
        "session": session.0,
        "place": place.0,
        "packet_id": sent.map(|sent| sent.packet_id.number()),
        "order": sent.map(|sent| sent.order),
        "qos": queued.map(|queued| queued.qos.number()),
        "retain": queued.map(|queued| queued.retain),
        "identifiers": queued.map(|queued| queued.identifiers.as_deref()),
        "share": queued.map(|queued| queued.share.as_deref()),
        "message": queued.map(|queued| of_message(&queued.message)),
    })
}

fn of_record(name: &RecordKey, record: &Record) -> Value {
    json!({
        "kind": "record",
        "namespace": name.namespace(),
        "key": name.key(),
        "revision": record.revision.0,
        "expires_at": record.expires_at.map(|at| at.millis()),
        "value": STANDARD.encode(&record.value),
    })
}

fn of_history(history: &ClientHistory) -> Value {
    let connections: Vec<_> = history.connections.iter().map(of_connection).collect();
    json!({ "kind": "history", "client_id": history.client_id, "connections": connections })
}

fn of_connection(connection: &ConnectionRecord) -> Value {
    let end = connection.end.as_ref();
    json!({
        "version": connection.version,
        "connected_at": connection.connected_at.millis(),
        "peer": connection.peer,
        "listener": connection.listener,
        "username": connection.username,
        "protocol": connection.protocol,
        "ended_at": end.map(|end| end.at.millis()),
        "reason": end.map(|end| &end.reason),
        "by": end.and_then(|end| end.by.as_ref()),
    })
}

fn of_owner(owner: &Owner) -> Value {
    match owner {
        Owner::User(name) => json!({ "user": name }),
        Owner::Address(address) => json!({ "address": address.to_string() }),
    }
}

fn of_message(message: &Message) -> Value {
    let publication = message.publication();
    json!({
        "number": message.number(),
        "topic": publication.topic,
        "qos": publication.qos.number(),
        "retain": publication.retain,
        "properties": STANDARD.encode(publication.properties),
        "expires_at": publication.expires_at.map(|at| at.millis()),
        "received_at": message.received_at().map(|at| at.millis()),
        "payload": STANDARD.encode(publication.payload),
    })
}
