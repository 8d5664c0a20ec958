//! What is kept as connections change is what a look at each of them would show.

use proptest::prelude::*;

use super::*;
use crate::{
    event::{Capture, Data, Direction, Opened, ServiceId},
    exchange::{Answer, Course, Request, Ticket, Unanswered, Unparsed},
};

/// Hears everything, and keeps nothing.
struct Deaf;

impl Sink for Deaf {
    fn request(&mut self, _: &Peer, _: &Request<'_>) -> Ticket {
        Ticket(0)
    }
    fn finished(&mut self, _: &Peer, _: Ticket, _: Answer, _: &Course) {}
    fn unanswered(&mut self, _: &Peer, _: Ticket, _: Unanswered, _: &Course) {}
    fn unparsed(&mut self, _: &Peer, _: Unparsed, _: u64) {}
}

const MESSAGES: [&[u8]; 6] = [
    b"GET / HTTP/1.1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n\r\nuntil the end",
    b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03neither",
];

/// Something that happens to a connection, or to a process.
#[derive(Clone, Debug)]
enum Happening {
    Moves(Direction, &'static [u8]),
    Opens(Address, bool),
    Closes(Closing),
    Exits,
    Loses,
}

fn happening() -> impl Strategy<Value = Happening> {
    let direction = prop::sample::select(vec![Direction::Received, Direction::Sent]);
    let address = prop::sample::select(vec![
        Address::Inet(([127, 0, 0, 1], 80).into()),
        Address::Inet(([127, 0, 0, 1], 81).into()),
        Address::Unix("/run/web".to_owned()),
        Address::Unix(String::new()),
    ]);
    let closing = prop::sample::select(vec![Closing::ByPeer, Closing::Locally, Closing::Fully]);
    prop_oneof![
        8 => (direction, prop::sample::select(MESSAGES.to_vec())).prop_map(|(way, bytes)| Happening::Moves(way, bytes)),
        4 => (address, any::<bool>()).prop_map(|(local, born)| Happening::Opens(local, born)),
        2 => closing.prop_map(Happening::Closes),
        1 => Just(Happening::Exits),
        1 => Just(Happening::Loses),
    ]
}

/// Lets something happen to a connection whose directions have carried so much.
fn happen(
    connections: &mut Connections,
    origin: Origin,
    id: ConnectionId,
    carried: &mut [u64; 2],
    what: Happening,
) {
    let event = match what {
        Happening::Moves(direction, bytes) => {
            let way = usize::from(direction == Direction::Sent);
            let (offset, other) = (carried[way], carried[1 - way]);
            carried[way] += bytes.len() as u64;
            let data = Data {
                direction,
                offset,
                other,
                len: bytes.len() as u32,
                arrived: None,
                turned: true,
                plain: false,
                capture: Capture::Copied,
                prefix: bytes,
                tail: &[],
            };
            Event::Data(origin, id, data)
        }
        Happening::Opens(local, born) => {
            let remote = Address::Unix(String::new());
            Event::Opened(origin, id, Opened { local, remote, inode: id.0, born })
        }
        Happening::Closes(how) => {
            let closed = Closed { how, reset: false, exit_code: None, received: 0, sent: 0 };
            Event::Closed(origin, id, closed)
        }
        Happening::Exits => Event::Process(origin, ProcessChange::Exited { code: 0, cpu: 0 }),
        Happening::Loses => return connections.lose(id, &mut Deaf),
    };
    connections.handle(&event, &mut Deaf);
}

proptest! {
    #[test]
    fn tallies_are_what_a_recount_shows(
        happenings in prop::collection::vec((0_u64..6, 1_u32..3, happening()), 1..60),
    ) {
        let mut connections = Connections::new(Roles { server: true, client: true });
        let mut carried = [[0; 2]; 6];
        for (at, (number, process, what)) in happenings.into_iter().enumerate() {
            let origin =
                Origin { at: Instant(at as u64), service: ServiceId(process), pid: process, fd: Some(3) };
            happen(&mut connections, origin, ConnectionId(number), &mut carried[number as usize], what);
            let mut recounted = Tallies::default();
            for (id, connection) in &connections.all {
                recounted.add(*id, connection);
            }
            prop_assert_eq!(&connections.tallies, &recounted);
        }
    }
}

#[test]
fn only_unix_sockets_that_await_their_end_are_urgent() {
    let mut connections = Connections::default();
    let origin = Origin { at: Instant(1), service: ServiceId(1), pid: 7, fd: Some(3) };
    let locals = [Address::Unix("/run/web".to_owned()), Address::Inet(([127, 0, 0, 1], 80).into())];
    for (id, local) in (0..).map(ConnectionId).zip(locals) {
        let mut carried = [0; 2];
        let mut lives = |what| happen(&mut connections, origin, id, &mut carried, what);
        lives(Happening::Opens(local, true));
        lives(Happening::Moves(Direction::Received, MESSAGES[0]));
        lives(Happening::Moves(Direction::Sent, MESSAGES[2]));
    }
    let urgent: Vec<_> = connections.urgent().collect();
    assert_eq!(urgent, [Suspect { connection: ConnectionId(0), pid: 7, fd: Some(3), inode: 0 }]);
    assert_eq!(connections.suspects().collect::<Vec<_>>(), urgent);
    let closed = Closed { how: Closing::Fully, reset: false, exit_code: None, received: 0, sent: 0 };
    connections.close(ConnectionId(0), &closed, &mut Deaf);
    assert_eq!((connections.urgent().count(), connections.suspects().count()), (0, 0));
}
