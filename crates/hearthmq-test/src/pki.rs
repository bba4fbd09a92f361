//! Certificates for tests: a CA, an intermediate, a server, and clients with valid and invalid
//! certificates of every relevant kind, as PEM files in a directory that is removed with the value.
//!
//! Knows rcgen; does not know the broker. Used by every test with TLS.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
};

pub use rcgen;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    PKCS_RSA_SHA256, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use tempfile::TempDir;
use x509_parser::der_parser::parse_der;

/// The name of the curve P-256, as `openssl ecparam -genkey` writes it before the key.
const EC_PARAMETERS: &str =
    "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";

/// The serial number of [`Pki::device`].
pub const DEVICE_SERIAL_NUMBER: &str = "9a1b2c";

/// A certificate chain and its key.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The certificate, followed by the intermediate if there is one.
    pub chain: PathBuf,
    /// The key, PKCS#8.
    pub key: PathBuf,
}

/// All certificates.
pub struct Pki {
    directory: TempDir,
    /// The CA of all certificates except [`Pki::foreign`].
    pub ca: PathBuf,
    /// Revocation lists of the CA and of the intermediate.
    pub crl: Vec<PathBuf>,
    /// For localhost, 127.0.0.1 and ::1, ECDSA.
    pub server: Pair,
    /// The same key in its SEC1 form, with EC PARAMETERS before it.
    pub server_sec1_key: PathBuf,
    /// The same as `server`, RSA.
    pub rsa_server: Pair,
    /// The same key in its PKCS#1 form.
    pub rsa_server_pkcs1_key: PathBuf,
    /// Valid: CN `device-1`, from the intermediate.
    pub device: Pair,
    /// Valid: CN `device-2`, from the intermediate.
    pub other_device: Pair,
    /// The device of [`Pki::device`] with a later certificate for the same key.
    pub renewed_device: Pair,
    /// The same subject with another key.
    pub device_with_new_key: Pair,
    /// Valid until 2001.
    pub expired: Pair,
    /// Valid from 4000 on.
    pub not_yet_valid: Pair,
    /// From another CA.
    pub foreign: Pair,
    /// On the intermediate's revocation list.
    pub revoked: Pair,
}

type Authority = Issuer<'static, KeyPair>;

impl Pki {
    /// Creates all of them.
    pub fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let at = directory.path();
        let ca = authority("HearthMQ test CA", 1);
        let (ca_pem, ca_issuer) = self_signed(ca);
        let ca = write(at, "CA.crt", &ca_pem);
        // Valid in itself, and trusted by nobody.
        let (_, foreign_issuer) = self_signed(authority("Another CA", 1));

        let intermediate_key = KeyPair::generate().unwrap();
        let intermediate = authority("HearthMQ test intermediate", 2);
        let intermediate_pem = intermediate.signed_by(&intermediate_key, &ca_issuer).unwrap().pem();
        let issuer = Issuer::new(intermediate, intermediate_key);

        let device = |name: &str, params: CertificateParams| {
            pair(at, name, &params, KeyPair::generate().unwrap(), &issuer, &intermediate_pem)
        };
        let mut expired = client("device-3", &[0x33]);
        (expired.not_before, expired.not_after) =
            (date_time_ymd(2000, 1, 1), date_time_ymd(2001, 1, 1));
        let mut not_yet_valid = client("device-4", &[0x44]);
        not_yet_valid.not_before = date_time_ymd(4000, 1, 1);

        let device_key = KeyPair::generate().unwrap();
        // A renewed certificate usually has the former key; both belong to one device.
        let same_key = KeyPair::from_pem(&device_key.serialize_pem()).unwrap();
        let of_device = |name: &str, serial_number: &[u8], key| {
            pair(at, name, &client("device-1", serial_number), key, &issuer, &intermediate_pem)
        };

