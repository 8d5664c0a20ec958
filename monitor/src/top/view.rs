//! How the table is drawn.

use ratatui::{
    Frame,
    layout::{Constraint, Layout},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Cell, Clear, Paragraph, Row as Cells, Table, TableState},
};

use super::figures::{Column, History, Row, TREND, arrange, percent, short, time};

/// What the user chose.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a key of its own, and all combinations make sense"
)]
pub(super) struct View {
    /// Where the figures come from.
    pub(super) from: String,
    pub(super) column: Column,
    pub(super) reverse: bool,
    pub(super) filter: String,
    /// Whether the filter is being typed.
    pub(super) typing: bool,
    pub(super) paused: bool,
    pub(super) help: bool,
    /// What went wrong last, until something goes right.
    pub(super) trouble: Option<String>,
    pub(super) state: TableState,
    pub(super) look: Look,
}

/// What the terminal can show.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    pub(super) colours: bool,
    pub(super) unicode: bool,
}

const KEYS: &str = "q quit  ←→ sort by  r reverse  / filter  p pause  ↑↓ scroll  ? help";
const HELP: [&str; 11] = [
    "Any key closes this.",
    "",
    "q, Ctrl-C     quit",
    "left, right   sort by another column (also < and >)",
    "r             reverse the order",
    "/             filter by service, method or route; Enter ends, Esc clears",
    "p, space      pause, and go on",
    "up, down      scroll; PgUp, PgDn, Home, End",
    "",
    "Figures are of the last seconds. P50, P99: first request byte read to last response byte written.",
    "QUEUE: the wait for a free worker (p99). ERR%: statuses from 500, and requests without an answer.",
];

impl Look {
    fn colour(self, colour: Color) -> Style {
        if self.colours { Style::new().fg(colour) } else { Style::new() }
    }

    /// A row of bars.
    pub(super) fn trend(self, rates: &[f64]) -> String {
        let bars: Vec<char> = if self.unicode { "▁▂▃▄▅▆▇█" } else { "_.-=+*%#" }.chars().collect();
        let most = rates.iter().copied().fold(0.0, f64::max);
        let bar = |rate: &f64| match rate / most {
            share if share > 0.0 => {
                let index = (share * bars.len() as f64).ceil().max(1.0);
                bars[(index as isize).unsigned_abs().min(bars.len()) - 1]
            }
            _ => ' ',
        };
        rates.iter().map(bar).collect()
    }
}

impl View {
    pub(super) fn new(from: String, column: Column, look: Look) -> Self {
        Self {
            from,
            column,
            reverse: false,
            filter: String::new(),
            typing: false,
            paused: false,
            help: false,
            trouble: None,
            state: TableState::default(),
            look,
        }
    }

    /// The columns that fit, with their widths.
    pub(super) fn columns(width: u16, services: usize) -> Vec<(Column, u16)> {
        let mut columns = vec![
            (Column::Method, 7),
            (Column::Route, 0),
            (Column::Rate, 7),
            (Column::P50, 8),
            (Column::P99, 8),
            (Column::Errors, 6),
            (Column::Queue, 8),
            (Column::Out, 7),
        ];
        if width >= 90 {
            columns.push((Column::In, 7));
        }
        if width >= 100 {
            columns.push((Column::Total, 8));
        }
        if services > 1 && width >= 90 {
            columns.insert(0, (Column::Service, 14));
        }
        columns
    }

    /// Draws everything.
    pub(super) fn draw(&mut self, frame: &mut Frame<'_>, history: &History) {
        let areas = Layout::vertical([
            Constraint::Length(1),
            Constraint::Length(1),
            Constraint::Length(1),
            Constraint::Min(1),
            Constraint::Length(1),
        ]);
        let [title, workers, books, table, footer] = areas.areas(frame.area());
        frame.render_widget(self.title(history), title);
        frame.render_widget(Line::raw(workers_line(history)), workers);
        frame.render_widget(self.books(history), books);
        self.table(frame, table, history);
        frame.render_widget(self.footer(), footer);
        if self.help {
            frame.render_widget(Clear, table);
            frame.render_widget(Paragraph::new(HELP.map(Line::raw).to_vec()), table);
        }
    }

