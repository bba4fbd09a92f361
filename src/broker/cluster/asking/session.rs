//! Translates descriptions of clients between the types of the broker and the forms in which they travel from another
//! node.
//!
//! A value that this broker does not know, of a later version, is left out.

use std::sync::Arc;

use crate::{
    cluster::asking::form::{
        CertificateForm, EndForm, SessionForm, SettingsForm, SummaryForm, TlsForm,
    },
    control::{
        CertificateFacts, ClientSession, ClientSettings, ClientSummary, DroppedMessages, LastEnd,
        Losing, TlsFacts,
    },
    hooks::DisconnectReason,
    labels::Label as _,
    metrics::DropReason,
    mqtt::ProtocolVersion,
};

fn boxed(text: &Arc<str>) -> Box<str> {
    (**text).into()
}

const fn protocol_of(level: u8) -> Option<ProtocolVersion> {
    match level {
        3 => Some(ProtocolVersion::V3_1),
        4 => Some(ProtocolVersion::V3_1_1),
        5 => Some(ProtocolVersion::V5),
        _ => None,
    }
}

pub(super) fn summary_form(client: &ClientSummary) -> SummaryForm {
    SummaryForm {
        client_id: boxed(&client.client_id),
        online: client.online,
        username: client.username.as_ref().map(boxed),
        peer: client.peer,
        listener: boxed(&client.listener),
        protocol: client.protocol.map(ProtocolVersion::level),
        keep_alive_secs: client.keep_alive_secs,
        connected_at_millis: client.connected_at_millis,
        last_packet_at_millis: client.last_packet_at_millis,
        session_expiry_secs: client.session_expiry_secs,
        expires_at_millis: client.expires_at_millis,
        subscriptions: client.subscriptions as u64,
        queued: client.queued as u64,
        in_flight: client.in_flight as u64,
        version: client.version,
    }
}

/// Returns about how many bytes a client of a list takes on its way.
pub(super) fn summary_bytes(client: &ClientSummary) -> usize {
    let username = client.username.as_ref().map_or(0, |name| name.len());
    client.client_id.len() + username + client.listener.len() + 128
}

/// Returns a client of a list of this node.
pub(super) fn summary_of(form: SummaryForm, node: &Arc<str>) -> ClientSummary {
    ClientSummary {
        online: form.online,
        username: form.username.map(Arc::from),
        listener: form.listener.into(),
        node: Arc::clone(node),
        protocol: form.protocol.and_then(protocol_of),
        keep_alive_secs: form.keep_alive_secs,
        connected_at_millis: form.connected_at_millis,
        last_packet_at_millis: form.last_packet_at_millis,
        session_expiry_secs: form.session_expiry_secs,
        expires_at_millis: form.expires_at_millis,
        subscriptions: form.subscriptions as usize,
        queued: form.queued as usize,
        in_flight: form.in_flight as usize,
        version: form.version,
        ..ClientSummary::new(form.client_id, form.peer)
    }
}

fn summary_of_session(client: &ClientSession) -> SummaryForm {
    SummaryForm {
        client_id: boxed(&client.client_id),
        online: client.online,
        username: client.username.as_ref().map(boxed),
        peer: client.peer,
        listener: boxed(&client.listener),
        protocol: client.protocol.map(ProtocolVersion::level),
        keep_alive_secs: Some(client.keep_alive_secs),
        connected_at_millis: client.connected_at_millis,
        last_packet_at_millis: client.last_packet_at_millis,
        session_expiry_secs: client.session_expiry_secs,
        expires_at_millis: client.expires_at_millis,
        subscriptions: client.subscriptions as u64,
        queued: client.queued as u64,
        in_flight: client.in_flight as u64,
        version: client.version,
    }
}

