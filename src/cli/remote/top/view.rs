//! Draws the state. Texts of clients are shown escaped.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Modifier, Style, Stylize as _},
    text::Line,
    widgets::{Cell, Paragraph, Row, Table, TableState},
};
use serde_json::Value;

use super::{
    SortBy,
    numbers::{grouped, size},
    state::State,
    text_of,
};
use crate::cli::remote::table::duration;

/// The heads of the columns.
pub(super) const HEAD: [&str; 7] =
    ["CLIENT ID", "IN/S", "OUT/S", "BYTES IN/S", "BYTES OUT/S", "QUEUE", "IDLE"];

/// Lines that are not for clients: summary, head, and keys.
const OTHER_LINES: u16 = 7;

/// Returns the number of clients for which a terminal of this height has room.
pub(super) const fn rows(height: u16) -> usize {
    height.saturating_sub(OTHER_LINES) as usize
}

/// Returns the texts of a client, in the order of [`HEAD`].
pub(super) fn row(client: &Value) -> [String; 7] {
    let number = |value: &Value| value.as_f64().unwrap_or_default();
    let rates = &client["per_sec"];
    [
        text_of(&client["client_id"]),
        grouped(number(&rates["messages_in"])),
        grouped(number(&rates["messages_out"])),
        size(number(&rates["bytes_in"])),
        size(number(&rates["bytes_out"])),
        grouped(number(&client["queued"])),
        duration(client["idle_ms"].as_u64().unwrap_or_default()),
    ]
}

pub(super) fn draw(frame: &mut Frame<'_>, state: &State) {
    let parts = [Constraint::Length(5), Constraint::Min(1), Constraint::Length(1)];
    let [top, middle, bottom] = Layout::vertical(parts).areas(frame.area());
    draw_summary(frame, top, state);
    match &state.numbers.shown {
        Some(shown) if state.wanted.shown.is_some() => draw_client(frame, middle, state, shown),
        _ => draw_clients(frame, middle, state),
    }
    frame.render_widget(Paragraph::new(keys(state)), bottom);
}

fn draw_summary(frame: &mut Frame<'_>, area: Rect, state: &State) {
    let mut lines: Vec<Line<'_>> = state.numbers.summary().into_iter().map(Line::from).collect();
    if let Some(first) = lines.first_mut() {
        *first = std::mem::take(first).bold();
    }
    lines.truncate(4);
    let failure =
        state.failure.as_deref().map(|failure| Line::from(text_of(&failure.into())).red());
    let paused = state.is_paused.then(|| Line::from("paused; space goes on").yellow());
    lines.push(failure.or(paused).unwrap_or_default());
    frame.render_widget(Paragraph::new(lines), area);
}

fn draw_clients(frame: &mut Frame<'_>, area: Rect, state: &State) {
    let sorted = SortBy::ALL.iter().position(|by| *by == state.wanted.sort).map(|place| place + 1);
    let head = HEAD.iter().enumerate().map(|(place, name)| {
        let style = Style::new().add_modifier(Modifier::REVERSED);
        let style = if Some(place) == sorted { style.bold().underlined() } else { style };
        Cell::from(aligned(place, (*name).to_owned())).style(style)
    });
    let widths = [
        // Identifiers take the rest; fixed widths keep the numbers in their places.
        Constraint::Min(12),
        Constraint::Length(8),
        Constraint::Length(8),
        Constraint::Length(10),
        Constraint::Length(11),
        Constraint::Length(8),
        Constraint::Length(12),
    ];
    let rows = state.numbers.clients.iter().map(|client| {
        let cells = row(client).into_iter().enumerate();
        Row::new(cells.map(|(place, text)| aligned(place, text)))
    });
    let table = Table::new(rows, widths)
        .header(Row::new(head).style(Style::new().add_modifier(Modifier::REVERSED)))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let selected = state.selected.as_ref().map(|(place, _)| *place);
    // Made for each frame: the selection follows the client, which may be in another row.
    let mut at = TableState::default().with_selected(selected);
    frame.render_stateful_widget(table, area, &mut at);
}

/// Aligns numbers to the right.
fn aligned(place: usize, text: String) -> Line<'static> {
    let line = Line::from(text);
    if place == 0 { line.left_aligned() } else { line.right_aligned() }
}

