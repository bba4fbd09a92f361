//! The terminal: keys, sizes, and new numbers, which another thread reads.
//!
//! However the command ends, the terminal is restored: ratatui does this after a panic too.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread,
    time::Duration,
};

use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyEventKind},
};
use tokio::{
    runtime::Builder,
    signal::unix::{SignalKind, signal},
};

use super::{
    numbers::TopNumbers,
    reader::{EVERY, TopReader, WantedNumbers},
    state::{AfterKey, State},
    view,
};

/// The time between two looks for new numbers and signals.
const LOOK_EVERY: Duration = Duration::from_millis(50);

type NumbersRead = Result<TopNumbers, String>;

/// Shows the numbers until a key or a signal ends that.
pub(super) fn show(reader: TopReader, wanted: WantedNumbers, first: TopNumbers) -> io::Result<()> {
    let is_ended = watch_signals();
    let mut terminal = ratatui::try_init()?;
    let ended = run(&mut terminal, (reader, wanted, first), &is_ended);
    ratatui::try_restore()?;
    ended
}

/// Returns a flag that is set when a signal has come.
fn watch_signals() -> Arc<AtomicBool> {
    let is_ended = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&is_ended);
    // A thread of its own, because the main one waits for keys.
    thread::spawn(move || -> io::Result<()> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut interrupted = signal(SignalKind::interrupt())?;
            let mut terminated = signal(SignalKind::terminate())?;
            let mut hung_up = signal(SignalKind::hangup())?;
            tokio::select! {
                _ = interrupted.recv() => {}
                _ = terminated.recv() => {}
                _ = hung_up.recv() => {}
            }
            told.store(true, Ordering::Relaxed);
            Ok(())
        })
    });
    is_ended
}

#[expect(clippy::wildcard_enum_match_arm, reason = "only keys and sizes are looked at")]
fn run(
    terminal: &mut DefaultTerminal,
    (reader, wanted, first): (TopReader, WantedNumbers, TopNumbers),
    is_ended: &AtomicBool,
) -> io::Result<()> {
    let mut state = State::new(first, wanted);
    let (ask, asked) = channel();
    let (tell, told) = channel();
    let begin = state.wanted.clone();
    // Calls may take seconds, and keys must work meanwhile.
    thread::spawn(move || read(reader, begin, &asked, &tell));
    let mut is_changed = true;
    while !is_ended.load(Ordering::Relaxed) {
        let rows = view::rows(terminal.size()?.height).clamp(1, 1_000);
        if state.wanted.limit != rows {
            state.wanted.limit = rows;
            drop(ask.send(state.wanted.clone()));
        }
        if is_changed {
            terminal.draw(|frame| view::draw(frame, &state))?;
        }
        is_changed = event::poll(LOOK_EVERY)?;
        if is_changed {
            match event::read()? {
                // Some terminals also report that a key is released.
                Event::Key(key) if key.kind == KeyEventKind::Press => match state.press(key) {
                    AfterKey::Quit => return Ok(()),
                    AfterKey::Ask => drop(ask.send(state.wanted.clone())),
                    AfterKey::Stay => {}
                },
                _ => {} // A new size is drawn.
            }
        }
        for answer in told.try_iter() {
            state.take(answer);
            is_changed = true;
        }
    }
    Ok(())
}

/// Reads the numbers each second, and after a change of the request, until the receiver has gone.
fn read(
    mut reader: TopReader,
    mut wanted: WantedNumbers,
    asked: &Receiver<WantedNumbers>,
    tell: &Sender<NumbersRead>,
) {
    loop {
        match asked.recv_timeout(EVERY) {
            // Only the newest request: several keys in a second cause one call.
            Ok(next) => wanted = asked.try_iter().last().unwrap_or(next),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let answer = reader.read(&wanted).map_err(|error| error.to_string());
        if tell.send(answer).is_err() {
            return;
        }
    }
}
