//! TLS: handshakes in memory with every kind of certificate, in both versions, and every file that
//! can be invalid.

use std::{fs, path::PathBuf, sync::Arc};

use hearthmq::net::tls::{
    ALPN_MQTT, ClientAuth, ClientCertificateError, TlsConfig, TlsVersion, client_certificate,
    mqtt_server_config, server_config,
};
use rustls::{
    ClientConfig, ClientConnection, ProtocolVersion, RootCertStore, ServerConfig, ServerConnection,
    SupportedProtocolVersion,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    version::{TLS12, TLS13},
};

use crate::pki::{DEVICE_SERIAL_NUMBER, Pair, Pki, rcgen};

const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

fn config(pki: &Pki, client_auth: ClientAuth) -> TlsConfig {
    let asks = client_auth != ClientAuth::None;
    TlsConfig {
        certificate: pki.server.chain.clone(),
        key: pki.server.key.clone(),
        client_ca: if asks { vec![pki.ca.clone()] } else { Vec::new() },
        client_auth,
        crl: if asks { pki.crl.clone() } else { Vec::new() },
        min_version: TlsVersion::V1_2,
        ocsp: PathBuf::new(),
    }
}

fn client(
    pki: &Pki,
    version: &'static SupportedProtocolVersion,
    pair: Option<&Pair>,
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&pki.ca).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots);
    match pair {
        None => builder.with_no_client_auth(),
        Some(pair) => {
            let chain = CertificateDer::pem_file_iter(&pair.chain).unwrap();
            let key = PrivateKeyDer::from_pem_file(&pair.key).unwrap();
            builder.with_client_auth_cert(chain.map(Result::unwrap).collect(), key).unwrap()
        }
    }
}

/// Runs both ends until neither has more to send; returns the first error of either.
fn handshake(
    server: &Arc<ServerConfig>,
    client: ClientConfig,
) -> Result<ServerConnection, rustls::Error> {
    let mut server = ServerConnection::new(Arc::clone(server)).unwrap();
    let mut client =
        ClientConnection::new(Arc::new(client), "localhost".try_into().unwrap()).unwrap();
    let mut wire = Vec::new();
    while client.wants_write() || server.wants_write() {
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut arrived = wire.as_slice();
        while !arrived.is_empty() {
            server.read_tls(&mut arrived).unwrap();
            server.process_new_packets()?;
        }
        wire.clear();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut arrived = wire.as_slice();
        while !arrived.is_empty() {
            client.read_tls(&mut arrived).unwrap();
            client.process_new_packets()?;
        }
        wire.clear();
    }
    assert!(!server.is_handshaking() && !client.is_handshaking());
    Ok(server)
}

#[test]
fn a_certificate_is_judged_the_same_in_both_versions_of_tls() {
    let pki = Pki::new();
    let optional = server_config(&config(&pki, ClientAuth::Optional)).unwrap();
    let required = server_config(&config(&pki, ClientAuth::Required)).unwrap();
    let leaf = fs::read_to_string(&pki.device.chain).unwrap();
    let end = leaf.find("-----END CERTIFICATE-----\n").unwrap() + 26;
    let without_intermediate =
        Pair { chain: pki.write("leaf.crt", &leaf[..end]), key: pki.device.key.clone() };
    for version in VERSIONS {
        for (pair, cause) in [
            (&pki.expired, "Expired"),
            (&pki.not_yet_valid, "NotValidYet"),
            (&pki.foreign, "UnknownIssuer"),
            (&pki.revoked, "Revoked"),
            (&without_intermediate, "UnknownIssuer"),
            (&pki.server, "Purpose"),
        ] {
            for server in [&optional, &required] {
                let error = handshake(server, client(&pki, version, Some(pair))).unwrap_err();
                assert!(format!("{error:?}").contains(cause), "{version:?} {cause}: {error:?}");
            }
        }
        for (pair, common_name) in [(&pki.device, "device-1"), (&pki.other_device, "device-2")] {
            for server in [&optional, &required] {
                let connection = handshake(server, client(&pki, version, Some(pair))).unwrap();
                let subject = client_certificate(connection.peer_certificates().unwrap()).unwrap();
                assert_eq!(subject.common_name, common_name);
                assert_eq!(connection.protocol_version(), Some(version.version));
            }
        }
        let connection = handshake(&optional, client(&pki, version, None)).unwrap();
        assert!(connection.peer_certificates().is_none());
        let error = handshake(&required, client(&pki, version, None)).unwrap_err();
        assert_eq!(error, rustls::Error::NoCertificatesPresented);
    }
}

#[test]
fn a_server_that_asks_for_no_certificate_gets_none() {
    let pki = Pki::new();
    let server = server_config(&config(&pki, ClientAuth::None)).unwrap();
    for version in VERSIONS {
        let connection = handshake(&server, client(&pki, version, Some(&pki.device))).unwrap();
        assert!(connection.peer_certificates().is_none());
    }
}

