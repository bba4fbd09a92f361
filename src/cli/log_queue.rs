//! The queue before standard error, and the thread that empties it.
//!
//! A write to standard error blocks while nothing reads the pipe behind it. So a single thread
//! writes; all others put lines into a queue, which is limited in lines and bytes. A line that
//! finds no room is dropped and counted. It knows lines as bytes, not what they say.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
        mpsc::{Receiver, Sender, SyncSender, TryRecvError, channel, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use tracing_subscriber::fmt::MakeWriter;

/// Maximum number of waiting lines: a second and a half of a broker that logs 10,000 a second.
const LINES_MAX: usize = 16 * 1024;

/// Maximum number of bytes of the waiting lines.
const BYTES_MAX: usize = 8 * 1024 * 1024;

/// Waiting lines are written together, up to this many bytes at a time.
const BATCH_BYTES: usize = 64 * 1024;

/// Delay before the next try when standard error takes no line (a non-blocking pipe).
const TRY_AGAIN: Duration = Duration::from_millis(10);

/// The thread waits for this time before it writes more, so that lines that come soon after each other wake it once.
const GATHER: Duration = Duration::from_millis(1);

/// Minimum time between two lines about dropped lines.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Name of the thread, by which the panic hook recognizes it.
pub(super) const THREAD_NAME: &str = "log";

enum LogEntry {
    Line(Vec<u8>),
    /// Answered once everything before it is written. Nothing follows the last one.
    Written {
        tell: SyncSender<()>,
        is_last: bool,
    },
}

/// Counters that both ends share.
#[derive(Debug, Default)]
struct LineCounts {
    /// Number of waiting lines. The channel itself has no limit, because one with a limit takes the
    /// memory for all its lines at once.
    lines: AtomicUsize,
    /// Their bytes.
    bytes: AtomicUsize,
    /// Number of lines that found no room, or could not be written.
    dropped: AtomicU64,
}

/// The queue. Clones are handles to the same queue.
#[derive(Clone, Debug)]
pub(super) struct LogQueue {
    entries: Sender<LogEntry>,
    counts: Arc<LineCounts>,
}

impl LogQueue {
    /// Starts the thread that writes the queue to `output`. `tell_dropped` gets the number of lines
    /// dropped so far and puts a line about it into the queue.
    ///
    /// # Errors
    /// The operating system cannot start the thread.
    pub(super) fn start(
        output: impl Write + Send + 'static,
        tell_dropped: fn(u64),
    ) -> io::Result<Self> {
        let (entries, receiver) = channel();
        let counts = Arc::<LineCounts>::default();
        let writing = Writing {
            output,
            counts: Arc::clone(&counts),
            batch: Vec::new(),
            lines: 0,
            told: 0,
            tell_dropped,
            told_at: None,
        };
        let thread = thread::Builder::new().name(THREAD_NAME.to_owned());
        thread.spawn(move || writing.run(&receiver))?;
        Ok(Self { entries, counts })
    }

    /// Returns the number of lines dropped so far.
    pub(super) fn dropped(&self) -> u64 {
        self.counts.dropped.load(Relaxed)
    }

    /// Waits until all earlier lines are written, for `time_max` at most.
    pub(super) fn flush(&self, time_max: Duration) {
        self.wait(time_max, false);
    }

    /// Does the same for the last time: the thread ends.
    pub(super) fn finish(&self, time_max: Duration) {
        self.wait(time_max, true);
    }

    fn wait(&self, time_max: Duration, is_last: bool) {
        let until = Instant::now() + time_max;
        let (tell, told) = sync_channel(1);
        if self.entries.send(LogEntry::Written { tell, is_last }).is_err() {
            return;
        }
        // An answer that comes too late changes nothing.
        let _ = told.recv_timeout(until.saturating_duration_since(Instant::now()));
    }

    fn put(&self, line: &[u8]) {
        let counts = &*self.counts;
        let lines = counts.lines.fetch_add(1, Relaxed) + 1;
        let bytes = counts.bytes.fetch_add(line.len(), Relaxed) + line.len();
        let has_room = lines <= LINES_MAX && bytes <= BYTES_MAX;
        if !has_room || self.entries.send(LogEntry::Line(line.to_vec())).is_err() {
            counts.leave(line);
            counts.dropped.fetch_add(1, Relaxed);
        }
    }
}

impl LineCounts {
    /// Counts a line no longer as waiting.
    fn leave(&self, line: &[u8]) {
        self.lines.fetch_sub(1, Relaxed);
        self.bytes.fetch_sub(line.len(), Relaxed);
    }
}

impl Write for &LogQueue {
    /// Takes one whole line.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.put(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogQueue {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

/// The state of the writing thread.
struct Writing<W> {
    output: W,
    counts: Arc<LineCounts>,
    /// Lines taken out of the queue, to be written next.
    batch: Vec<u8>,
    lines: u64,
    /// Number of dropped lines that were reported.
    told: u64,
    told_at: Option<Instant>,
    tell_dropped: fn(u64),
}

impl<W: Write> Writing<W> {
    fn run(mut self, entries: &Receiver<LogEntry>) {
        // Also ends with the last handle of the queue.
        while let Ok(mut entry) = entries.recv() {
            let mut is_written = true;
            loop {
                match entry {
                    LogEntry::Line(line) => self.gather(&line),
                    // A request to be told comes behind the lines
                    // before it, so they are written first.
                    LogEntry::Written { tell, is_last } => {
                        self.write();
                        if is_last {
                            self.end(entries);
                        }
                        let _ = tell.try_send(());
                        if is_last {
                            return;
                        }
                    }
                }
                let mut next = entries.try_recv();
                if next.is_err() {
                    is_written = self.write();
                    // The queue may have filled up while standard error took nothing.
                    next = entries.try_recv();
                }
                entry = match next {
                    Ok(entry) => entry,
                    Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
                };
            }
            // The queue was empty a moment ago, so the line about dropped lines finds room.
            let is_due = self.told_at.is_none_or(|at| at.elapsed() >= TELL_EVERY);
            if is_written && is_due {
                self.tell_dropped();
            }
            // Lines of the next moment are written together, with one system call.
            thread::sleep(GATHER);
        }
    }

    fn gather(&mut self, line: &[u8]) {
        self.counts.leave(line);
        self.batch.extend_from_slice(line);
        self.lines += 1;
        if self.batch.len() >= BATCH_BYTES {
            self.write();
        }
    }

    /// Writes the gathered lines; returns whether that succeeded. A failure cannot be logged, so
    /// its lines are only counted.
    fn write(&mut self) -> bool {
        let mut rest = self.batch.as_slice();
        while !rest.is_empty() {
            match self.output.write(rest) {
                Ok(0) => break,
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Standard error may be set to non-blocking by another process that shares it.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(TRY_AGAIN),
                Err(_) => break,
            }
        }
        let is_written = rest.is_empty();
        if !is_written {
            self.counts.dropped.fetch_add(self.lines, Relaxed);
        }
        self.batch.clear();
        self.lines = 0;
        is_written
    }

    fn tell_dropped(&mut self) {
        let dropped = self.counts.dropped.load(Relaxed);
        if dropped > self.told {
            self.told = dropped;
            self.told_at = Some(Instant::now());
            (self.tell_dropped)(dropped);
        }
    }

    /// Reports dropped lines that were not reported yet, and writes the remaining lines.
    fn end(&mut self, entries: &Receiver<LogEntry>) {
        self.tell_dropped();
        while let Ok(LogEntry::Line(line)) = entries.try_recv() {
            self.gather(&line);
        }
        self.write();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Condvar, Mutex, PoisonError};

    use super::*;

    const TIME_MAX: Duration = Duration::from_secs(60);

    /// A pipe that blocks until it is opened.
    #[derive(Clone, Default)]
    struct Pipe(Arc<Ends>);

    #[derive(Default)]
    struct Ends {
        /// Whether it is open, and the bytes that it took.
        taken: Mutex<(bool, Vec<u8>)>,
        opened: Condvar,
        /// Whether the thread of the queue has lines that the pipe does not take.
        is_awaited: Mutex<bool>,
        awaited: Condvar,
    }

    impl Pipe {
        fn open(&self) {
            self.0.taken.lock().unwrap().0 = true;
            self.0.opened.notify_all();
        }

        /// Waits until the thread of the queue has lines in its hands.
        fn await_thread(&self) {
            let is_awaited = self.0.is_awaited.lock().unwrap();
            drop(self.0.awaited.wait_while(is_awaited, |is_awaited| !*is_awaited).unwrap());
        }

        fn text(&self) -> String {
            String::from_utf8(self.0.taken.lock().unwrap().1.clone()).unwrap()
        }
    }

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            *self.0.is_awaited.lock().unwrap_or_else(PoisonError::into_inner) = true;
            self.0.awaited.notify_all();
            let taken = self.0.taken.lock().unwrap_or_else(PoisonError::into_inner);
            let mut taken = self.0.opened.wait_while(taken, |(is_open, _)| !*is_open).unwrap();
            taken.1.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_is_put_in_is_written_in_order_before_the_end() {
        let pipe = Pipe::default();
        pipe.open();
        let queue = LogQueue::start(pipe.clone(), |_| {}).unwrap();
        let lines: String = (0..1000).map(|n| format!("{n}\n")).collect();
        for line in lines.split_inclusive('\n') {
            queue.put(line.as_bytes());
        }
        queue.finish(TIME_MAX);
        assert_eq!(pipe.text(), lines);
        assert_eq!(queue.dropped(), 0);
    }

    #[test]
    fn a_pipe_that_nobody_reads_stops_nobody_and_what_is_dropped_is_counted_and_told() {
        static QUEUE: Mutex<Option<LogQueue>> = Mutex::new(None);
        let tell = |dropped: u64| {
            let queue = QUEUE.lock().unwrap().clone().unwrap();
            queue.put(format!("dropped {dropped}\n").as_bytes());
        };
        let pipe = Pipe::default();
        let queue = LogQueue::start(pipe.clone(), tell).unwrap();
        *QUEUE.lock().unwrap() = Some(queue.clone());
        queue.put(b"line\n");
        pipe.await_thread(); // It has found the queue empty, and then the queue fills up.
        for _ in 1..3 * LINES_MAX {
            queue.put(b"line\n");
        }
        let dropped = queue.dropped();
        assert_eq!(dropped, 2 * LINES_MAX as u64 - 1);
        queue.flush(Duration::ZERO); // waits for nothing
        pipe.open();
        queue.flush(TIME_MAX);
        queue.finish(TIME_MAX);
        let text = pipe.text();
        assert_eq!(text.matches("line\n").count() as u64, 3 * LINES_MAX as u64 - dropped);
        assert!(text.contains(&format!("dropped {dropped}\n")));
    }

    #[test]
    fn lines_that_wait_are_bounded_in_bytes() {
        let pipe = Pipe::default();
        let queue = LogQueue::start(pipe, |_| {}).unwrap();
        let line = vec![b'x'; 1024 * 1024];
        for _ in 0..64 {
            queue.put(&line);
        }
        // The thread may hold one line.
        assert!(queue.dropped() >= 64 - 9, "{}", queue.dropped());
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let queue = LogQueue::start(Closed, |_| {}).unwrap();
        queue.put(b"line\n");
        queue.put(b"line\n");
        queue.finish(TIME_MAX);
        assert_eq!(queue.dropped(), 2);
    }
}
