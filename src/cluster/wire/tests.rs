//! The encoding: what version 1 has written, and any bytes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
};

use proptest::prelude::*;

use crate::cluster::{
    asking::form::{
        CallBody, CallForm, CertificateForm, ClientsBody, ClientsQuestion, ClientsReply, EndForm,
        FailureForm, FilterForm, KeepAliveForm, KickForm, ListForm, OutcomeForm, PageForm,
        RedirectForm, SessionForm, SettingsForm, SummaryForm, TlsForm, WillForm,
    },
    forwards::{Forward, ForwardReply},
    lanes::{LaneAnswer, LaneItem, Mail, MailBatch},
    lease::Lease,
    members::{MemberRecord, MemberStanding},
    names::{
        ClaimNumber, ClientKey, Incarnation, MessageId, MessageSource, NodeId, Sequence, Term,
    },
    owners::{Hold, OwnerRecord, ReleaseRequest},
    owning::copy::{
        InFlightCopy, LoginCopy, MessageCopy, QueuedCopy, RestCopy, SessionCopy, SubscriptionCopy,
        WillCopy,
    },
    questions::{NodeQuestion, QuestionBody, QuestionReply, RestPart, RestReply},
    routes::{FilterChange, RouteContent, RouteEntry, TakenSession},
    wire::{Wire, WireError, decode, encode},
};

