//! What calls take of memory and of places: in all, and for each account.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use hearthmq::http::{ApiOptions, ServerOptions};
use socket2::{Domain, Socket, Type};

use super::{
    connections::LIVE,
    failed,
    world::{Rest, basic, options, rest_serving, rest_with},
};

const OPS: &str = "ops:pass:word";
const OTHER: &str = "öps:pass:word";
const STATUS: &str = "POST /api/v1/status";

/// Returns an interface with more time for large bodies than they need.
fn patient() -> Rest {
    rest_with(&ApiOptions { call_timeout: Duration::from_secs(60), ..options() })
}

/// Returns a body with 10,000 identifiers, of this many bytes together.
fn ids(bytes: usize) -> String {
    let id = format!("\"{}\",", "x".repeat(bytes / 10_000 - 3));
    format!("{{\"client_ids\":[{}\"y\"]}}", id.repeat(9_999))
}

/// Sends the head of a call with a body of this length.
fn begin(rest: &Rest, user: &str, line: &str, length: usize) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    socket.connect(&rest.address().into()).unwrap();
    let mut stream = TcpStream::from(socket);
    let authorization = basic(user);
    let head = format!(
        "{line} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Authorization: {authorization}\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

/// Returns whether a call has an answer, or is cut off.
fn is_answered(call: &TcpStream) -> bool {
    call.set_nonblocking(true).unwrap();
    let seen = call.peek(&mut [0]);
    call.set_nonblocking(false).unwrap();
    !seen.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

/// Makes a call and reads only the beginning of its answer, the status.
fn unread(rest: &Rest, user: &str, line: &str, body: &str) -> (u16, TcpStream) {
    let mut stream = begin(rest, user, line, body.len());
    stream.write_all(body.as_bytes()).unwrap();
    let mut status = [0; 12];
    stream.read_exact(&mut status).unwrap();
    (str::from_utf8(&status[9..]).unwrap().parse().unwrap(), stream)
}

/// Repeats something until it is so.
fn eventually(mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(60));
        std::thread::yield_now();
    }
}

