//! Finds problems in the TLS files of a listener that do not prevent its start, for the log and for
//! `hearthmq check-config`.

use std::{path::Path, time::Duration};

use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use x509_parser::{
    certificate::X509Certificate, parse_x509_certificate, parse_x509_crl, prelude::ASN1Time,
    x509::X509Version,
};

use super::{RevokedHere, TlsConfig, TlsError, build, read_pem};

/// Warn about a certificate that expires within this time.
const SOON: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Reads the files of `config` as a start does and returns a warning for each certificate that has
/// expired, will expire soon, or is refused by some clients, and for each revocation list whose
/// next update is overdue.
///
/// # Errors
/// As [`TlsSource::open`](super::TlsSource::open): the files cannot be used.
pub fn examine(config: &TlsConfig) -> Result<Vec<String>, TlsError> {
    // The same code as a start, so that `check-config` accepts exactly what starts.
    build(config, &RevokedHere::default())?;
    let now = ASN1Time::now();
    let mut lines = Vec::new();
    for (number, der) in certificates(&config.certificate)?.iter().enumerate() {
        let Ok((_, certificate)) = parse_x509_certificate(der) else { continue };
        lines.extend(time_of(&config.certificate, &certificate, now));
        // Only the first one is the broker's own; clients have the others as authorities.
        if number == 0 && certificate.version() == X509Version::V1 {
            lines.push(format!(
                "{}: the certificate is X.509 version 1, which clients built with rustls \
                 refuse; sign it with `openssl x509 -req … -extfile FILE` and a FILE with \
                 basicConstraints=CA:FALSE",
                config.certificate.display()
            ));
        }
    }
    for path in &config.client_ca {
        for der in certificates(path)? {
            let Ok((_, certificate)) = parse_x509_certificate(&der) else { continue };
            lines.extend(time_of(path, &certificate, now));
        }
    }
    for path in &config.crl {
        let lists: Vec<CertificateRevocationListDer<'static>> =
            read_pem(path, "revocation list", "BEGIN X509 CRL")?;
        for der in lists {
            let Ok((_, list)) = parse_x509_crl(&der) else { continue };
            // Only a warning: refusing every client because a list is late would be worse.
            if let Some(until) = list.next_update().filter(|until| *until < now) {
                lines.push(format!(
                    "{}: the next update of the revocation list was due on {until}; it stays in use, \
                     but what was revoked since is not in it",
                    path.display()
                ));
            }
        }
    }
    Ok(lines)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    read_pem(path, "certificate", "BEGIN CERTIFICATE")
}

/// Returns a warning if the certificate is not valid now or expires soon.
fn time_of(path: &Path, certificate: &X509Certificate<'_>, now: ASN1Time) -> Option<String> {
    let (validity, path) = (certificate.validity(), path.display());
    let subject = certificate.subject();
    if now < validity.not_before {
        return Some(format!(
            "{path}: the certificate of {subject} is not valid before {}; check the system clock",
            validity.not_before
        ));
    }
    let until = validity.not_after;
    if until < now {
        return Some(format!(
            "{path}: the certificate of {subject} expired on {until}, and clients refuse it; renew it, \
             then send SIGHUP"
        ));
    }
    let left = (until - now)?;
    (left < SOON).then(|| {
        format!(
            "{path}: the certificate of {subject} expires on {until}; renew it, then send SIGHUP"
        )
    })
}