fn node(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// A node of this version writes these bytes, and reads them.
#[track_caller]
fn is_version_1<T: Wire + PartialEq + Debug>(value: &T, written: &str) {
    assert_eq!(hex(&encode(value)), written);
    assert_eq!(decode::<T>(&bytes(written)).as_ref(), Ok(value));
    for cut in 0..bytes(written).len() {
        assert!(decode::<T>(&bytes(written)[..cut]).is_err(), "cut at {cut}");
    }
    assert!(decode::<T>(&bytes(&format!("{written}00"))).is_err(), "bytes behind the value");
}

fn mail() -> Mail {
    let source = MessageSource { store: 1, incarnation: Incarnation(3), shard: 0 };
    Mail {
        id: MessageId { source, number: 9 },
        qos: crate::mqtt::QoS::AtLeastOnce,
        is_alone: true,
        topic: "t".into(),
        content: "hi".into(),
    }
}

#[test]
fn records_of_version_1_are_read() {
    let lease = Lease { incarnation: Incarnation(3), generation: 1, is_expired: true };
    is_version_1(&lease, "0101030101");
    let member = MemberRecord {
        store: 7,
        incarnation: Incarnation(3),
        generation: 1,
        standing: MemberStanding::Serving,
        keepers: vec![node("n1")],
    };
    is_version_1(&member, "01020703010101026e31");
    let owner = OwnerRecord {
        client_id: "car".into(),
        node: node("n0"),
        incarnation: Incarnation(3),
        term: Term(300),
        hold: Hold::Taking,
        previous: Some(node("n1")),
        owed: vec![node("n2")],
        writer: node("n0"),
        claim: ClaimNumber(5),
    };
    is_version_1(&owner, "010303636172026e3003ac020001026e3101026e32026e3005");
}

#[test]
fn mail_of_version_1_is_read() {
    is_version_1(&mail(), "01040103000901010174026869");
    let batch = MailBatch {
        from: node("n0"),
        from_incarnation: Incarnation(3),
        to_incarnation: Incarnation(2),
        first: 1,
        items: vec![LaneItem::Mail(mail())],
    };
    is_version_1(&batch, "0106026e3003020101000103000901010174026869");
    let marks = MailBatch { items: vec![LaneItem::Retained(Sequence(5))], ..batch };
    is_version_1(&marks, "0106026e30030201010405");
    let answer = LaneAnswer {
        from: node("n1"),
        from_incarnation: Incarnation(2),
        to_incarnation: Incarnation(3),
        received: 1,
        stored: 1,
    };
    is_version_1(&answer, "0107026e3102030101");
    let forward = Forward {
        tried: BTreeSet::from([node("n1")]),
        cleared: BTreeMap::from([(node("n2"), Some(Term(7)))]),
        copy: 1,
        lane: Some(node("n1")),
        ..Forward::new(ClientKey(5), mail())
    };
    is_version_1(&forward, "010905010300090101017402686901026e3101026e3201070101026e31");
}

#[test]
fn routes_and_questions_of_version_1_are_read() {
    let change = FilterChange { filter: "a/#".into(), is_added: true };
    let content = RouteContent::Changes(vec![change]);
    is_version_1(
        &RouteEntry { incarnation: Incarnation(3), number: 1, content },
        "01080301000103612f2301",
    );
    let content = RouteContent::Taken(vec![TakenSession { key: ClientKey(5), term: Term(7) }]);
    is_version_1(
        &RouteEntry { incarnation: Incarnation(3), number: 1, content },
        "0108030102010507",
    );
    let request = ReleaseRequest { key: ClientKey(5), term: Term(7) };
    let body = QuestionBody::Release(request);
    let question = NodeQuestion { from: node("n0"), incarnation: Incarnation(3), body };
    is_version_1(&question, "010a026e3003000507");
    is_version_1(&QuestionReply::Forward(ForwardReply::Kept), "010b0100");
    let body = QuestionBody::SessionPart { request, from: 300 };
    let question = NodeQuestion { from: node("n0"), incarnation: Incarnation(3), body };
    is_version_1(&question, "010a026e3003080507ac02");
    let part = QuestionReply::SessionPart { bytes_in_all: 300, part: "hi".into() };
    is_version_1(&part, "010b04ac02026869");
    let bytes = "hi".into();
    let part = RestPart { request, page: 1, from_byte: 2, bytes_in_all: 4, bytes, is_last: false };
    let body = QuestionBody::Rest(part);
    let question = NodeQuestion { from: node("n0"), incarnation: Incarnation(3), body };
    is_version_1(&question, "010a026e300309050701020402686900");
    is_version_1(&QuestionReply::Rest(RestReply::NotHere), "010b0502");
}

#[test]
fn a_session_of_version_1_is_read() {
    let message = MessageCopy {
        topic: "t".into(),
        payload: "hi".into(),
        properties: Default::default(),
        qos: 1,
        retain: false,
        expires_at: Some(9),
        received_at: 8,
    };
    let (identifiers, share) = (vec![3], Some("$share/g/t".into()));
    let queued = QueuedCopy { message: message.clone(), qos: 1, retain: true, identifiers, share };
    let rest = RestCopy { messages: vec![queued.clone()] };
    is_version_1(&rest, "011501017402686900010001090801010103010a2473686172652f672f74");
    let login = LoginCopy {
        kind: "scram".into(),
        method: Some("m".into()),
        listener: "l".into(),
        certificate: Some(("c".into(), "0a".into())),
        needs_account: true,
        source: None,
        attributes: vec![("k".into(), "v".into())],
        groups: vec!["g".into()],
        credential: Some(4),
        rules: Some("[]".into()),
        rules_expire_at: Some(5),
    };
    let options = 0b10_1101;
    let subscription = SubscriptionCopy { filter: "t".into(), options, identifier: Some(3) };
    let session = SessionCopy {
        client_id: "car".into(),
        username: Some("ann".into()),
        expiry_interval_secs: 300,
        ends_at: Some(7),
        peer: "p".into(),
        connected_at: 6,
        login: Some(login),
        subscriptions: vec![subscription],
        accepted: vec![300],
        will: Some(WillCopy { message, delay_secs: 1, expiry_secs: None, due_at: Some(2) }),
        in_flight: vec![InFlightCopy { packet_id: 2, queued: None }],
        waiting: vec![queued],
        doubtful: 1,
    };
    let written = "0114036361720103616e6eac0201070170060105736372616d01016d016c0101630230610100\
                   01016b0176010167010401025b5d01050101742d010301ac0201017402686900010001090801\
                   00010201020001017402686900010001090801010103010a2473686172652f672f7401";
    is_version_1(&session, written);
}

fn call(body: CallBody) -> CallForm {
    CallForm { by_record: true, client_id: "car".into(), body }
}

fn question(body: ClientsBody) -> ClientsQuestion {
    ClientsQuestion { from: node("n0"), incarnation: Incarnation(3), body }
}

#[test]
fn questions_about_clients_of_version_1_are_read() {
    let change = KeepAliveForm {
        interval_secs: 300,
        by: Some("ann".into()),
        is_dry_run: false,
        is_sticky: true,
        ttl_secs: Some(9),
        is_within_share: true,
    };
    let kick = KickForm {
        by: None,
        ends_session: true,
        discards_will: false,
        reason_code: 0x98,
        reason_string: Some("r".into()),
    };
    let redirect = RedirectForm { server_reference: "s".into(), is_permanent: true };
    let calls = [
        CallBody::Online,
        CallBody::SetKeepAlive(change),
        CallBody::Kick(kick),
        CallBody::Show,
        CallBody::Redirect(redirect),
    ];
    is_version_1(
        &question(ClientsBody::Each(calls.into_iter().map(call).collect())),
        "0128026e30030005010363617200010363617201ac020103616e6e000101090101036361\
         720200010098010172010363617203010363617204017301",
    );
    let filter = FilterForm {
        client_id: Some("c*".into()),
        client_ids: Some(vec!["car".into()]),
        username: Some("ann".into()),
        network: Some("10.0.0.0/8".into()),
        protocol: Some(5),
        online: Some(true),
        listener: Some("l".into()),
        keep_alive_secs_min: Some(1),
        keep_alive_secs_max: Some(300),
        idle_secs_min: Some(2),
        queued_min: Some(3),
    };
    let (after, limit, only_ids) = (Some("a".into()), 100, true);
    let list = ListForm { filter, after, limit, only_ids };
    is_version_1(
        &question(ClientsBody::List(list)),
        "0128026e3003010102632a0101036361720103616e6e010a31302e302e302e302f380105\
         010101016c010101ac02010201030101616401",
    );
    is_version_1(
        &question(ClientsBody::Count(FilterForm::default())),
        "0128026e3003020000000000000000000000",
    );
}

fn summary() -> SummaryForm {
    SummaryForm {
        client_id: "car".into(),
        online: true,
        username: Some("ann".into()),
        peer: "192.0.2.7:1883".parse().unwrap(),
        listener: "l".into(),
        protocol: Some(5),
        keep_alive_secs: Some(60),
        connected_at_millis: 1,
        last_packet_at_millis: Some(2),
        session_expiry_secs: 300,
        expires_at_millis: Some(3),
        subscriptions: 4,
        queued: 5,
        in_flight: 6,
        version: 7,
    }
}

#[test]
fn answers_about_clients_of_version_1_are_read() {
    let certificate = CertificateForm {
        subject: "s".into(),
        issuer: "i".into(),
        names: vec!["n".into()],
        serial_number: "0a".into(),
        expires_at_millis: 1,
        public_key: "k".into(),
    };
    let settings = SettingsForm {
        session_expiry_secs: Some(1),
        message_rate: Some(2),
        byte_rate: Some(3),
        queue_messages_max: Some(4),
        queue_bytes_max: Some(5),
        in_flight_max: Some(6),
    };
    let session = SessionForm {
        summary: summary(),
        tls: Some(TlsForm { version: "1.3".into(), certificate: Some(certificate) }),
        asked_keep_alive_secs: Some(1),
        keep_alive_changed_by: Some("b".into()),
        keep_alive_changed_at_millis: Some(2),
        deadline_millis: Some(3),
        queued_bytes: 4,
        in_flight_bytes: 5,
        in_flight_max: Some(6),
        oldest_waiting_millis: Some(7),
        dropped: vec![("expired".into(), 8)],
        losing: Some((9, 10)),
        last_end: Some(EndForm { reason: "kicked".into(), at_millis: 11, by: Some("e".into()) }),
        settings: [settings, SettingsForm::default(), SettingsForm::default()],
    };
    let (is_not_told, is_below_own) = (true, false);
    let outcomes = vec![
        OutcomeForm::NotOwner,
        OutcomeForm::Arriving,
        OutcomeForm::Failed(FailureForm::ClientIdTooLong(300)),
        OutcomeForm::Online(true),
        OutcomeForm::KeepAlive { old_secs: 60, new_secs: 300, is_not_told, is_below_own },
        OutcomeForm::Kicked { was_online: true, session_ended: false, will: WillForm::Waits },
        OutcomeForm::Shown(Some(Box::new(session))),
        OutcomeForm::Redirected(1),
    ];
    is_version_1(
        &ClientsReply::Each(outcomes),
        "0129000800010203ac020301043cac02010005010003060103636172010103616e6e00c0\
         000207db0e016c0105013c010102ac020103040506070103312e33010173016901016e02\
         306101016b0101010162010201030405010601070107657870697265640801090a01066b\
         69636b65640b0101650101010201030104010501060000000000000000000000000701",
    );
    let page = PageForm { clients: vec![summary()], next: Some("car".into()) };
    is_version_1(
        &ClientsReply::Page(page),
        "0129010103636172010103616e6e00c0000207db0e016c0105013c010102ac0201030405\
         06070103636172",
    );
    let ids = ClientsReply::Ids { client_ids: vec!["car".into()], next: None };
    is_version_1(&ids, "012902010363617200");
    is_version_1(&ClientsReply::Count(300), "012903ac02");
    is_version_1(&ClientsReply::NotServing, "012904");
    is_version_1(&ClientsReply::Busy, "012905");
    is_version_1(&ClientsReply::Failed(FailureForm::Timeout), "01290607");
}

#[test]
fn a_value_of_a_later_version_or_of_another_kind_is_an_error_that_says_so() {
    assert_eq!(decode::<Lease>(&[2, 1, 3, 1, 1]), Err(WireError::Version(2)));
    assert_eq!(decode::<Lease>(&[0, 1, 3, 1, 1]), Err(WireError::Damaged(1)));
    let kind = WireError::Kind { expected: 1, found: 2 };
    assert_eq!(decode::<Lease>(&[1, 2, 3, 1, 1]), Err(kind));
    // A name that a subject of NATS cannot carry.
    assert!(decode::<LaneAnswer>(&bytes("0107022e3102030101")).is_err());
    // QoS 3.
    assert!(decode::<Mail>(&bytes("010401030009030174026869")).is_err());
}

proptest! {
    #[test]
    fn any_bytes_are_a_value_or_an_error(
        kind in prop_oneof![0_u8..14, 20_u8..22, 40_u8..42],
        fields in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let bytes = [vec![1, kind], fields].concat();
        let _ = decode::<Lease>(&bytes);
        let _ = decode::<MemberRecord>(&bytes);
        let _ = decode::<OwnerRecord>(&bytes);
        let _ = decode::<Mail>(&bytes);
        let _ = decode::<LaneItem>(&bytes);
        let _ = decode::<MailBatch>(&bytes);
        let _ = decode::<LaneAnswer>(&bytes);
        let _ = decode::<RouteEntry>(&bytes);
        let _ = decode::<Forward>(&bytes);
        let _ = decode::<NodeQuestion>(&bytes);
        let _ = decode::<QuestionReply>(&bytes);
        let _ = decode::<SessionCopy>(&bytes);
        let _ = decode::<ClientsQuestion>(&bytes);
        let _ = decode::<ClientsReply>(&bytes);
        let _ = decode::<RestCopy>(&bytes);
    }
}
