//! Calls that a browser makes for a page of another site.

use hearthmq::http::{ApiOptions, MetricsAccess};

use super::{
    failed,
    world::{options, rest, rest_with},
};

const REDIRECT: &str = r#"{"client_id":"car-1","server_reference":"b:1883"}"#;

#[test]
fn a_page_of_another_site_changes_nothing() {
    let rest = rest();
    for header in [
        "Sec-Fetch-Site: cross-site",
        "Sec-Fetch-Site: same-site",
        "Origin: https://evil.example",
        "Origin: null",
        "Origin: https://evil.example\r\nSec-Fetch-Site: cross-site",
    ] {
        for (line, body) in [
            ("POST /keep-alive?client-id=demo&interval=120", ""),
            ("POST /api/v1/redirect", REDIRECT),
            ("DELETE /api/v1/redirect", ""),
        ] {
            let answer = rest.call_with(line, header, body);
            assert_eq!(answer.failure(), failed(403, "cross_site"), "{line} {header}");
        }
        // A query changes nothing, and the page cannot read the answer.
        let answer = rest.call_with("GET /client-id/demo/status", header, "");
        assert_eq!(answer.status, 200);
    }
    assert_eq!(rest.asked(), ["demo"; 5]);
}

#[test]
fn a_page_of_ones_own_may_call() {
    let rest = rest();
    for header in [
        "Sec-Fetch-Site: same-origin",
        "Sec-Fetch-Site: none",
        "Origin: http://localhost",
        "Origin: https://localhost\r\nSec-Fetch-Site: same-origin",
    ] {
        let line = "POST /keep-alive?client-id=demo&interval=120";
        assert_eq!(rest.call_with(line, header, "").status, 200, "{header}");
    }
}

#[test]
fn metrics_that_are_open_by_address_are_shown_under_the_machines_own_names_alone() {
    let metrics = |rest: &super::world::Rest, host: &str| {
        rest.send(&format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"))
    };
    let hosts = vec!["metrics.example.org".to_owned()];
    let rest = rest_with(&ApiOptions { metrics_hosts: hosts, ..options() });
    for host in ["localhost", "127.0.0.1:8080", "[::1]", "metrics.example.org:8080"] {
        assert_eq!(metrics(&rest, host).status, 200, "{host}");
    }
    for host in ["evil.example", "evil.example:8080", "localhost.evil.example"] {
        let answer = metrics(&rest, host);
        assert_eq!(answer.failure(), failed(403, "forbidden_host"), "{host}");
    }
    let open = rest_with(&ApiOptions { metrics_access: MetricsAccess::Anyone, ..options() });
    assert_eq!(metrics(&open, "broker.example").status, 200);
}
