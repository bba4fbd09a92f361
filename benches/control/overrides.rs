//! Sticky Keep Alives of very many clients: the time to set them, their memory, and the start.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use hearthmq::{Broker, auth::AllowAll, control::SetKeepAlive, store::DirectoryStore};

/// Values that one call sets.
const AT_ONCE: usize = 10_000;

pub(crate) async fn measure(overrides: usize, shards: usize) {
    let directory = tempfile::tempdir().unwrap();
    let broker = start(directory.path(), shards).await;
    let (began, before) = (Instant::now(), resident_bytes());
    for first in (0..overrides).step_by(AT_ONCE) {
        let requests = (first..overrides.min(first + AT_ONCE)).map(|number| {
            let mut request = SetKeepAlive::new(format!("meter-{number:08}"), 600).by("bench");
            request.is_sticky = true;
            request
        });
        let set = broker.set_keep_alive_many(requests.collect()).await;
        assert!(set.iter().all(Result::is_ok), "{:?}", set.iter().find(|set| set.is_err()));
    }
    let bytes = resident_bytes().saturating_sub(before);
    println!(
        "{overrides} sticky Keep Alives: set in {:.1?}, {} bytes of memory for each",
        began.elapsed(),
        bytes / overrides as u64
    );
    broker.shutdown(Duration::from_secs(60)).await;
    // The lock of the directory must be free for the second start.
    drop(broker);
    let began = Instant::now();
    let broker = start(directory.path(), shards).await;
    println!("start with them: {:.1?}", began.elapsed());
    broker.shutdown(Duration::from_secs(60)).await;
}

async fn start(directory: &Path, shards: usize) -> Broker {
    let broker = Broker::builder().authenticator(AllowAll).authorizer(AllowAll);
    let store = DirectoryStore::open(directory).unwrap();
    broker.store(store).shards(shards).start().await.unwrap()
}

fn resident_bytes() -> u64 {
    let text = fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap() * 4096
}
