//! The state of the screen, and the effect of keys. Knows neither the terminal nor the broker.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::{SortBy, numbers::TopNumbers, reader::WantedNumbers};

/// The state of the screen.
pub(super) struct State {
    pub(super) numbers: TopNumbers,
    pub(super) wanted: WantedNumbers,
    /// The client that is selected, by its place and its identifier.
    pub(super) selected: Option<(usize, String)>,
    /// The text of the filter while it is being written.
    pub(super) typed: Option<String>,
    /// Whether the screen is frozen.
    pub(super) is_paused: bool,
    /// The last failure, while there is one.
    pub(super) failure: Option<String>,
    /// The first line that is shown of a client in full.
    pub(super) scrolled: u16,
}

/// The action that follows a key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum AfterKey {
    /// Continue.
    Stay,
    /// Ask the broker again now.
    Ask,
    /// End.
    Quit,
}

impl State {
    pub(super) const fn new(numbers: TopNumbers, wanted: WantedNumbers) -> Self {
        Self {
            numbers,
            wanted,
            selected: None,
            typed: None,
            is_paused: false,
            failure: None,
            scrolled: 0,
        }
    }

    /// Takes new numbers, or a failure. The selected client stays selected.
    pub(super) fn take(&mut self, numbers: Result<TopNumbers, String>) {
        match numbers {
            Ok(numbers) if !self.is_paused => {
                (self.numbers, self.failure) = (numbers, None);
                self.find_selected();
            }
            Ok(_) => {}
            Err(failure) => self.failure = Some(failure),
        }
    }

    fn find_selected(&mut self) {
        let Some((place, client_id)) = self.selected.take() else { return };
        let ids = self.numbers.clients.iter().map(|client| &client["client_id"]);
        let found = ids.clone().position(|id| *id == *client_id);
        let last = ids.len().checked_sub(1);
        let place = found.or_else(|| last.map(|last| place.min(last)));
        self.selected = place.and_then(|place| Some((place, self.id_at(place)?)));
    }

    fn id_at(&self, place: usize) -> Option<String> {
        self.numbers.clients.get(place)?["client_id"].as_str().map(str::to_owned)
    }

