//! Addresses at which nothing listens yet.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    process,
    sync::atomic::{AtomicU16, Ordering},
};

/// Returns an address of loopback with a port that is free, and stays so until the caller uses it: no
/// other test uses the address. A free port of 127.0.0.1 may be taken at any time by whatever asks for
/// port 0, or connects.
#[must_use]
pub fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    let [x, y] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    // Programs that run at the same time hardly meet.
    let [.., process] = process::id().to_be_bytes();
    let host = Ipv4Addr::new(127, 64 + process % 128, x, y);
    TcpListener::bind((host, 0)).unwrap().local_addr().unwrap()
}