    fn title(&self, history: &History) -> Line<'static> {
        let bold = Style::new().add_modifier(Modifier::BOLD);
        let mut spans = vec![Span::styled("httpmon ", bold), Span::raw(self.from.clone())];
        if let Some(trouble) = &self.trouble {
            spans.push(Span::styled(format!("  {trouble}"), self.look.colour(Color::Red)));
        } else if let Some(all) = history.all() {
            spans.push(Span::styled(format!("  {} req/s", short(all.rate)), bold));
            let errors = percent(all.errors);
            let style = if all.errors > Some(0.0) { self.look.colour(Color::Red) } else { Style::new() };
            spans.push(Span::styled(format!("  errors {errors} %"), style));
            spans.push(Span::raw(format!("  p50 {}  p99 {}", time(all.p50), time(all.p99))));
        } else {
            spans.push(Span::raw("  collecting..."));
        }
        if self.paused {
            spans.push(Span::styled("  PAUSED", self.look.colour(Color::Yellow)));
        }
        Line::from(spans)
    }

    fn books(&self, history: &History) -> Line<'static> {
        let Some(latest) = history.latest() else { return Line::default() };
        let books = &latest.books;
        let text = format!(
            "lost {} events, {} requests; seen {} = finished {} + in flight {} + unanswered {} + ignored {}",
            books.events_lost,
            books.requests_lost,
            books.seen,
            books.finished,
            books.active,
            books.unanswered,
            books.ignored
        );
        let lost = books.events_lost > 0 || books.requests_lost > 0;
        Line::styled(
            text,
            if lost { self.look.colour(Color::Red) } else { self.look.colour(Color::DarkGray) },
        )
    }

    fn table(&mut self, frame: &mut Frame<'_>, area: ratatui::layout::Rect, history: &History) {
        let services = history.workers().len();
        let columns = Self::columns(area.width, services);
        let rows = arrange(history.rows(), &self.filter, self.column, self.reverse);
        if rows.is_empty() {
            let why = if history.latest().is_none() {
                ""
            } else if self.filter.is_empty() {
                "No request yet. Send one to the service, and it shows here."
            } else {
                "Nothing matches the filter. Esc clears it."
            };
            frame.render_widget(Paragraph::new(format!("\n{why}")), area);
            return;
        }
        let has_trend = area.width >= 100 + TREND as u16;
        let arrow = if self.reverse { '^' } else { 'v' };
        let mut header: Vec<Cell<'_>> = columns
            .iter()
            .map(|(column, _)| {
                let name = title_of(*column);
                let sorted = *column == self.column;
                let text = if sorted { format!("{name}{arrow}") } else { name.to_owned() };
                let style = if sorted { Modifier::REVERSED | Modifier::BOLD } else { Modifier::BOLD };
                aligned(*column, text).style(Style::new().add_modifier(style))
            })
            .collect();
        let mut widths: Vec<_> = columns
            .iter()
            .map(|&(column, width)| match column {
                Column::Route => Constraint::Fill(1),
                _ => Constraint::Length(width),
            })
            .collect();
        if has_trend {
            header.push(Cell::from("TREND"));
            widths.push(Constraint::Length(TREND as u16));
        }
        let look = self.look;
        let cells = rows.iter().map(|row| {
            let mut cells: Vec<Cell<'_>> = columns
                .iter()
                .map(|&(column, _)| aligned(column, text(row, column)).style(style(look, row, column)))
                .collect();
            if has_trend {
                cells.push(Cell::from(look.trend(&row.trend)).style(look.colour(Color::Cyan)));
            }
            Cells::new(cells)
        });
        let last = rows.len() - 1;
        if let Some(selected) = self.state.selected() {
            self.state.select(Some(selected.min(last)));
        }
        let table = Table::new(cells, widths)
            .header(Cells::new(header))
            .column_spacing(1)
            .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
        frame.render_stateful_widget(table, area, &mut self.state);
    }

    fn footer(&self) -> Line<'static> {
        if self.typing {
            return Line::raw(format!("filter: {}_  (Enter ends, Esc clears)", self.filter));
        }
        let keys = if self.look.unicode {
            KEYS.to_owned()
        } else {
            KEYS.replace("←→", "<>").replace("↑↓", "up/down")
        };
        let filter =
            if self.filter.is_empty() { String::new() } else { format!("  [filter: {}]", self.filter) };
        Line::styled(keys + &filter, self.look.colour(Color::DarkGray))
    }
}

/// The same as text, for those who have no terminal.
pub(super) fn plain(history: &History, column: Column) -> String {
    const COLUMNS: [Column; 11] = [
        Column::Service,
        Column::Method,
        Column::Route,
        Column::Rate,
        Column::P50,
        Column::P99,
        Column::Errors,
        Column::Queue,
        Column::In,
        Column::Out,
        Column::Total,
    ];
    let rows = arrange(history.rows(), "", column, false);
    let mut lines: Vec<Vec<String>> = vec![COLUMNS.map(|column| title_of(column).to_owned()).to_vec()];
    lines.extend(rows.iter().map(|row| COLUMNS.map(|column| text(row, column)).to_vec()));
    let widths: Vec<usize> = (0..COLUMNS.len())
        .map(|index| lines.iter().map(|line| line[index].chars().count()).max().unwrap_or(0))
        .collect();
    let mut out = String::new();
    for line in &lines {
        let cells = line.iter().zip(&widths).zip(COLUMNS).map(|((cell, &width), column)| {
            if is_name(column) { format!("{cell:width$}") } else { format!("{cell:>width$}") }
        });
        out.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        out.push('\n');
    }
    out + &workers_line(history) + "\n"
}

fn workers_line(history: &History) -> String {
    let workers = history.workers().into_iter().map(|workers| {
        let busy = workers.busy.map_or_else(String::new, |busy| format!(", {busy:.1} busy"));
        let memory = workers.resident_bytes as f64 / f64::from(1 << 20);
        format!("{}: {} processes{busy}, {memory:.0} MiB", workers.service, workers.count)
    });
    workers.collect::<Vec<_>>().join("; ")
}

