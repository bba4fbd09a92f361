//! Certificates that are pinned at their first use: two of them for one client identifier at the same time,
//! by connections that may be on different shards.

use std::sync::Arc;

use async_trait::async_trait;
use hearthmq::{
    Broker,
    auth::{
        AllowAll, AuthenticationError, Authenticator, Credentials, Identity, ListenerLogins, Login,
    },
    control::{ClientCertificates as _, ListPins},
    mqtt::{Packet, ReasonCode},
    net::{
        Listener,
        tls::{ClientAuth, TlsConfig, mqtt_server_config},
    },
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tokio::{
    net::TcpStream,
    sync::{Barrier, Notify},
};
use tokio_rustls::TlsConnector;

use super::ways::tls_files;
use crate::{
    pki::{Pair, Pki},
    support::{
        Client,
        disk::{Disk, Powered},
        generous,
        packets::connect,
    },
};

/// Lets clients in by their certificates, two at the same time.
#[derive(Clone)]
struct TwoAtATime(Arc<Door>);

struct Door {
    two: Barrier,
    are_in: Notify,
}

impl TwoAtATime {
    fn new() -> Self {
        Self(Arc::new(Door { two: Barrier::new(2), are_in: Notify::new() }))
    }
}

#[async_trait]
impl Authenticator for TwoAtATime {
    async fn authenticate(&self, shown: Credentials<'_>) -> Result<Identity, AuthenticationError> {
        if self.0.two.wait().await.is_leader() {
            self.0.are_in.notify_one();
        }
        let certificate = shown.certificate.cloned().map(Arc::new);
        let name = certificate.as_ref().map(|shown| shown.common_name.as_str().into());
        let login = Login::Certificate;
        Ok(Identity { username: name, certificate, login, ..Identity::default() })
    }
}

/// Connects a client with this certificate; returns the Reason Code of CONNACK.
async fn come(broker: &Broker, (pki, pair): (&Pki, &Pair), client_id: &str) -> ReasonCode {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&pki.ca).unwrap()).unwrap();
    let chain = CertificateDer::pem_file_iter(&pair.chain).unwrap();
    let key = PrivateKeyDer::from_pem_file(&pair.key).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain.map(Result::unwrap).collect(), key)
        .unwrap();
    let stream = TcpStream::connect(broker.local_addrs()[0]).await.unwrap();
    let name = "localhost".try_into().unwrap();
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    let connect = connect(client_id);
    let mut client = Client::on(stream, connect.version);
    client.send(Packet::Connect(Box::new(connect))).await;
    client
        .receive(|packet| match packet {
            Packet::ConnAck(ack) => ack.reason,
            packet => panic!("CONNACK expected, not {packet:?}"),
        })
        .await
}

#[actix_rt::test]
async fn of_two_certificates_at_the_same_time_one_is_pinned() {
    let (pki, disk, logins) = (Pki::new(), Disk::default(), TwoAtATime::new());
    let files = TlsConfig {
        certificate: pki.server.chain.clone(),
        key: pki.server.key.clone(),
        client_ca: vec![pki.ca.clone()],
        client_auth: ClientAuth::Required,
        ..tls_files()
    };
    let pins = ListenerLogins { pin_certificates: true, ..ListenerLogins::default() };
    let listener = Listener::tls("127.0.0.1:0", mqtt_server_config(&files).unwrap()).logins(pins);
    let plug = disk.slow_plug();
    let builder = Broker::builder()
        .shards(3)
        .limits(generous())
        .authenticator(logins.clone())
        .authorizer(AllowAll)
        .store(plug.clone())
        .listen(listener);
    let powered = Powered { broker: builder.start().await.unwrap(), plug };
    let broker = &powered.broker;
    let rounds = 20;
    for round in 0..rounds {
        let id = format!("device-{round}");
        let both = async || {
            tokio::join!(
                come(broker, (&pki, &pki.device), &id),
                come(broker, (&pki, &pki.device_with_new_key), &id),
            )
        };
        // The first pin is not stored before both clients have logged in.
        powered.hold_writes(true);
        let release = async {
            logins.0.are_in.notified().await;
            powered.hold_writes(false);
        };
        let (first, ()) = tokio::join!(both(), release);
        let (one, other) = (ReasonCode::Success, ReasonCode::NotAuthorized);
        assert!(first == (one, other) || first == (other, one), "{first:?}");
        let (again, ()) = tokio::join!(both(), logins.0.are_in.notified());
        assert_eq!(again, first, "the same one is pinned");
    }
    let pins = broker.list_pins(ListPins::new(ListPins::LIMIT_MAX)).await.unwrap();
    assert_eq!(pins.len(), rounds);
}