#[test]
fn a_session_that_showed_a_certificate_is_not_resumed_without_looking_again() {
    let pki = Pki::new();
    for (client_auth, pair) in [(ClientAuth::None, None), (ClientAuth::Required, Some(&pki.device))]
    {
        let server = server_config(&config(&pki, client_auth)).unwrap();
        for version in VERSIONS {
            let client = client(&pki, version, pair);
            handshake(&server, client.clone()).unwrap();
            let again = handshake(&server, client).unwrap();
            let resumed = again.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
            assert_eq!(resumed, client_auth == ClientAuth::None, "{client_auth:?} {version:?}");
        }
    }
}

#[test]
fn keys_are_read_in_all_their_forms() {
    let pki = Pki::new();
    for (pair, key) in [
        (&pki.server, &pki.server.key),
        (&pki.server, &pki.server_sec1_key),
        (&pki.rsa_server, &pki.rsa_server.key),
        (&pki.rsa_server, &pki.rsa_server_pkcs1_key),
    ] {
        let server = server_config(&TlsConfig {
            certificate: pair.chain.clone(),
            key: key.clone(),
            ..config(&pki, ClientAuth::None)
        });
        let server = server.unwrap();
        for version in VERSIONS {
            handshake(&server, client(&pki, version, None)).unwrap();
        }
    }
}

#[test]
fn the_oldest_version_can_be_set() {
    let pki = Pki::new();
    let server = server_config(&TlsConfig {
        min_version: TlsVersion::V1_3,
        ..config(&pki, ClientAuth::None)
    });
    let server = server.unwrap();
    handshake(&server, client(&pki, &TLS12, None)).unwrap_err();
    let connection = handshake(&server, client(&pki, &TLS13, None)).unwrap();
    assert_eq!(connection.protocol_version(), Some(ProtocolVersion::TLSv1_3));
}

#[test]
fn mqtt_may_be_named_by_alpn_and_another_protocol_may_not() {
    let pki = Pki::new();
    let server = mqtt_server_config(&config(&pki, ClientAuth::None)).unwrap();
    let client = |protocols: &[&[u8]]| {
        let mut client = client(&pki, &TLS13, None);
        client.alpn_protocols = protocols.iter().map(|one| one.to_vec()).collect();
        client
    };
    let connection = handshake(&server, client(&[b"http/1.1", ALPN_MQTT])).unwrap();
    assert_eq!(connection.alpn_protocol(), Some(ALPN_MQTT));
    assert_eq!(handshake(&server, client(&[])).unwrap().alpn_protocol(), None);
    handshake(&server, client(&[b"http/1.1"])).unwrap_err();
}

#[test]
fn the_subject_of_a_certificate_is_its_common_name_and_serial_number() {
    let pki = Pki::new();
    let chain: Vec<_> =
        CertificateDer::pem_file_iter(&pki.device.chain).unwrap().map(Result::unwrap).collect();
    let subject = client_certificate(&chain).unwrap();
    assert_eq!(subject.common_name, "device-1");
    assert_eq!(subject.serial_number, DEVICE_SERIAL_NUMBER);
    assert!(matches!(client_certificate(&[]), Err(ClientCertificateError::Missing)));
    let broken = CertificateDer::from(vec![0x30, 0x00]);
    assert!(matches!(client_certificate(&[broken]), Err(ClientCertificateError::Malformed(_))));
}

#[test]
fn a_common_name_that_cannot_be_a_user_name_is_refused() {
    let subject_with = |common_names: &[&str]| {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "HearthMQ");
        for (name, at) in common_names.iter().zip(3..) {
            // The second name needs another attribute of the same meaning, because rcgen stores one
            // of each.
            let kind = match at {
                3 => rcgen::DnType::CommonName,
                _ => rcgen::DnType::CustomDnType(vec![2, 5, 4, 3]),
            };
            params.distinguished_name.push(kind, *name);
        }
        let key = rcgen::KeyPair::generate().unwrap();
        client_certificate(&[params.self_signed(&key).unwrap().der().clone()])
    };
    assert_eq!(subject_with(&["bücher 7"]).unwrap().common_name, "bücher 7");
    assert!(matches!(subject_with(&[]), Err(ClientCertificateError::NoCommonName)));
    assert!(matches!(subject_with(&[""]), Err(ClientCertificateError::NoCommonName)));
    assert!(matches!(subject_with(&["a\0b"]), Err(ClientCertificateError::InvalidCommonName)));
    assert!(matches!(subject_with(&["a", "b"]), Err(ClientCertificateError::SeveralCommonNames)));
}

/// Returns the error after one change to a valid configuration.
fn error(pki: &Pki, change: impl FnOnce(&mut TlsConfig)) -> String {
    let mut config = config(pki, ClientAuth::Required);
    change(&mut config);
    let error = server_config(&config).unwrap_err().to_string();
    assert!(!error.contains('\n'), "{error}");
    error
}