        let key = KeyPair::generate().unwrap();
        let sec1 = traditional_pem("EC PRIVATE KEY", &key.serialize_der());
        let rsa_key = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
        let pkcs1 = traditional_pem("RSA PRIVATE KEY", &rsa_key.serialize_der());
        Self {
            ca,
            crl: vec![
                write(at, "CA.crl", &revocation_list(&ca_issuer, &[])),
                write(at, "intermediate.crl", &revocation_list(&issuer, &[0x55])),
            ],
            server: pair(at, "server", &server(), key, &ca_issuer, ""),
            server_sec1_key: write(at, "server.sec1.key", &(EC_PARAMETERS.to_owned() + &sec1)),
            rsa_server: pair(at, "rsa-server", &server(), rsa_key, &ca_issuer, ""),
            rsa_server_pkcs1_key: write(at, "rsa-server.pkcs1.key", &pkcs1),
            device: of_device("device", &[0x9a, 0x1b, 0x2c], device_key),
            renewed_device: of_device("renewed-device", &[0x23], same_key),
            device_with_new_key: of_device("new-key", &[0x24], KeyPair::generate().unwrap()),
            other_device: device("other-device", client("device-2", &[0x22])),
            expired: device("expired", expired),
            not_yet_valid: device("not-yet-valid", not_yet_valid),
            foreign: pair(
                at,
                "foreign",
                &client("device-1", &[0x66]),
                KeyPair::generate().unwrap(),
                &foreign_issuer,
                "",
            ),
            revoked: device("revoked", client("device-5", &[0x55])),
            directory,
        }
    }

    /// Writes a further file into the directory.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        write(self.directory.path(), name, text)
    }
}

fn named(common_name: &str, serial_number: &[u8]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.serial_number = Some(SerialNumber::from_slice(serial_number));
    params.use_authority_key_identifier_extension = true;
    params
}

fn authority(common_name: &str, serial_number: u8) -> CertificateParams {
    let mut params = named(common_name, &[serial_number]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn client(common_name: &str, serial_number: &[u8]) -> CertificateParams {
    let mut params = named(common_name, serial_number);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

fn server() -> CertificateParams {
    let mut params = named("localhost", &[0x10]);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.subject_alt_names = vec![
        SanType::DnsName("localhost".try_into().unwrap()),
        SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        SanType::IpAddress(IpAddr::V6(Ipv6Addr::LOCALHOST)),
    ];
    params
}

fn self_signed(params: CertificateParams) -> (String, Authority) {
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    (pem, Issuer::new(params, key))
}

fn pair(
    directory: &Path,
    name: &str,
    params: &CertificateParams,
    key: KeyPair,
    issuer: &Authority,
    intermediate_pem: &str,
) -> Pair {
    let leaf_pem = params.signed_by(&key, issuer).unwrap().pem();
    Pair {
        chain: write(directory, &format!("{name}.chain.crt"), &(leaf_pem + intermediate_pem)),
        key: write(directory, &format!("{name}.pkcs8.key"), &key.serialize_pem()),
    }
}

fn revocation_list(issuer: &Authority, serial_numbers: &[u8]) -> String {
    let revoked = |serial_number: &u8| RevokedCertParams {
        serial_number: SerialNumber::from_slice(&[*serial_number]),
        revocation_time: date_time_ymd(2024, 1, 1),
        reason_code: None,
        invalidity_date: None,
    };
    CertificateRevocationListParams {
        this_update: date_time_ymd(2024, 1, 1),
        next_update: date_time_ymd(4000, 1, 1),
        crl_number: SerialNumber::from_slice(&[1]),
        issuing_distribution_point: None,
        revoked_certs: serial_numbers.iter().map(revoked).collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    }
    .signed_by(issuer)
    .unwrap()
    .pem()
    .unwrap()
}

/// Extracts the older form of a key from PKCS#8, which wraps it: version, algorithm, then that
/// form.
fn traditional_pem(label: &str, pkcs8: &[u8]) -> String {
    let (_, outer) = parse_der(pkcs8).unwrap();
    let base64 = STANDARD.encode(outer.as_sequence().unwrap()[2].as_slice().unwrap());
    let lines: Vec<&str> =
        base64.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

fn write(directory: &Path, name: &str, text: &str) -> PathBuf {
    let path = directory.join(name);
    fs::write(&path, text).unwrap();
    path
}