pub(super) fn session_form(client: &ClientSession) -> SessionForm {
    let settings = [&client.settings, &client.sticky_settings, &client.user_settings];
    SessionForm {
        summary: summary_of_session(client),
        tls: client.tls.as_ref().map(tls_form),
        asked_keep_alive_secs: client.asked_keep_alive_secs,
        keep_alive_changed_by: client.keep_alive_changed_by.as_ref().map(boxed),
        keep_alive_changed_at_millis: client.keep_alive_changed_at_millis,
        deadline_millis: client.deadline_millis,
        queued_bytes: client.queued_bytes as u64,
        in_flight_bytes: client.in_flight_bytes as u64,
        in_flight_max: client.in_flight_max,
        oldest_waiting_millis: client.oldest_waiting_millis,
        dropped: client.dropped.iter().map(|it| (it.reason.name().into(), it.messages)).collect(),
        losing: client.losing.map(|losing| (losing.messages, losing.since_millis)),
        last_end: client.last_end.as_ref().map(|end| EndForm {
            reason: end.reason.name().into(),
            at_millis: end.at_millis,
            by: end.by.as_ref().map(boxed),
        }),
        settings: settings.map(settings_form),
    }
}

/// Returns the description of a client of this node.
pub(super) fn session_of(form: SessionForm, node: Arc<str>) -> ClientSession {
    let summary = form.summary;
    let dropped = form.dropped.iter().filter_map(|(name, messages)| {
        let reason = DropReason::ALL.iter().find(|reason| reason.name() == &**name)?;
        Some(DroppedMessages::new(*reason, *messages))
    });
    let [settings, sticky_settings, user_settings] = form.settings.map(|it| settings_of(&it));
    ClientSession {
        online: summary.online,
        username: summary.username.map(Arc::from),
        listener: summary.listener.into(),
        node,
        protocol: summary.protocol.and_then(protocol_of),
        tls: form.tls.and_then(tls_of),
        connected_at_millis: summary.connected_at_millis,
        last_packet_at_millis: summary.last_packet_at_millis,
        keep_alive_secs: summary.keep_alive_secs.unwrap_or_default(),
        asked_keep_alive_secs: form.asked_keep_alive_secs,
        keep_alive_changed_by: form.keep_alive_changed_by.map(Arc::from),
        keep_alive_changed_at_millis: form.keep_alive_changed_at_millis,
        deadline_millis: form.deadline_millis,
        version: summary.version,
        session_expiry_secs: summary.session_expiry_secs,
        expires_at_millis: summary.expires_at_millis,
        subscriptions: summary.subscriptions as usize,
        queued: summary.queued as usize,
        queued_bytes: form.queued_bytes as usize,
        in_flight: summary.in_flight as usize,
        in_flight_bytes: form.in_flight_bytes as usize,
        in_flight_max: form.in_flight_max,
        oldest_waiting_millis: form.oldest_waiting_millis,
        dropped: dropped.collect(),
        losing: form.losing.map(|(messages, since)| Losing::new(messages, since)),
        last_end: form.last_end.and_then(end_of),
        settings,
        sticky_settings,
        user_settings,
        ..ClientSession::new(summary.client_id, summary.peer)
    }
}

fn end_of(form: EndForm) -> Option<LastEnd> {
    let reason = DisconnectReason::ALL.iter().find(|reason| reason.name() == &*form.reason)?;
    Some(LastEnd { by: form.by.map(Arc::from), ..LastEnd::new(*reason, form.at_millis) })
}

fn tls_form(tls: &TlsFacts) -> TlsForm {
    let certificate = tls.certificate.as_ref().map(|it| CertificateForm {
        subject: it.subject.clone(),
        issuer: it.issuer.clone(),
        names: it.names.clone(),
        serial_number: it.serial_number.clone(),
        expires_at_millis: it.expires_at_millis,
        public_key: it.public_key.clone(),
    });
    TlsForm { version: tls.version.into(), certificate }
}

fn tls_of(form: TlsForm) -> Option<TlsFacts> {
    let version = ["1.2", "1.3"].into_iter().find(|version| **version == *form.version)?;
    let certificate = form.certificate.map(|it| CertificateFacts {
        subject: it.subject,
        issuer: it.issuer,
        names: it.names,
        serial_number: it.serial_number,
        expires_at_millis: it.expires_at_millis,
        public_key: it.public_key,
    });
    Some(TlsFacts::new(version, certificate))
}

const fn settings_form(settings: &ClientSettings) -> SettingsForm {
    SettingsForm {
        session_expiry_secs: settings.session_expiry_secs,
        message_rate: settings.message_rate,
        byte_rate: settings.byte_rate,
        queue_messages_max: settings.queue_messages_max,
        queue_bytes_max: settings.queue_bytes_max,
        in_flight_max: settings.in_flight_max,
    }
}

