//! `httpmon top`: a live table in the terminal, of a running agent or of probes of its own.

mod figures;
mod view;

use std::{
    io::{IsTerminal as _, Write as _},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    time::Duration,
};

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

pub use self::figures::Column;
use self::{
    figures::History,
    view::{Look, View},
};
use crate::{
    agent::Running,
    cli::{RoleArg, TopArgs},
    exit::Failure,
    exporter::Source,
    setup::{engine, selectors, settings},
    summary::Summary,
};

/// How soon a key, or a new size, shows.
const SOON: Duration = Duration::from_millis(50);
/// How long an agent may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// A larger answer is none of an agent's.
const LARGEST: u64 = 64 << 20;

/// Where the figures come from.
enum From {
    /// An agent's exporter.
    Url { agent: Box<ureq::Agent>, url: String },
    /// Probes of our own.
    Own(Arc<dyn Source>),
}

/// Shows the table until it is told to stop.
pub fn top(args: &TopArgs) -> Result<(), Failure> {
    let mut running = None;
    let (from, name) = if args.select.is_empty() {
        let base = base_of(&args.url);
        let config = ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).build();
        let url = format!("{base}api/summary");
        (From::Url { agent: Box::new(config.into()), url }, base)
    } else {
        let selectors = selectors(&args.select)?;
        let own = Running::attach(
            engine(&args.metrics(), true)?,
            selectors,
            &settings(&args.kernel, RoleArg::Server, false),
        )?;
        let source = own.source();
        running = Some(own);
        (From::Own(source), "own probes".to_owned())
    };
    let interval = Duration::from_secs_f64(args.interval);
    let outcome = if args.once || !std::io::stdout().is_terminal() {
        once(&from, interval, args.sort)
    } else {
        live(from, interval, View::new(name, args.sort, look()))
    };
    if let Some(running) = running {
        running.stop()?;
    }
    outcome
}

/// What the terminal can show: `NO_COLOR` (no-color.org) and the locale say.
fn look() -> Look {
    let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let locale = set("LC_ALL").or_else(|| set("LC_CTYPE")).or_else(|| set("LANG")).unwrap_or_default();
    let locale = locale.to_lowercase();
    Look { colours: set("NO_COLOR").is_none(), unicode: locale.contains("utf-8") || locale.contains("utf8") }
}

/// The exporter's root, of its own address or that of its metrics.
fn base_of(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let url = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    let url = url.strip_suffix("/metrics").unwrap_or(&url).trim_end_matches('/');
    format!("{url}/")
}

impl From {
    fn summary(&self) -> Result<Summary, String> {
        match self {
            Self::Own(source) => Ok(source.summary()),
            Self::Url { agent, url } => {
                let unreachable = |error: ureq::Error| {
                    format!(
                        "{url}: {error}; is httpmon running, and listening there? (--url, or selectors such as --process-name)"
                    )
                };
                let mut response = agent.get(url).call().map_err(unreachable)?;
                let text = response.body_mut().with_config().limit(LARGEST).read_to_string();
                serde_json::from_str(&text.map_err(unreachable)?)
                    .map_err(|error| format!("{url}: not what an httpmon of this version says: {error}"))
            }
        }
    }
}

/// One table, as text.
fn once(from: &From, interval: Duration, column: Column) -> Result<(), Failure> {
    let mut history = History::default();
    history.add(from.summary().map_err(Failure::Run)?);
    std::thread::sleep(interval);
    history.add(from.summary().map_err(Failure::Run)?);
    let _ = std::io::stdout().write_all(view::plain(&history, column).as_bytes());
    Ok(())
}

fn live(from: From, interval: Duration, mut view: View) -> Result<(), Failure> {
    let broken = |error: std::io::Error| Failure::Run(format!("the terminal can't be used: {error}"));
    let mut history = History::default();
    // Who mistyped an address is told so, and not shown an empty table.
    history.add(from.summary().map_err(Failure::Run)?);
    let told_to_stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&told_to_stop)).map_err(broken)?;
    }
    let (tell, summaries) = channel();
    std::thread::Builder::new()
        .name("summaries".to_owned())
        .spawn(move || fetch(&from, interval, &tell))
        .map_err(broken)?;
    let mut terminal = ratatui::try_init().map_err(broken)?;
    let outcome = follow(&mut terminal, &summaries, &mut history, &mut view, &told_to_stop);
    ratatui::restore();
    outcome.map_err(broken)
}