fn title_of(column: Column) -> &'static str {
    match column {
        Column::Service => "SERVICE",
        Column::Method => "METHOD",
        Column::Route => "ROUTE",
        Column::Rate => "REQ/S",
        Column::P50 => "P50",
        Column::P99 => "P99",
        Column::Errors => "ERR%",
        Column::Queue => "QUEUE",
        Column::In => "IN/S",
        Column::Out => "OUT/S",
        Column::Total => "TOTAL",
    }
}

fn is_name(column: Column) -> bool {
    matches!(column, Column::Service | Column::Method | Column::Route)
}

fn aligned(column: Column, text: String) -> Cell<'static> {
    let line = Line::from(text);
    Cell::from(if is_name(column) { line.left_aligned() } else { line.right_aligned() })
}

fn text(row: &Row, column: Column) -> String {
    let now = row.now.as_ref();
    let number =
        |of: fn(&super::figures::Figures) -> f64| now.map_or_else(|| "-".to_owned(), |now| short(of(now)));
    let clean = |name: &str| name.chars().map(|char| if char.is_control() { '?' } else { char }).collect();
    match column {
        Column::Service => clean(&row.service),
        Column::Method => clean(&row.method),
        Column::Route => clean(&row.route),
        Column::Rate => number(|now| now.rate),
        Column::P50 => time(now.and_then(|now| now.p50)),
        Column::P99 => time(now.and_then(|now| now.p99)),
        Column::Errors => percent(now.and_then(|now| now.errors)),
        Column::Queue => time(now.and_then(|now| now.queue)),
        Column::In => number(|now| now.received),
        Column::Out => number(|now| now.sent),
        Column::Total => short(row.total as f64),
    }
}

fn style(look: Look, row: &Row, column: Column) -> Style {
    let errors = row.now.as_ref().and_then(|now| now.errors).unwrap_or(0.0);
    match column {
        Column::Errors if errors > 0.0 => look.colour(Color::Red),
        Column::Route => look.colour(Color::Green),
        _ => Style::new(),
    }
}

#[cfg(test)]
mod tests {
    use ratatui::{Terminal, backend::TestBackend};

    use super::*;
    use crate::summary::{Books, Histogram, Route, Service, Summary};

    const LOOK: Look = Look { colours: false, unicode: true };

    fn history() -> History {
        let mut history = History::default();
        for second in 1..=20_u64 {
            let route = |method: &str, route: &str, requests: u64, errors: u64| Route {
                service: "gunicorn".into(),
                method: method.into(),
                route: route.into(),
                requests,
                errors,
                sent_bytes: requests as f64 * 512.0,
                duration: Histogram { sum: 0.0, buckets: vec![requests, requests / 10, 0] },
                queue: Histogram { sum: 0.0, buckets: vec![requests, 0, 0] },
                ..Route::default()
            };
            history.add(Summary {
                version: "0.1.0".into(),
                time: second as f64,
                bounds: vec![0.001, 0.01],
                routes: vec![
                    route("GET", "/items/{id}", second * 120, 0),
                    route("POST", "/items", second * second, second),
                    route("GET", "/a/very/long/route/that/does/not/fit/in/a/narrow/terminal", second, 0),
                ],
                services: vec![Service {
                    service: "gunicorn".into(),
                    workers: 5,
                    busy_seconds: second as f64 * 1.5,
                    resident_bytes: 100 << 20,
                    ..Service::default()
                }],
                books: Books { seen: second * 130, finished: second * 130, ..Books::default() },
                ..Summary::default()
            });
        }
        history
    }

    fn drawn(view: &mut View, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        let history = history();
        terminal.draw(|frame| view.draw(frame, &history)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn it_fits_an_old_terminal_and_a_wide_one() {
        let mut view = View::new("http://127.0.0.1:9464".into(), Column::Rate, LOOK);
        insta::assert_snapshot!(drawn(&mut view, 80, 12));
        insta::assert_snapshot!(drawn(&mut view, 130, 10));
    }

    #[test]
    fn no_size_is_too_small() {
        for (width, height) in [(1, 1), (10, 3), (20, 5), (79, 6)] {
            let mut view = View::new(String::new(), Column::Rate, LOOK);
            view.state.select(Some(2));
            drawn(&mut view, width, height);
            view.help = true;
            drawn(&mut view, width, height);
        }
    }

    #[test]
    fn the_plain_table_has_all_columns() {
        insta::assert_snapshot!(plain(&history(), Column::Total));
    }

    #[test]
    fn a_terminal_without_unicode_has_trends_too() {
        let ascii = Look { colours: false, unicode: false };
        assert_eq!(ascii.trend(&[0.0, 1.0, 4.0, 8.0]), " _=#");
        assert_eq!(LOOK.trend(&[0.0, 1.0, 4.0, 8.0]), " ▁▄█");
    }
}
