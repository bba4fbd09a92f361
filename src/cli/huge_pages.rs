//! Huge pages of memory: only for a broker that has much of it.
//!
//! The allocator asks Linux for huge pages for all of its memory. They save time where much memory is
//! in use, but each of them takes 2 MiB, of which a broker with few clients uses a small part. So
//! they are withheld until the memory of the process has grown. Knows the process alone; the
//! command line withholds them first of all, and `run` lets them be allowed.

use std::{fs, time::Duration};

use actix_web::rt::time::sleep;

/// The process gets huge pages when it has this much memory of its own. They may then take a few MiB
/// more than is in use. Three hashes of passwords at the same time do not reach it.
const MEMORY_KIB: u64 = 64 * 1024;

/// The time between two looks at the memory of the process. One takes 20 to 30 µs.
const PAUSE: Duration = Duration::from_secs(1);

/// Huge pages that are withheld.
pub(super) struct WithheldHugePages(());

impl WithheldHugePages {
    /// Withholds huge pages from this process. Returns `None` where there is nothing to allow later:
    /// the system cannot withhold them, or the environment has done so already.
    pub(super) fn withhold() -> Option<Self> {
        if sys::are_withheld() {
            return None;
        }
        sys::withhold(true).then_some(Self(()))
    }

    /// Allows huge pages once the process has much memory, and returns then.
    pub(super) async fn allow_when_large(self) {
        while own_memory_kib().is_some_and(|memory| memory < MEMORY_KIB) {
            sleep(PAUSE).await;
        }
        let allowed = sys::withhold(false);
        tracing::debug!(allowed, "the memory of the process may have huge pages from now on");
    }
}

/// Returns the memory that belongs to no file; `None` where the system does not tell it.
fn own_memory_kib() -> Option<u64> {
    own_memory_kib_in(&fs::read_to_string("/proc/self/status").ok()?)
}

fn own_memory_kib_in(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

#[cfg(target_os = "linux")]
mod sys {
    use rustix::thread::{disable_transparent_huge_pages, transparent_huge_pages_are_disabled};

    /// Returns whether this process gets no huge pages. An old system, which cannot tell it, counts as
    /// one that withholds them.
    pub(super) fn are_withheld() -> bool {
        transparent_huge_pages_are_disabled().unwrap_or(true)
    }

    /// Withholds huge pages from the memory of all threads, or allows them. Returns whether it could.
    pub(super) fn withhold(withheld: bool) -> bool {
        disable_transparent_huge_pages(withheld).is_ok()
    }
}

#[cfg(not(target_os = "linux"))]
mod sys {
    pub(super) fn are_withheld() -> bool {
        true
    }

    pub(super) fn withhold(_: bool) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn huge_pages_that_something_else_withholds_are_left_to_it() {
        assert!(sys::withhold(true));
        assert!(WithheldHugePages::withhold().is_none());
    }

    #[test]
    fn memory_of_the_process_itself_is_read_in_kib() {
        let status = "Name:\tx\nVmRSS:\t   9000 kB\nRssAnon:\t    4136 kB\nRssFile:\t 18044 kB\n";
        assert_eq!(own_memory_kib_in(status), Some(4_136));
        assert_eq!(own_memory_kib_in("Name:\tx\nVmRSS:\t   9000 kB\n"), None);
    }
}
