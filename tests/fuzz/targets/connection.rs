//! Any operations on any connections, with anything lost: every request ends at most once, and no status is invented.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use monitor::{
    connection::Connections,
    event::{
        Address, Capture, Closed, Closing, ConnectionId, Data, Direction, Event, Instant, Opened, Origin,
        Place, ProcessChange, ServiceId,
    },
    exchange::{Answer, Course, Peer, Request, Roles, Sink, Ticket, Unanswered, Unparsed},
    http2,
};

#[derive(Arbitrary, Debug)]
enum Step<'a> {
    Moves {
        received: bool,
        connection: bool,
        bytes: &'a [u8],
        captured: u8,
        spliced: bool,
        place: Option<u32>,
    },
    Preface {
        connection: bool,
    },
    Lost {
        received: bool,
        connection: bool,
        bytes: u16,
    },
    Opens {
        connection: bool,
        unix: bool,
        born: bool,
    },
    Closes {
        connection: bool,
        how: u8,
        reset: bool,
        exit: Option<u8>,
    },
    Exits {
        code: u8,
    },
}

#[derive(Default)]
struct Books(Vec<bool>);

impl Books {
    fn end(&mut self, ticket: Ticket) {
        assert!(std::mem::replace(&mut self.0[ticket.0 as usize], false), "a request ends once");
    }
}

impl Sink for Books {
    fn request(&mut self, _: &Peer, _: &Request<'_>) -> Ticket {
        self.0.push(true);
        Ticket(self.0.len() as u32 - 1)
    }

    fn finished(&mut self, _: &Peer, ticket: Ticket, answer: Answer, _: &Course) {
        assert!(answer.status.code().is_none_or(|code| (100..600).contains(&code)));
        self.end(ticket);
    }

    fn unanswered(&mut self, _: &Peer, ticket: Ticket, _: Unanswered, _: &Course) {
        self.end(ticket);
    }

    fn unparsed(&mut self, _: &Peer, _: Unparsed, bytes: u64) {
        assert!(bytes > 0);
    }
}

fuzz_target!(|steps: Vec<Step<'_>>| {
    let mut connections = Connections::new(Roles { server: true, client: true });
    let mut books = Books::default();
    let mut carried = [[0_u64; 2]; 2];
    let mut last = [None; 2];
    for (at, step) in steps.iter().enumerate() {
        let origin = Origin { at: Instant(at as u64), service: ServiceId(1), pid: 7, fd: None };
        let id = |connection: &bool| ConnectionId(u64::from(*connection) + 1);
        let mut account = |connection: &bool, received: &bool, bytes: u64| {
            let (index, direction) = (usize::from(*connection), usize::from(*received));
            let turned = last[index].replace(direction) != Some(direction);
            let offset = carried[index][direction];
            carried[index][direction] += bytes;
            (offset, carried[index][1 - direction], turned)
        };
        let step = match step {
            Step::Preface { connection: on } => {
                let bytes = http2::PREFACE;
                &Step::Moves {
                    received: true,
                    connection: *on,
                    bytes,
                    captured: u8::MAX,
                    spliced: false,
                    place: None,
                }
            }
            other => other,
        };
        let event = match step {
            Step::Preface { .. } => continue,
            Step::Moves { received, connection, bytes, captured, spliced, place } => {
                if bytes.is_empty() {
                    continue;
                }
                let (offset, other, turned) = account(connection, received, bytes.len() as u64);
                let captured = if *spliced { 0 } else { usize::from(*captured) * 8 };
                let (prefix, rest) = bytes.split_at(captured.min(bytes.len()));
                let tail =
                    if *spliced || place.is_some() { &[] } else { &rest[rest.len() - rest.len().min(16)..] };
                let direction = if *received { Direction::Received } else { Direction::Sent };
                let capture = match (*spliced, *place) {
                    (true, _) => Capture::Spliced,
                    (false, Some(place)) => Capture::Frames(Place(place)),
                    (false, None) => Capture::Copied,
                };
                let len = bytes.len() as u32;
                Event::Data(
                    origin,
                    id(connection),
                    Data { direction, offset, other, len, arrived: None, turned, plain: false, capture, prefix, tail },
                )
            }
            Step::Lost { received, connection, bytes } => {
                account(connection, received, u64::from(*bytes) + 1);
                continue;
            }
            Step::Opens { connection, unix, born } => {
                let inet = Address::Inet(([127, 0, 0, 1], 80).into());
                let local = if *unix { Address::Unix("/s".into()) } else { inet.clone() };
                Event::Opened(origin, id(connection), Opened { local, remote: inet, inode: 1, born: *born })
            }
            Step::Closes { connection, how, reset, exit } => {
                let [sent, received] = carried[usize::from(*connection)];
                let how = [Closing::ByPeer, Closing::Locally, Closing::Fully][usize::from(*how % 3)];
                let exit_code = exit.map(u32::from);
                Event::Closed(
                    origin,
                    id(connection),
                    Closed { how, reset: *reset, exit_code, received, sent },
                )
            }
            Step::Exits { code } => {
                Event::Process(origin, ProcessChange::Exited { code: (*code).into(), cpu: 0 })
            }
        };
        connections.handle(&event, &mut books);
    }
});
