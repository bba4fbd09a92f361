//! A service manager is told what the broker does, and that it is alive (sd_notify(3)).

use std::{
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixDatagram},
    },
    process::id,
};

use crate::program::{PATIENCE, Place};

/// The socket of a service manager.
struct Manager(UnixDatagram);

impl Manager {
    fn new(socket: UnixDatagram) -> Self {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(socket)
    }

    /// Returns the next notification that is no sign of life.
    fn told(&self) -> String {
        loop {
            let told = self.next();
            if told != "WATCHDOG=1" {
                return told;
            }
        }
    }

    fn next(&self) -> String {
        let mut bytes = [0; 256];
        let length = self.0.recv(&mut bytes).expect("a notification");
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }
}

#[test]
fn a_service_manager_is_told_of_start_reload_and_end() {
    let place = Place::new();
    let path = place.path("notify.sock");
    let manager = Manager::new(UnixDatagram::bind(&path).unwrap());
    let mut command = place.command();
    command.env("NOTIFY_SOCKET", &path).env_remove("WATCHDOG_USEC");
    let mut program = place.start_by(command);
    assert_eq!(manager.told(), "READY=1");
    program.signal("-HUP");
    assert_eq!(manager.told(), "RELOADING=1");
    assert_eq!(manager.told(), "READY=1");
    program.signal("-TERM");
    assert_eq!(manager.told(), "STOPPING=1");
    assert!(program.wait(PATIENCE).success());
}

#[test]
fn a_watchdog_gets_signs_of_life() {
    let place = Place::new();
    let name = format!("hearthmq-test-{}", id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let manager = Manager::new(UnixDatagram::bind_addr(&address).unwrap());
    let mut command = place.command();
    // A short time, so that signs come soon. The pid is checked by the next test.
    command.env("NOTIFY_SOCKET", format!("@{name}")).env("WATCHDOG_USEC", "200000");
    let _program = place.start_by(command);
    assert_eq!(manager.next(), "READY=1");
    for _ in 0..3 {
        assert_eq!(manager.next(), "WATCHDOG=1");
    }
}

#[test]
fn a_watchdog_of_another_process_gets_none() {
    let place = Place::new();
    let path = place.path("notify.sock");
    let manager = Manager::new(UnixDatagram::bind(&path).unwrap());
    let mut command = place.command();
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "1").env("WATCHDOG_PID", "1");
    let mut program = place.start_by(command);
    assert_eq!(manager.next(), "READY=1");
    program.signal("-TERM");
    assert_eq!(manager.next(), "STOPPING=1");
    assert!(program.wait(PATIENCE).success());
}

#[test]
fn a_service_manager_that_is_gone_prevents_nothing() {
    let place = Place::new();
    let mut command = place.command();
    command.env("NOTIFY_SOCKET", place.path("nothing.sock")).env("WATCHDOG_USEC", "1000");
    let program = place.start_by(command);
    program.line_with(&["the service manager cannot be told"]);
}
