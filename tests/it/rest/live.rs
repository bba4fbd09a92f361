//! A whole broker behind its REST interface, with a real policy, for calls whose effect is on clients.
//!
//! The accounts are the doubles of this directory: `ops` and `öps`.

use std::{
    net::{SocketAddr, TcpListener},
    sync::mpsc,
    thread::{self, JoinHandle},
    time::Duration,
};

use actix_web::rt::System;
use hearthmq::{
    Broker,
    auth::FilePolicy,
    broker::Builder,
    http::{ApiOptions, Listener, Server, ServerOptions},
    store::MemoryStore,
};
use hearthmq_test::{
    http::{Answer, basic, exchange, request},
    mqtt::tcp,
};

use super::{callers::Accounts, openapi, world::options};

/// A running broker. Dropping it ends it.
pub(crate) struct Live {
    broker: Broker,
    address: SocketAddr,
    system: System,
    thread: Option<JoinHandle<()>>,
}

/// Returns the rules of a policy in TOML.
pub(crate) fn policy(rules: &str) -> FilePolicy {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), rules).unwrap();
    FilePolicy::open(file.path()).unwrap()
}

/// `ops` may do everything, and everybody may connect, publish and subscribe.
pub(crate) const RULES: &str = r#"
[[rules]]
priority = 10
effect = "allow"
actions = ["connect", "publish", "subscribe", "observe", "control", "administer"]
users = ["ops"]

[[rules]]
effect = "allow"
actions = ["connect", "publish", "subscribe"]
"#;

pub(crate) fn live() -> Live {
    live_with(|builder| builder)
}

/// Starts a broker with this configuration.
pub(crate) fn live_with(configure: impl FnOnce(Builder) -> Builder + Send + 'static) -> Live {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (started, starts) = mpsc::channel();
    let thread = thread::spawn(move || {
        let runner = System::new();
        let broker = runner.block_on(async {
            let builder = Broker::builder()
                .tcp("127.0.0.1:0")
                .shards(2)
                .store(MemoryStore::default())
                .authenticator(Accounts::default())
                .authorizer(policy(RULES));
            let broker = configure(builder).start().await.unwrap();
            let listeners = vec![Listener::http(listener)];
            let options = ApiOptions {
                call_timeout: Duration::from_secs(60),
                login_timeout: Duration::from_secs(60),
                ..options()
            };
            Server::start(&broker.api(&options), listeners, &ServerOptions::default()).unwrap();
            broker
        });
        started.send((broker, System::current())).unwrap();
        runner.run().unwrap();
    });
    let (broker, system) = starts.recv().unwrap();
    Live { broker, address, system, thread: Some(thread) }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.system.stop();
        self.thread.take().unwrap().join().unwrap();
    }
}

impl Live {
    /// Returns its address.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the address for clients.
    pub(crate) fn mqtt_address(&self) -> SocketAddr {
        self.broker.local_addrs()[0]
    }

    /// Makes a call as `ops`.
    pub(crate) fn call(&self, line: &str) -> Answer {
        self.send(&request(line, Some(&basic("ops:pass:word"))))
    }

    /// Makes a call as `ops` with a JSON body.
    pub(crate) fn call_with(&self, line: &str, body: &str) -> Answer {
        self.call_if(line, "", body)
    }

    /// Makes a call as `ops` with a header and a JSON body.
    pub(crate) fn call_if(&self, line: &str, header: &str, body: &str) -> Answer {
        self.call_as(&basic("ops:pass:word"), line, header, body)
    }

    /// Makes a call with this value of `Authorization`.
    pub(crate) fn call_as(
        &self,
        authorization: &str,
        line: &str,
        header: &str,
        body: &str,
    ) -> Answer {
        let length = body.len();
        let header = if header.is_empty() { String::new() } else { format!("{header}\r\n") };
        self.send(&format!(
            "{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\
             Content-Type: application/json\r\nAuthorization: {authorization}\r\n{header}\r\n{body}"
        ))
    }

    fn send(&self, request: &str) -> Answer {
        let answer = exchange(tcp(self.address), request).unwrap();
        openapi::check(request.as_bytes(), &answer);
        answer
    }
}

/// Returns the JSON of an answer with status 200.
pub(crate) fn json(answer: &Answer) -> serde_json::Value {
    assert_eq!(answer.status, 200, "{}", answer.body);
    serde_json::from_str(&answer.body).unwrap()
}