fn fetch(from: &From, interval: Duration, tell: &Sender<Result<Summary, String>>) {
    loop {
        std::thread::sleep(interval);
        if tell.send(from.summary()).is_err() {
            return;
        }
    }
}

fn follow(
    terminal: &mut ratatui::DefaultTerminal,
    summaries: &Receiver<Result<Summary, String>>,
    history: &mut History,
    view: &mut View,
    told_to_stop: &AtomicBool,
) -> std::io::Result<()> {
    let mut changed = true;
    while !told_to_stop.load(Ordering::Relaxed) {
        for summary in summaries.try_iter() {
            changed = true;
            match summary {
                Ok(_) if view.paused => {}
                Ok(summary) => {
                    view.trouble = None;
                    history.add(summary);
                }
                Err(trouble) => view.trouble = Some(trouble),
            }
        }
        if changed {
            terminal.draw(|frame| view.draw(frame, history))?;
        }
        changed = event::poll(SOON)?;
        if changed
            && let Event::Key(key) = event::read()?
            && key.kind == KeyEventKind::Press
            && !press(view, key, terminal.size()?.width, history)
        {
            return Ok(());
        }
    }
    Ok(())
}

/// What a key does; whether to go on.
fn press(view: &mut View, key: KeyEvent, width: u16, history: &History) -> bool {
    if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
        return false;
    }
    if view.help {
        view.help = false;
        return true;
    }
    if view.typing {
        match key.code {
            KeyCode::Enter => view.typing = false,
            KeyCode::Esc => {
                view.typing = false;
                view.filter.clear();
            }
            KeyCode::Backspace => {
                view.filter.pop();
            }
            KeyCode::Char(char) => view.filter.push(char),
            _ => {}
        }
        return true;
    }
    match key.code {
        KeyCode::Char('q') => return false,
        KeyCode::Char('?' | 'h') => view.help = true,
        KeyCode::Char('/') => view.typing = true,
        KeyCode::Char('r') => view.reverse = !view.reverse,
        KeyCode::Char('p' | ' ') => view.paused = !view.paused,
        KeyCode::Esc => view.filter.clear(),
        KeyCode::Left | KeyCode::Char('<') => sort_by(view, width, history, -1),
        KeyCode::Right | KeyCode::Char('>') => sort_by(view, width, history, 1),
        KeyCode::Up => view.state.select_previous(),
        KeyCode::Down => view.state.select_next(),
        KeyCode::PageUp => view.state.scroll_up_by(10),
        KeyCode::PageDown => view.state.scroll_down_by(10),
        KeyCode::Home => view.state.select_first(),
        KeyCode::End => view.state.select_last(),
        _ => {}
    }
    true
}

fn sort_by(view: &mut View, width: u16, history: &History, step: isize) {
    let columns = View::columns(width, history.workers().len());
    let at = columns.iter().position(|(column, _)| *column == view.column).unwrap_or(0);
    let next = (at.cast_signed() + step).rem_euclid(columns.len().cast_signed());
    view.column = columns[next.cast_unsigned()].0;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_found_by_any_of_its_addresses() {
        for url in [
            "http://127.0.0.1:9464/metrics",
            "http://127.0.0.1:9464/",
            "http://127.0.0.1:9464",
            "127.0.0.1:9464",
            "127.0.0.1:9464/metrics?x=y",
        ] {
            assert_eq!(base_of(url), "http://127.0.0.1:9464/");
        }
        assert_eq!(base_of("http://host/httpmon/metrics"), "http://host/httpmon/");
    }

    #[test]
    fn keys_do_what_the_help_says() {
        let mut view = View::new(String::new(), Column::Rate, Look { colours: true, unicode: true });
        let history = History::default();
        let mut press = |code: KeyCode| {
            let goes_on = super::press(&mut view, code.into(), 80, &history);
            (goes_on, view.column, view.reverse, view.paused, view.filter.clone())
        };
        press(KeyCode::Right);
        press(KeyCode::Char('r'));
        press(KeyCode::Char('/'));
        press(KeyCode::Char('q'));
        press(KeyCode::Enter);
        let now = press(KeyCode::Char('p'));
        assert_eq!(now, (true, Column::P50, true, true, "q".to_owned()));
        for _ in 0..4 {
            press(KeyCode::Left);
        }
        assert_eq!(press(KeyCode::Esc).1, Column::Out);
        assert!(!press(KeyCode::Char('q')).0);
    }
}