    /// Does what a key says.
    #[expect(clippy::wildcard_enum_match_arm, reason = "most keys do nothing")]
    pub(super) fn press(&mut self, key: KeyEvent) -> AfterKey {
        // The terminal is in raw mode, so Ctrl-C is a key like the others.
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return AfterKey::Quit;
        }
        // While a filter is typed, letters are text and not commands.
        if self.typed.is_some() {
            return self.type_filter(key.code);
        }
        match key.code {
            KeyCode::Char('q') => return AfterKey::Quit,
            KeyCode::Char(' ') => {
                self.is_paused = !self.is_paused;
                return AfterKey::Stay;
            }
            KeyCode::Esc | KeyCode::Backspace => {
                // One step back for each key: from the client to the list, then the selection.
                let was_shown = self.wanted.shown.take().is_some();
                if !was_shown {
                    self.selected = None;
                }
                return if was_shown { AfterKey::Ask } else { AfterKey::Stay };
            }
            KeyCode::Down | KeyCode::Char('j') => self.move_by(1),
            KeyCode::Up | KeyCode::Char('k') => self.move_by(-1),
            KeyCode::PageDown => self.move_by(10),
            KeyCode::PageUp => self.move_by(-10),
            KeyCode::Enter => {
                if let Some((_, client_id)) = &self.selected {
                    (self.wanted.shown, self.scrolled) = (Some(client_id.clone()), 0);
                    return AfterKey::Ask;
                }
            }
            KeyCode::Char('/') => self.typed = Some(self.wanted.filter.clone()),
            KeyCode::Char('s') => return self.sort_by(1),
            KeyCode::Char(digit @ '1'..='6') => {
                let place = digit as usize - '1' as usize;
                self.wanted.sort = SortBy::ALL[place];
                return AfterKey::Ask;
            }
            _ => {}
        }
        AfterKey::Stay
    }

    fn sort_by(&mut self, step: usize) -> AfterKey {
        let now = SortBy::ALL.iter().position(|by| *by == self.wanted.sort).unwrap_or_default();
        self.wanted.sort = SortBy::ALL[(now + step) % SortBy::ALL.len()];
        AfterKey::Ask
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "most keys write nothing")]
    fn type_filter(&mut self, key: KeyCode) -> AfterKey {
        let Some(typed) = &mut self.typed else { return AfterKey::Stay };
        match key {
            KeyCode::Char(character) => typed.push(character),
            KeyCode::Backspace => drop(typed.pop()),
            KeyCode::Esc => self.typed = None,
            KeyCode::Enter => {
                self.wanted.filter = std::mem::take(typed);
                self.typed = None;
                return AfterKey::Ask;
            }
            _ => {}
        }
        AfterKey::Stay
    }

    /// Moves the selection, or the lines of a client in full.
    fn move_by(&mut self, lines: i16) {
        if self.wanted.shown.is_some() {
            self.scrolled = self.scrolled.saturating_add_signed(lines);
            return;
        }
        let last = self.numbers.clients.len().saturating_sub(1);
        let place = match &self.selected {
            None => 0,
            Some((place, _)) => place.saturating_add_signed(lines.into()).min(last),
        };
        self.selected = self.id_at(place).map(|client_id| (place, client_id));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn state(ids: &[&str]) -> State {
        let wanted = WantedNumbers {
            sort: SortBy::MessagesIn,
            limit: 20,
            filter: String::new(),
            shown: None,
        };
        State::new(numbers(ids), wanted)
    }

    fn numbers(ids: &[&str]) -> TopNumbers {
        let clients = ids.iter().map(|id| json!({ "client_id": id })).collect();
        TopNumbers { clients, ..TopNumbers::default() }
    }

    fn press(state: &mut State, keys: &str) -> AfterKey {
        let mut next = AfterKey::Stay;
        for key in keys.chars() {
            let code = match key {
                '\n' => KeyCode::Enter,
                '\u{1b}' => KeyCode::Esc,
                '\u{8}' => KeyCode::Backspace,
                other => KeyCode::Char(other),
            };
            next = state.press(KeyEvent::new(code, KeyModifiers::NONE));
        }
        next
    }

    #[test]
    fn a_selected_client_stays_selected_wherever_it_goes() {
        let mut state = state(&["a", "b", "c"]);
        press(&mut state, "jj");
        assert_eq!(state.selected, Some((1, "b".into())));
        state.take(Ok(numbers(&["b", "x", "a"])));
        assert_eq!(state.selected, Some((0, "b".into())));
        state.take(Ok(numbers(&["x"])));
        assert_eq!(state.selected, Some((0, "x".into())), "it is gone");
        state.take(Ok(numbers(&[])));
        assert_eq!(state.selected, None);
    }

    #[test]
    fn a_client_is_shown_in_full_and_left_again() {
        let mut state = state(&["a"]);
        assert_eq!(press(&mut state, "\n"), AfterKey::Stay, "none is selected");
        assert_eq!(press(&mut state, "j\n"), AfterKey::Ask);
        assert_eq!(state.wanted.shown.as_deref(), Some("a"));
        press(&mut state, "jjk");
        assert_eq!(state.scrolled, 1);
        assert_eq!(press(&mut state, "\u{1b}"), AfterKey::Ask);
        assert_eq!(state.wanted.shown, None);
    }

    #[test]
    fn a_filter_is_written_and_may_have_any_letter() {
        let mut state = state(&["a"]);
        assert_eq!(press(&mut state, "/qsx\u{8}\n"), AfterKey::Ask);
        assert_eq!(state.wanted.filter, "qs");
        press(&mut state, "/more\u{1b}");
        assert_eq!((&*state.wanted.filter, &state.typed), ("qs", &None));
        assert_eq!(press(&mut state, "q"), AfterKey::Quit);
    }

    #[test]
    fn what_is_shown_stays_during_a_pause_and_after_a_failure() {
        let mut state = state(&["a"]);
        press(&mut state, " ");
        state.take(Ok(numbers(&["b"])));
        assert_eq!(state.id_at(0).as_deref(), Some("a"));
        press(&mut state, " ");
        state.take(Err("gone".into()));
        assert_eq!(
            (state.id_at(0).as_deref(), state.failure.as_deref()),
            (Some("a"), Some("gone"))
        );
        state.take(Ok(numbers(&["b"])));
        assert_eq!((state.id_at(0).as_deref(), &state.failure), (Some("b"), &None));
        assert_eq!(press(&mut state, "6s"), AfterKey::Ask);
        assert_eq!(state.wanted.sort, SortBy::MessagesIn);
    }
}
