//! Handles accept errors when the process has no file descriptor left.
//!
//! The connection limits are meant to leave descriptors free, but the application or the system may
//! have used them. A connection that cannot be accepted stays in the kernel's queue, and the
//! listener becomes ready again immediately, in a busy loop. To break the loop, one connection
//! before CONNACK is evicted; if there is none, a spare file is closed for a moment and the new
//! connection is accepted and closed.

use std::{
    fs::File,
    io,
    os::fd::AsRawFd,
    sync::{Mutex, MutexGuard, PoisonError},
};

use rustix::io::Errno;
use uapi::c::{POLLIN, pollfd};

/// A descriptor that is kept for the time when no other is left.
pub(super) struct Shortage {
    spare: Mutex<Option<File>>,
}

impl Shortage {
    pub(super) fn new() -> Self {
        Self { spare: Mutex::new(spare()) }
    }

    /// Calls `accept_and_close` while the spare file is closed. Returns false if there is no spare
    /// file.
    pub(super) fn with_spare_file(&self, accept_and_close: impl FnOnce()) -> bool {
        let mut file = lock(&self.spare);
        let had_one = file.take().is_some();
        if had_one {
            accept_and_close();
        }
        *file = spare();
        had_one
    }
}

/// Returns whether the process or the system has no file descriptor left.
pub(crate) fn is_of_files(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE))
}

/// Returns whether a connection waits to be accepted. Where no file descriptor is left, accepting says so
/// before it looks: without this, a connection would be evicted for nobody.
pub(crate) fn is_somebody_waiting(listener: &impl AsRawFd) -> bool {
    let listener = pollfd { fd: listener.as_raw_fd(), events: POLLIN, revents: 0 };
    uapi::poll(&mut [listener], 0).is_ok_and(|ready| ready > 0)
}

fn spare() -> Option<File> {
    File::open("/dev/null").ok()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn who_waits_is_seen_without_being_accepted() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        assert!(!is_somebody_waiting(&listener));
        let _client = TcpStream::connect(listener.local_addr().expect("it is bound"));
        assert!(is_somebody_waiting(&listener));
        listener.accept().expect("it waits");
        assert!(!is_somebody_waiting(&listener));
    }
}