fn draw_client(frame: &mut Frame<'_>, area: Rect, state: &State, shown: &Result<Value, String>) {
    let mut lines = Vec::new();
    match shown {
        Ok(client) => members(client, "", &mut lines),
        Err(why) => lines.push(text_of(&Value::from(&**why))),
    }
    let last = u16::try_from(lines.len()).unwrap_or(u16::MAX).saturating_sub(area.height);
    let lines = lines.into_iter().map(Line::from).collect::<Vec<_>>();
    let scrolled = state.scrolled.min(last);
    frame.render_widget(Paragraph::new(lines).scroll((scrolled, 0)), area);
}

/// Adds a line for each member of an object; those of objects in it are indented.
fn members(object: &Value, indent: &str, lines: &mut Vec<String>) {
    for (name, value) in object.as_object().into_iter().flatten() {
        if value.is_object() {
            lines.push(format!("{indent}{}:", text_of(&Value::from(&**name))));
            members(value, &format!("{indent}  "), lines);
        } else {
            let shown = crate::cli::remote::table::field(object, name);
            lines.push(format!("{indent}{}: {shown}", text_of(&Value::from(&**name))));
        }
    }
}

/// Returns the last line.
fn keys(state: &State) -> Line<'static> {
    if let Some(typed) = &state.typed {
        let typed = text_of(&Value::from(&**typed));
        return Line::from(format!("filter: {typed}_   enter: use it, esc: leave it")).yellow();
    }
    if state.wanted.shown.is_some() {
        return Line::from("esc: back   ↑ ↓: move   space: pause   q: quit").dim();
    }
    let filter = match &*state.wanted.filter {
        "" => String::new(),
        filter => format!("   [{}]", text_of(&Value::from(filter))),
    };
    let keys = "q: quit  1-6, s: sort  /: filter  ↑ ↓ enter: one client  space: pause";
    Line::from(format!("{keys}{filter}")).dim()
}

#[cfg(test)]
mod tests {
    use ratatui::{Terminal, backend::TestBackend};
    use serde_json::json;

    use super::*;
    use crate::cli::remote::top::{numbers::TopNumbers, reader::WantedNumbers};

    fn shown(state: &State, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, state)).unwrap();
        let buffer = terminal.backend().buffer();
        let row = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
        (0..height).map(row).map(|line| line.trim_end().to_owned()).collect()
    }

    fn state() -> State {
        let client = |id: &str| {
            json!({ "client_id": id, "queued": 1_234, "idle_ms": 61_000, "per_sec": {
                "messages_in": 12_345, "messages_out": 7, "bytes_in": 2_048, "bytes_out": 0 } })
        };
        let clients = (0..100).map(|number| client(&format!("\u{1b}[2Jcar-{number}"))).collect();
        let numbers = TopNumbers { clients, ..TopNumbers::default() };
        let wanted =
            WantedNumbers { sort: SortBy::Queued, limit: 17, filter: "car".into(), shown: None };
        State::new(numbers, wanted)
    }

    #[test]
    fn everything_fits_on_a_terminal_of_80_columns_and_24_lines() {
        let lines = shown(&state(), 80, 24);
        assert_eq!(lines[0], "hearthmq");
        let head =
            "CLIENT ID              IN/S    OUT/S BYTES IN/S BYTES OUT/S    QUEUE         IDLE";
        assert_eq!(
            lines[5].split_whitespace().collect::<Vec<_>>(),
            head.split_whitespace().collect::<Vec<_>>()
        );
        assert!(lines[6].starts_with("\\u{1b}[2Jcar"), "{lines:?}");
        for text in ["12,345", "2.0 KiB", "1,234", "1 min 1 s"] {
            assert!(lines[6].contains(text), "{text}: {lines:?}");
        }
        assert_eq!(lines.iter().filter(|line| line.contains("[2Jcar")).count(), rows(24));
        assert!(lines[23].starts_with("q: quit") && lines[23].contains("[car]"), "{lines:?}");
    }

    #[test]
    fn a_terminal_of_any_size_is_drawn() {
        let mut state = state();
        for (width, height) in [(1, 1), (10, 3), (79, 7), (80, 8), (300, 100)] {
            drop(shown(&state, width, height));
        }
        state.wanted.shown = Some("car".into());
        state.numbers.shown =
            Some(Ok(json!({ "client_id": "car", "connection": { "queued": 5 } })));
        state.scrolled = 1_000;
        let lines = shown(&state, 80, 24);
        assert_eq!(lines[5..8], ["client_id: car", "connection:", "  queued: 5"]);
        drop(shown(&state, 1, 1));
    }
}