#[test]
fn answers_that_nobody_reads_take_the_share_of_their_account_and_no_more() {
    let (rest, body) = (patient(), ids(7_000_000));
    let kept = [(); 2].map(|()| unread(&rest, OPS, STATUS, &body));
    assert!(kept.iter().all(|(status, _)| *status == 200));
    let refused = rest.post_json(OPS, STATUS, &body);
    assert_eq!(refused.failure(), failed(503, "busy"));
    assert_eq!(refused.header("retry-after"), "1");
    let small = rest.post_json(OPS, STATUS, r#"{"client_ids":["a"]}"#);
    assert_eq!(small.status, 200, "a small answer needs no room");
    assert_eq!(rest.post_json(OTHER, STATUS, &body).status, 200, "another account");
    drop(kept);
    eventually(|| rest.post_json(OPS, STATUS, &body).status == 200);
}

/// Otherwise a call would fail that was made.
#[test]
fn a_call_that_changes_something_has_room_for_its_answer_before() {
    let (rest, body) = (patient(), ids(7_000_000));
    let _kept = [(); 2].map(|()| unread(&rest, OPS, STATUS, &body));
    rest.asked();
    for (line, body) in [
        ("POST /api/v1/clients/kick", &*body),
        ("POST /api/v1/keep-alive", &format!("[{}1]", "{},".repeat(9_000))),
        ("POST /api/v1/publish", &format!("[{}1]", "{\"topic\":\"a\"},".repeat(9_000))),
    ] {
        let answer = rest.post_json(OPS, line, body);
        assert_eq!(answer.failure(), failed(503, "busy"), "{line}");
    }
    assert!(rest.asked().is_empty());
}

/// Otherwise a caller that leaves pages unread would have the broker make more of them.
#[test]
fn a_list_has_room_for_its_page_before_it_is_made() {
    let (rest, body) = (patient(), ids(7_000_000));
    let kept = [(); 2].map(|()| unread(&rest, OPS, STATUS, &body));
    let lists = [
        "clients?limit=10000",
        "clients/a/subscriptions?limit=10000",
        "clients/a/queue?limit=10000",
        "clients/a/history?limit=10000",
        "subscriptions?topic=a&limit=10000",
        "retained?limit=10000",
        "certificates?limit=10000",
        "users?limit=10000",
        "rules?limit=10000",
        "bans?limit=10000",
        "audit?limit=10000",
        "logins?limit=10000",
        "tokens?limit=10000",
    ];
    rest.asked();
    for list in lists {
        let answer = rest.call(&format!("GET /api/v1/{list}"));
        assert_eq!(answer.failure(), failed(503, "busy"), "{list}");
        let few = rest.call(&format!("GET /api/v1/{}", list.replace("10000", "10")));
        assert!(!few.body.contains("busy"), "{list}: a small page needs no room");
    }
    drop(kept);
    eventually(|| rest.call("GET /api/v1/clients?limit=10000").status == 200);
}

#[test]
fn the_room_of_a_body_grows_with_what_has_arrived_up_to_the_share_of_its_account() {
    let (rest, large) = (patient(), ids(600_000));
    let announce = || begin(&rest, OPS, "POST /topics/a", 8 << 20);
    let announced: Vec<_> = (0..20).map(|_| announce()).collect();
    assert_eq!(rest.post_json(OPS, STATUS, &large).status, 200, "nothing has arrived");
    let mut arriving = announced;
    arriving.truncate(2);
    let send = |upload: &mut TcpStream| upload.write_all(&vec![b'x'; (8 << 20) - 1]);
    for upload in &mut arriving {
        send(upload).unwrap();
    }
    eventually(|| {
        let is_refused = rest.post_json(OPS, STATUS, &large).status == 503;
        // While it was answered, this call may have had the room that the last bytes of the others need.
        for upload in arriving.iter_mut().filter(|upload| !is_refused && is_answered(upload)) {
            *upload = announce();
            drop(send(upload)); // It may be refused too, which is seen then.
        }
        is_refused
    });
    assert_eq!(rest.post_json(OPS, STATUS, &large).failure(), failed(503, "busy"));
    assert_eq!(rest.post_json(OTHER, STATUS, &large).status, 200, "another account");
    drop(arriving);
    eventually(|| rest.post_json(OPS, STATUS, &large).status == 200);
}

#[test]
fn a_call_that_waits_has_given_back_the_room_of_its_body() {
    let (rest, large) = (patient(), ids(600_000));
    let payload = vec![b'x'; 7_000_000];
    let line = "POST /topics/stuck?wait=stored&timeout_ms=60000";
    let _waiting: Vec<_> = (1..=3)
        .map(|count| {
            let mut call = begin(&rest, OPS, line, payload.len());
            call.write_all(&payload).unwrap();
            eventually(|| rest.asked_so_far() == count);
            call
        })
        .collect();
    assert_eq!(rest.post_json(OPS, STATUS, &large).status, 200);
}

#[test]
fn a_call_that_waits_gives_back_its_place_when_its_caller_leaves() {
    let bounds = ServerOptions { connections_max: 1, ..ServerOptions::default() };
    for line in [
        "POST /topics/stuck?wait=stored&timeout_ms=60000",
        "GET /api/v1/events?after=00000000000000ab.7&wait=60",
    ] {
        let rest = rest_serving(bounds.clone());
        let waiting = begin(&rest, OPS, line, 0);
        let is_live = || {
            let mut caller = TcpStream::connect(rest.address()).unwrap();
            let mut answer = [0; 12];
            caller.write_all(LIVE.as_bytes()).is_ok()
                && caller.read_exact(&mut answer).is_ok()
                && answer.ends_with(b"200")
        };
        // Until it is read, a connection gives way to others.
        eventually(|| rest.asked_so_far() == 1);
        assert!(!is_live(), "it has the only place");
        drop(waiting);
        let began = Instant::now();
        eventually(is_live);
        assert!(began.elapsed() < Duration::from_secs(50), "{line}");
    }
}

#[test]
fn calls_that_wait_leave_places_to_others() {
    let rest = rest_with(&ApiOptions { waiting_max: 8, ..options() });
    let line = "POST /topics/stuck?wait=stored&timeout_ms=60000";
    let _waiting: Vec<_> = (1..=2)
        .map(|count| {
            let call = begin(&rest, OPS, line, 0);
            eventually(|| rest.asked_so_far() == count);
            call
        })
        .collect();
    let refused = rest.post_json(OPS, line, "");
    assert_eq!(refused.failure(), failed(429, "too_many_waiting"), "a quarter is for one account");
}

#[test]
fn a_request_gives_back_its_place_among_those_that_wait_when_its_caller_leaves() {
    let rest = rest_with(&ApiOptions { waiting_max: 4, ..options() });
    let line = "POST /api/v1/request?timeout_ms=60000";
    let begun = |header: &str, count: usize| {
        let request = rest.request(line, header, r#"{"topic":"stuck"}"#);
        let mut call = TcpStream::connect(rest.address()).unwrap();
        call.write_all(request.as_bytes()).unwrap();
        eventually(|| rest.asked_so_far() == count);
        call
    };
    let answer = || rest.post_json(OPS, line, r#"{"topic":"a"}"#);
    let waiting = begun("", 1);
    assert_eq!(answer().failure(), failed(429, "too_many_waiting"), "it has the only place");
    drop(waiting);
    let mut asked = 1;
    eventually(|| answer().status == 200);
    asked += 1;
    // One with a key goes on, because its caller will repeat it.
    let waiting = begun("Idempotency-Key: k", asked + 1);
    drop(waiting);
    for _ in 0..20 {
        assert_eq!(answer().failure(), failed(429, "too_many_waiting"));
    }
    let again = rest.call_with(line, "Idempotency-Key: k", r#"{"topic":"stuck"}"#);
    assert_eq!(again.failure(), failed(409, "idempotency_key_in_use"));
}