const fn settings_of(form: &SettingsForm) -> ClientSettings {
    ClientSettings {
        session_expiry_secs: form.session_expiry_secs,
        message_rate: form.message_rate,
        byte_rate: form.byte_rate,
        queue_messages_max: form.queue_messages_max,
        queue_bytes_max: form.queue_bytes_max,
        in_flight_max: form.in_flight_max,
    }
}

#[cfg(test)]
mod tests {
    use crate::cluster::{asking::form::ClientsReply, asking::form::OutcomeForm, wire};

    use super::*;

    fn session() -> ClientSession {
        let settings = ClientSettings { message_rate: Some(5), ..ClientSettings::new() };
        let certificate = CertificateFacts {
            subject: "CN=car".into(),
            names: vec!["car".into()],
            ..CertificateFacts::default()
        };
        ClientSession {
            online: true,
            username: Some("ann".into()),
            listener: "mqtt://l".into(),
            node: "b".into(),
            protocol: Some(ProtocolVersion::V3_1_1),
            tls: Some(TlsFacts::new("1.3", Some(certificate))),
            connected_at_millis: 1,
            last_packet_at_millis: Some(2),
            keep_alive_secs: 3,
            asked_keep_alive_secs: Some(4),
            keep_alive_changed_by: Some("bob".into()),
            keep_alive_changed_at_millis: Some(5),
            deadline_millis: Some(6),
            version: 7,
            session_expiry_secs: 8,
            expires_at_millis: Some(9),
            subscriptions: 10,
            queued: 11,
            queued_bytes: 12,
            in_flight: 13,
            in_flight_bytes: 14,
            in_flight_max: Some(15),
            oldest_waiting_millis: Some(16),
            dropped: vec![DroppedMessages::new(DropReason::Expired, 17)],
            losing: Some(Losing::new(18, 19)),
            last_end: Some(LastEnd {
                by: Some("eve".into()),
                ..LastEnd::new(DisconnectReason::Kicked, 20)
            }),
            user_settings: settings.clone(),
            sticky_settings: ClientSettings { byte_rate: Some(21), ..settings.clone() },
            settings,
            ..ClientSession::new("car", "192.0.2.7:1".parse().unwrap())
        }
    }

    #[test]
    fn a_description_is_the_same_after_its_way() {
        let form = session_form(&session());
        let outcome = OutcomeForm::Shown(Some(Box::new(form)));
        let bytes = wire::encode(&ClientsReply::Each(vec![outcome]));
        let Ok(ClientsReply::Each(mut outcomes)) = wire::decode(&bytes) else { panic!() };
        let Some(OutcomeForm::Shown(Some(form))) = outcomes.pop() else { panic!() };
        assert_eq!(session_of(*form, "b".into()), session());
    }

    #[test]
    fn values_of_a_later_version_are_left_out() {
        let mut form = session_form(&session());
        form.dropped.push(("lost_in_space".into(), 1));
        form.last_end.as_mut().unwrap().reason = "bored".into();
        (form.summary.protocol, form.tls.as_mut().unwrap().version) = (Some(6), "1.4".into());
        let shown = session_of(form, "b".into());
        assert_eq!((shown.dropped.len(), shown.last_end), (1, None));
        assert_eq!((shown.protocol, shown.tls), (None, None));
    }

    #[test]
    fn a_client_of_a_list_is_the_same_after_its_way() {
        let client = ClientSummary {
            online: true,
            username: Some("ann".into()),
            listener: "l".into(),
            node: "b".into(),
            protocol: Some(ProtocolVersion::V5),
            keep_alive_secs: Some(1),
            connected_at_millis: 2,
            last_packet_at_millis: Some(3),
            session_expiry_secs: 4,
            expires_at_millis: Some(5),
            subscriptions: 6,
            queued: 7,
            in_flight: 8,
            version: 9,
            ..ClientSummary::new("car", "[2001:db8::1]:1".parse().unwrap())
        };
        let form = summary_form(&client);
        assert!(postcard::to_stdvec(&form).unwrap().len() <= summary_bytes(&client));
        assert_eq!(summary_of(form, &"b".into()), client);
    }
}