/// Writes a PEM file with meaningless contents.
fn junk(pki: &Pki, name: &str, label: &str) -> PathBuf {
    pki.write(name, &format!("-----BEGIN {label}-----\nMAA=\n-----END {label}-----\n"))
}

fn assert_says(error: &str, says: &str) {
    assert!(error.contains(says), "{error}");
}

#[test]
fn a_wrong_certificate_or_key_is_named_with_the_remedy() {
    let pki = Pki::new();
    let missing = PathBuf::from("/nowhere/at.all");
    let empty = pki.write("empty.pem", "nothing\n");
    let cut = pki.write("cut.pem", "-----BEGIN CERTIFICATE-----\nMII\n");
    for (certificate, says) in [
        (&missing, "at.all: cannot be read"),
        (&empty, "empty.pem: the file contains no certificate"),
        (&cut, "cut.pem: not a PEM file"),
        (
            &junk(&pki, "junk.pem", "CERTIFICATE"),
            "junk.pem: the broker's own certificate cannot be read",
        ),
    ] {
        assert_says(&error(&pki, |tls| tls.certificate.clone_from(certificate)), says);
    }
    for (key, says) in [
        (&missing, "at.all: cannot be read"),
        (&pki.server.chain, "server.chain.crt: the file contains no private key"),
        (&junk(&pki, "no.key", "PRIVATE KEY"), "no.key: the key cannot be used"),
        (&junk(&pki, "a.key", "ENCRYPTED PRIVATE KEY"), "a.key: the key is encrypted"),
        (&pki.device.key, "device.pkcs8.key: the key does not match the certificate in"),
        (&pki.rsa_server.key, "rsa-server.pkcs8.key: the key does not match the certificate in"),
    ] {
        assert_says(&error(&pki, |tls| tls.key.clone_from(key)), says);
    }
}

#[test]
fn a_wrong_ca_or_revocation_list_is_named_with_the_remedy() {
    let pki = Pki::new();
    let empty = pki.write("empty.pem", "nothing\n");
    let no_ca = junk(&pki, "no.ca", "CERTIFICATE");
    let no_list = junk(&pki, "no.crl", "X509 CRL");
    let list_in_certificate = |tls: &mut TlsConfig| tls.crl.push(tls.certificate.clone());
    for (error, says) in [
        (
            error(&pki, |tls| tls.client_ca.push(empty)),
            "empty.pem: the file contains no certificate",
        ),
        (
            error(&pki, |tls| tls.client_ca.push(no_ca)),
            "no.ca: the certificate of an authority in client_ca cannot be used",
        ),
        (error(&pki, |tls| tls.client_ca.clear()), "client_ca names no CA"),
        (error(&pki, |tls| tls.client_auth = ClientAuth::None), "client_auth is \"none\""),
        (
            error(&pki, list_in_certificate),
            "server.chain.crt: the file contains no revocation list",
        ),
        (error(&pki, |tls| tls.crl.push(no_list)), "no.crl: the revocation list cannot be used"),
    ] {
        assert_says(&error, says);
    }
}

#[test]
fn a_chain_without_a_revocation_list_of_each_issuer_is_not_trusted() {
    let pki = Pki::new();
    for list in &pki.crl {
        let server = server_config(&TlsConfig {
            crl: vec![list.clone()],
            ..config(&pki, ClientAuth::Required)
        });
        let client = client(&pki, &TLS13, Some(&pki.device));
        let error = handshake(&server.unwrap(), client).unwrap_err();
        assert!(format!("{error:?}").contains("UnknownRevocationStatus"), "{error:?}");
    }
    let server =
        server_config(&TlsConfig { crl: Vec::new(), ..config(&pki, ClientAuth::Required) });
    handshake(&server.unwrap(), client(&pki, &TLS13, Some(&pki.revoked))).unwrap();
}

#[test]
fn the_options_are_read_from_toml_and_unknown_ones_are_errors() {
    let minimal: TlsConfig = toml::from_str("certificate = \"a\"\nkey = \"b\"").unwrap();
    assert_eq!(minimal.client_auth, ClientAuth::None);
    assert_eq!(minimal.min_version, TlsVersion::V1_2);
    let full: TlsConfig = toml::from_str(
        "certificate = \"a\"\nkey = \"b\"\nclient_ca = [\"c\"]\nclient_auth = \"required\"\n\
         crl = [\"d\"]\nmin_version = \"1.3\"",
    )
    .unwrap();
    assert_eq!(full.client_auth, ClientAuth::Required);
    assert_eq!(full.min_version, TlsVersion::V1_3);
    toml::from_str::<TlsConfig>("certificate = \"a\"\nkey = \"b\"\nca = \"c\"").unwrap_err();
    toml::from_str::<TlsConfig>("certificate = \"a\"\nkey = \"b\"\nmin_version = \"1.1\"")
        .unwrap_err();
}
