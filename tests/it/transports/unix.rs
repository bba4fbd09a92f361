//! The file of a Unix socket.

use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, net::UnixListener},
    path::Path,
};

use hearthmq::{Broker, broker::StartError, net::Listener};
use tokio::net::UnixStream;

use crate::{
    support::{Client, packets::*, secs},
    transports::ways::builder,
};

async fn start(path: &Path) -> Result<Broker, StartError> {
    builder().listen(Listener::unix(path).mode(0o600)).start().await
}

async fn assert_serves(path: &Path) {
    let mut client = Client::on(UnixStream::connect(path).await.unwrap(), V5);
    client.connect(connect("c")).await;
    client.leave().await;
}

#[actix_rt::test]
async fn its_permissions_are_those_that_were_asked_for_and_it_goes_with_the_broker() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mqtt.sock");
    let broker = start(&path).await.unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_serves(&path).await;
    assert!(broker.local_addrs().is_empty());
    broker.shutdown(secs(5)).await;
    assert!(!path.exists());

    let other = builder().unix(&path).start().await.unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    other.shutdown(secs(5)).await;
}

#[actix_rt::test]
async fn what_a_process_left_behind_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mqtt.sock");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let broker = start(&path).await.unwrap();
    assert_serves(&path).await;
    broker.shutdown(secs(5)).await;
}

#[actix_rt::test]
async fn a_socket_in_use_and_a_file_that_is_no_socket_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mqtt.sock");
    let broker = start(&path).await.unwrap();
    let error = start(&path).await.err().unwrap();
    let expected = format!("cannot listen on {}: address in use", path.display());
    assert!(error.to_string().to_lowercase().starts_with(&expected.to_lowercase()), "{error}");
    assert_serves(&path).await;
    broker.shutdown(secs(5)).await;

    let note = dir.path().join("note");
    fs::write(&note, "keep me").unwrap();
    assert!(matches!(start(&note).await, Err(StartError::Listen { .. })));
    assert_eq!(fs::read_to_string(&note).unwrap(), "keep me");
    let error = start(&dir.path().join("no/such/dir")).await.err().unwrap();
    assert!(error.to_string().ends_with("make its directory or choose another"), "{error}");
}

/// Another process may have taken the path meanwhile.
#[actix_rt::test]
async fn the_socket_of_somebody_else_stays() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mqtt.sock");
    let broker = start(&path).await.unwrap();
    fs::remove_file(&path).unwrap();
    let _others = UnixListener::bind(&path).unwrap();
    broker.shutdown(secs(5)).await;
    assert!(path.exists());
}
