//! Several authenticators as one: each remains responsible for the clients that it let in.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use async_trait::async_trait;
use hearthmq::{
    Broker,
    auth::{
        AuthenticationError, Authenticator, Chain, Credentials, EnhancedAuthenticator, Exchange,
        ExchangeStart, Identity, Login, Source, Standing, Step,
    },
    broker::Builder,
    mqtt::{Connect, Packet, ReasonCode},
};

use crate::support::{Client, disk::Disk, packets::*, world_with};

/// Users whose password is their name.
#[derive(Clone)]
struct Users(Arc<(Mutex<BTreeSet<&'static str>>, AtomicU64)>);

impl Users {
    fn of(names: &[&'static str]) -> Self {
        let names = names.iter().copied().collect();
        Self(Arc::new((Mutex::new(names), AtomicU64::new(0))))
    }

    fn remove(&self, name: &str) {
        self.0.0.lock().unwrap().remove(name);
        self.0.1.fetch_add(1, Relaxed);
    }

    fn know(&self, name: Option<&str>) -> bool {
        name.is_some_and(|name| self.0.0.lock().unwrap().contains(name))
    }
}

#[async_trait]
impl Authenticator for Users {
    async fn authenticate(&self, shown: Credentials<'_>) -> Result<Identity, AuthenticationError> {
        match shown.username {
            name if !self.know(name) => Err(AuthenticationError::NotMine),
            Some(name) if shown.password == Some(name.as_bytes()) => {
                let (username, login) = (Some(name.into()), Login::Password);
                Ok(Identity { username, login, ..Identity::default() })
            }
            _ => Err(AuthenticationError::BadCredentials),
        }
    }

    fn has_user(&self, username: &str) -> bool {
        self.know(Some(username))
    }

    fn generation(&self) -> u64 {
        self.0.1.load(Relaxed)
    }

    fn standing(&self, identity: &Identity, _: u64) -> Standing {
        match self.know(identity.username.as_deref()) {
            true => Standing::Good,
            false => Standing::Gone,
        }
    }
}

fn chain(builder: Builder, sources: &[(&str, &Users)]) -> Builder {
    let sources = sources.iter().map(|(name, users)| Source::new(name, (*users).clone()));
    builder.authenticator(sources.fold(Chain::new(), Chain::with))
}

fn of<'a>(name: &'a str, connect: Connect<'a>) -> Connect<'a> {
    Connect { username: Some(name), password: Some(name.as_bytes()), ..connect }
}

async fn expect_refused(broker: &Broker, connect: Connect<'_>, reason: ReasonCode) {
    let mut client = Client::new(broker, V5);
    client.send(Packet::Connect(Box::new(connect))).await;
    client.expect_refused(reason).await;
}

#[actix_rt::test]
async fn a_change_of_one_source_concerns_its_own_clients_alone() {
    let (first, second) = (Users::of(&["ann", "eve"]), Users::of(&["zoe"]));
    let broker =
        world_with(|builder| chain(builder, &[("first", &first), ("second", &second)])).await;
    let mut ann = Client::connected(&broker, of("ann", connect("a"))).await;
    let mut zoe = Client::connected(&broker, of("zoe", connect("z"))).await;
    for connect in [
        of("cleo", connect("c")),
        Connect { password: Some(b"x"), ..of("ann", connect("c")) },
        Connect { password: Some(b"x"), ..of("zoe", connect("c")) },
    ] {
        expect_refused(&broker, connect, ReasonCode::BadUserNameOrPassword).await;
    }
    expect_refused(&broker, connect("c"), ReasonCode::NotAuthorized).await;
    first.remove("eve");
    broker.recheck().await;
    ann.ping().await;
    zoe.ping().await;
    first.remove("ann");
    broker.recheck().await;
    ann.expect_disconnect(ReasonCode::NotAuthorized).await;
    zoe.ping().await;
}

#[actix_rt::test]
async fn a_session_is_judged_by_the_source_that_let_its_client_in() {
    let (first, second) = (Users::of(&["ann"]), Users::of(&["zoe"]));
    let both = [("first", &first), ("second", &second)];
    let disk = Disk::default();
    let before = disk.power_with(|builder| chain(builder, &both)).await;
    for name in ["ann", "zoe"] {
        let connect = of(name, connect_lasting(name, V5));
        let mut client = Client::connected(&before.broker, connect).await;
        client.subscribe("t", QOS_1).await;
        client.vanish().await;
    }
    before.crash();
    // The first source knows no zoe, and is not asked about her. Without the second one she rests.
    for (sources, zoe_collects) in [(&both[..], true), (&both[..1], false), (&both[..], true)] {
        let after = disk.power_with(|builder| chain(builder, sources)).await;
        let queued =
            async |client_id: &str| after.broker.client(client_id).await.unwrap().unwrap().queued;
        let before = (queued("ann").await, queued("zoe").await);
        after.broker.publish("t", b"x", QOS_1, false).await.unwrap();
        let collected = (queued("ann").await - before.0, queued("zoe").await - before.1);
        assert_eq!(collected, (1, usize::from(zoe_collects)));
        after.crash();
    }
}

/// A source that finds out the user name itself: the password is the name, as it stands in a token.
struct TokensOf;

#[async_trait]
impl Authenticator for TokensOf {
    async fn authenticate(&self, shown: Credentials<'_>) -> Result<Identity, AuthenticationError> {
        let said = shown.password.and_then(|token| token.strip_prefix(b"token of "));
        let name = said.and_then(|name| std::str::from_utf8(name).ok());
        let name = name.ok_or(AuthenticationError::NotMine)?;
        let (username, login) = (Some(name.into()), Login::Other);
        Ok(Identity { username, login, ..Identity::default() })
    }

    fn methods(&self) -> Option<Arc<dyn EnhancedAuthenticator>> {
        Some(Arc::new(Self))
    }
}

impl EnhancedAuthenticator for TokensOf {
    fn knows(&self, method: &str) -> bool {
        method == "token"
    }

    fn begin(&self, _: ExchangeStart<'_>) -> Box<dyn Exchange> {
        Box::new(Self)
    }
}

#[async_trait]
impl Exchange for TokensOf {
    async fn step(&mut self, data: Option<&[u8]>) -> Result<Step, AuthenticationError> {
        let name = std::str::from_utf8(data.unwrap_or_default()).unwrap();
        let (username, login) = (Some(name.into()), Login::Other);
        Ok(Step::Done { identity: Identity { username, login, ..Identity::default() }, data: None })
    }
}

#[actix_rt::test]
async fn a_token_makes_nobody_the_user_of_an_earlier_source() {
    let (first, last) = (Users::of(&["ann"]), Users::of(&["zoe"]));
    let broker = world_with(|builder| {
        let first = Source::new("first", first.clone());
        let chain = Chain::new().with(first).with(Source::new("tokens", TokensOf));
        builder.authenticator(chain.with(Source::new("last", last.clone())))
    })
    .await;
    let with_token = |token: &'static str| Connect {
        username: Some("x"),
        password: Some(token.as_bytes()),
        ..connect("c")
    };
    let by_method = |name: &'static str| {
        let mut packet = connect("c");
        packet.properties.authentication_method = Some("token");
        packet.properties.authentication_data = Some(name.as_bytes());
        packet
    };
    expect_refused(&broker, with_token("token of ann"), ReasonCode::NotAuthorized).await;
    expect_refused(&broker, by_method("ann"), ReasonCode::NotAuthorized).await;
    for packet in [with_token("token of zoe"), with_token("token of eve"), by_method("zoe")] {
        Client::connected(&broker, packet).await.ping().await;
    }
}
