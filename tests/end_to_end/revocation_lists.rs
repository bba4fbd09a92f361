//! Revocation lists from URLs, and OCSP responses, with the certificates of the printed recipe.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    path::Path,
    process::Command,
};

use hearthmq::mqtt::ReasonCode;
use hearthmq_test::free_address;

use crate::{
    mqtt::connect,
    revocation::{connected, device, place, revoke, shell},
    tls::{Tls, VERSIONS},
};

/// Serves the files of a directory by HTTP until it is dropped.
struct Files(std::process::Child);

impl Files {
    fn of(directory: &Path, address: SocketAddr) -> Self {
        let (host, port) = (address.ip().to_string(), address.port().to_string());
        let mut server = Command::new("python3");
        server.args(["-m", "http.server", "--bind", &host, &port]);
        server.current_dir(directory).stderr(std::process::Stdio::null());
        let child = server.stdout(std::process::Stdio::null()).spawn().unwrap();
        while TcpStream::connect(address).is_err() {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        Self(child)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn lists_from_urls_are_fetched_and_the_last_good_ones_stay() {
    let address = free_address();
    let place = place();
    let file = place.path("hearthmq.toml");
    let urls =
        format!("crl_urls = [\"http://{address}/ca.crl\", \"http://{address}/devices.crl\"]");
    let config = fs::read_to_string(&file).unwrap();
    let config = config.replace("crl = [\"ca.crl\", \"devices.crl\"]", &urls);
    let config = config.replace("[\"ca.crt\"]", "[\"ca.crt\", \"devices.crt\"]");
    fs::write(&file, config).unwrap();
    // Without the list, a start would accept revoked certificates.
    let output = place.run();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains("tls.crl_urls"), "{text}");

    let files = Files::of(&place.path(""), address);
    let mut program = place.start();
    let tls = Tls::new(&place.path("ca.crt"), VERSIONS[1], Some(&device(&place)));
    let mut client = connected(&program, &tls, "a");
    drop(files);
    program.signal("-HUP");
    program.line_with(&["WARN", "revocation list not fetched", "devices.crl"]);
    client.ping();
    let _files = Files::of(&place.path(""), address);
    // A list that the authority has not signed is not used.
    let good = fs::read(place.path("devices.crl")).unwrap();
    fs::copy(place.path("ca.crl"), place.path("devices.crl")).unwrap();
    program.signal("-HUP");
    program.line_with(&["WARN", "devices.crl", "older than the list in use, or of another issuer"]);
    client.ping();
    shell(&place.path(""), "openssl crl -in ca.crl -outform DER -out forged");
    let mut forged = fs::read(place.path("forged")).unwrap();
    *forged.last_mut().unwrap() ^= 1; // the end of its signature
    let ca = fs::read(place.path("ca.crl")).unwrap();
    fs::write(place.path("ca.crl"), forged).unwrap();
    program.signal("-HUP");
    program.line_with(&["WARN", "ca.crl", "its signature is not that of"]);
    client.ping();
    fs::write(place.path("ca.crl"), ca).unwrap();
    fs::write(place.path("devices.crl"), good).unwrap();
    revoke(&place);
    program.signal("-HUP");
    client.expect_disconnect(ReasonCode::NotAuthorized);
    assert!(tls.connect(program.address("mqtts"), connect("b")).is_err());
    let metrics = program.call("GET /metrics").body;
    let of = |outcome| {
        let name = format!("hearthmq_crl_fetches_total{{outcome=\"{outcome}\"}} ");
        metrics.lines().find_map(|line| line.strip_prefix(&name)).map(str::to_owned).unwrap()
    };
    assert_ne!(of("fetched"), "0");
    assert_ne!(of("failed"), "0");
    program.killed();
    drop(program);
    // The lists are there after a restart, also without the URL.
    drop(_files);
    let program = place.start();
    assert!(tls.connect(program.address("mqtts"), connect("b")).is_err());
}

#[test]
fn an_ocsp_response_from_a_file_is_sent_with_the_certificate() {
    let place = place().set("tls.ocsp=server.ocsp");
    fs::write(place.path("server.ocsp"), "no response").unwrap();
    let output = place.run();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("server.ocsp: not a successful OCSP response"), "{text}");
    shell(
        &place.path(""),
        "printf 'V\\t301231235959Z\\t\\t%s\\tunknown\\t/CN=broker.example\\n' \
             \"$(openssl x509 -in server.crt -noout -serial | cut -d= -f2)\" > ocsp.db
         openssl ocsp -issuer ca.crt -cert server.crt -no_nonce -reqout server.request
         openssl ocsp -index ocsp.db -rsigner ca.crt -rkey ca.key -CA ca.crt -ndays 7 \
             -reqin server.request -respout server.ocsp",
    );
    let program = place.start();
    let address = program.address("mqtts");
    shell(
        &place.path(""),
        &format!(
            "timeout 60 openssl s_client -connect {address} -CAfile ca.crt -status < /dev/null 2>&1 \
             | grep 'OCSP Response Status: successful'"
        ),
    );
}
