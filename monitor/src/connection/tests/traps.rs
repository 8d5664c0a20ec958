//! Each trap by name.

use super::wire::Wire;
use crate::{
    event::{Capture, Closing, Direction, Instant},
    exchange::{Unanswered, Unparsed},
};

const GET: &str = "GET /a HTTP/1.1\r\nhost: x\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nhost: x\r\n\r\n")
}

#[test]
fn an_exchange_ends_when_its_response_ends() {
    let mut wire = Wire::born();
    wire.reads(GET).writes(OK);
    assert_eq!(wire.log.answered(), [("GET", "/a", 200)]);
    assert_eq!(wire.log.active(), 0);
}

#[test]
fn pipelined_requests_in_one_segment() {
    let mut wire = Wire::born();
    wire.reads([get("/1"), get("/2"), get("/3")].concat()).writes([OK, OK].concat()).writes(OK);
    assert_eq!(wire.log.answered(), [("GET", "/1", 200), ("GET", "/2", 200), ("GET", "/3", 200)]);
}

#[test]
fn a_request_head_one_byte_a_read_and_a_response_one_byte_a_write() {
    let mut wire = Wire::born();
    for byte in get("/slow").as_bytes() {
        wire.reads([*byte]);
    }
    let begun = wire.clock;
    for byte in OK.as_bytes() {
        wire.writes([*byte]);
    }
    assert_eq!(wire.log.answered(), [("GET", "/slow", 200)]);
    let course = wire.log.ended[0].course;
    // The birth took the first unit of time.
    assert_eq!(course.read, Instant(2));
    assert_eq!(course.first_sent, Some(Instant(begun + 1)));
    assert_eq!(course.last_sent, Some(Instant(wire.clock)));
}

#[test]
fn heads_split_anywhere() {
    let (request, response) = (get("/split"), "HTTP/1.1 404 Not Found\r\ncontent-length: 3\r\n\r\nno\n");
    for first in 1..request.len() {
        for second in [1, response.len() / 3, response.len() / 2, response.len() - 1] {
            let mut wire = Wire::born();
            wire.reads(&request[..first]).reads(&request[first..]);
            wire.writes(&response[..second]).writes(&response[second..]);
            assert_eq!(wire.log.answered(), [("GET", "/split", 404)], "{first} {second}");
            assert_eq!(wire.log.ended[0].course.response_body, 3);
        }
    }
}

#[test]
fn a_head_longer_than_the_capture() {
    let mut wire = Wire::born();
    wire.limit = 256;
    let long = format!("GET /long HTTP/1.1\r\ncookie: {}\r\n\r\n", "c".repeat(2000));
    let response =
        format!("HTTP/1.1 200 OK\r\nset-cookie: {}\r\ncontent-length: 2\r\n\r\nok", "c".repeat(2000));
    wire.reads(&long).writes(&response).reads(get("/next")).writes(OK);
    assert_eq!(wire.log.answered(), [("GET", "/long", 200), ("GET", "/next", 200)]);
    assert!(wire.connections.take_cut(), "the kernel side should copy more");
}

#[test]
fn a_head_longer_than_the_capture_in_pieces() {
    let mut wire = Wire::born();
    wire.limit = 256;
    wire.reads("GET /long HTTP/1.1\r\ncookie: ").reads("c".repeat(3000)).reads("\r\n\r\n").writes(OK);
    wire.reads(get("/next")).writes(OK);
    assert_eq!(wire.log.answered(), [("GET", "/long", 200), ("GET", "/next", 200)]);
}

#[test]
fn a_body_that_begins_like_a_request_or_a_response() {
    let mut wire = Wire::born();
    let head = |body: &str| format!("POST /form HTTP/1.1\r\ncontent-length: {}\r\n\r\n", body.len());
    // In the same read, and in one of its own.
    wire.reads(head(GET) + GET).writes(OK);
    wire.reads(head(GET)).reads(GET).writes(OK);
    let body = format!("HTTP/1.1 500 Oops\r\ncontent-length: {}\r\n\r\n{OK}", OK.len());
    wire.reads(head(&body) + &body).writes(&body);
    let posts = ("POST", "/form", 200);
    assert_eq!(wire.log.answered(), [posts, posts, ("POST", "/form", 500)]);
}

#[test]
fn a_long_body_of_requests_beyond_the_capture() {
    let mut wire = Wire::born();
    let body = GET.repeat(1000);
    wire.reads(format!("PUT /file HTTP/1.1\r\ncontent-length: {}\r\n\r\n", body.len()));
    for piece in body.as_bytes().chunks(5000) {
        wire.reads(piece);
    }
    wire.writes(OK).reads(GET).writes(OK);
    assert_eq!(wire.log.answered(), [("PUT", "/file", 200), ("GET", "/a", 200)]);
    assert_eq!(wire.log.ended[0].course.request_body, body.len() as u64);
}

#[test]
fn continue_and_early_hints_belong_to_their_request() {
    let mut wire = Wire::born();
    wire.reads("POST /up HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n");
    wire.writes("HTTP/1.1 100 Continue\r\n\r\n").reads("body");
    wire.writes("HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n").writes(OK);
    assert_eq!(wire.log.answered(), [("POST", "/up", 200)]);
    let course = wire.log.ended[0].course;
    assert_eq!((course.request_body, course.first_sent), (4, Some(Instant(wire.clock))));
}

#[test]
fn an_interim_head_that_was_not_captured_whole_is_no_status() {
    let mut wire = Wire::born();
    wire.limit = 64;
    let hints = format!("HTTP/1.1 103 Early Hints\r\nlink: <{}>\r\n\r\n", "a".repeat(500));
    wire.reads(get("/1")).writes(&hints).writes(OK).reads(get("/2")).writes(OK);
    assert_eq!(wire.log.answered(), [("GET", "/2", 200)]);
    assert_eq!(wire.log.unanswered(), [("/1", Unanswered::Desync)]);
}

#[test]
fn responses_without_a_body_whatever_their_fields_say() {
    let mut wire = Wire::born();
    wire.reads("HEAD /h HTTP/1.1\r\n\r\n").writes("HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n");
    wire.reads(GET).writes("HTTP/1.1 204 No Content\r\n\r\n");
    wire.reads(GET).writes("HTTP/1.1 304 Not Modified\r\ncontent-length: 1000\r\n\r\n");
    wire.reads(GET).writes(OK);
    assert_eq!(wire.log.answered().iter().map(|one| one.2).collect::<Vec<_>>(), [200, 204, 304, 200]);
    assert_eq!(wire.log.active(), 0);
}

#[test]
fn chunked_with_extensions_and_trailers() {
    let mut wire = Wire::born();
    wire.reads(
        "POST /c HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\ntrailer: 1\r\n\r\n",
    );
    wire.writes("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n")
        .writes("0\r\nx: y\r\n")
        .writes("\r\n");
    wire.reads(GET).writes(OK);
    assert_eq!(wire.log.answered(), [("POST", "/c", 200), ("GET", "/a", 200)]);
    let course = wire.log.ended[0].course;
    assert_eq!((course.request_body, course.response_body), (3, 2));
}

#[test]
fn a_long_chunked_body_beyond_the_capture() {
    let mut wire = Wire::born();
    wire.reads(GET).writes("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
    let chunk = format!("{:x}\r\n{}\r\n", 30_000, "x".repeat(30_000));
    for _ in 0..20 {
        wire.writes(&chunk);
    }
    wire.writes("0\r\n\r\n").reads(GET).writes(OK);
    assert_eq!(wire.log.answered(), [("GET", "/a", 200), ("GET", "/a", 200)]);
    assert_eq!(wire.log.ended[0].course.response_body, 600_000);
}

#[test]
fn a_body_that_the_close_ends() {
    let mut wire = Wire::born();
    wire.reads("GET /old HTTP/1.0\r\n\r\n").writes("HTTP/1.0 200 OK\r\n\r\n").writes(GET).writes("more");
    assert_eq!(wire.log.active(), 1);
    wire.closes(Closing::Locally);
    assert_eq!(wire.log.answered(), [("GET", "/old", 200)]);
    assert_eq!(wire.log.ended[0].course.response_body, GET.len() as u64 + 4);
    wire.closes(Closing::Fully);
    assert!(wire.connections.is_empty());
}

#[test]
fn a_killed_server_does_not_end_a_body_that_the_close_ends() {
    let mut wire = Wire::born();
    wire.reads("GET /old HTTP/1.0\r\n\r\n").writes("HTTP/1.0 200 OK\r\n\r\nhalf");
    wire.closes_with(Closing::Locally, false, Some(9));
    assert_eq!(wire.log.unanswered(), [("/old", Unanswered::ProcessExited)]);
}

#[test]
fn every_form_of_target_and_every_method() {
    let mut wire = Wire::born();
    let requests = [
        ("GET", "http://example.org/absolute?q"),
        ("OPTIONS", "*"),
        ("TRACE", "/t"),
        ("PROPFIND", "/dav"),
        ("MKCOL", "/dav/new"),
        ("PATCH", "/p"),
        ("M-SEARCH", "*"),
    ];
    for (method, target) in requests {
        wire.reads(format!("{method} {target} HTTP/1.1\r\n\r\n")).writes(OK);
    }
    assert_eq!(wire.log.answered(), requests.map(|(method, target)| (method, target, 200)));
}

#[test]
fn connect_ends_http_when_it_succeeds() {
    let mut wire = Wire::born();
    let connect = "CONNECT example.org:443 HTTP/1.1\r\n\r\n";
    wire.reads(connect).writes("HTTP/1.1 407 Authenticate\r\ncontent-length: 2\r\n\r\nno");
    wire.reads(connect).writes("HTTP/1.1 200 OK\r\n\r\n").reads(GET).writes(OK);
    assert_eq!(wire.log.answered().iter().map(|one| one.2).collect::<Vec<_>>(), [407, 200]);
    assert_eq!(wire.log.seen(), 2);
    assert_eq!(wire.log.unparsed(Unparsed::NotHttp), (GET.len() + OK.len()) as u64);
}

#[test]
fn an_upgrade_to_websocket_ends_http() {
    let mut wire = Wire::born();
    wire.reads("GET /ws HTTP/1.1\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n");
    wire.writes("HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\r\n\x02\x03")
        .reads(b"\x81\x85xxxx")
        .writes(GET);
    assert_eq!(wire.log.answered(), [("GET", "/ws", 101)]);
    assert_eq!(wire.log.unparsed(Unparsed::NotHttp), 2 + 6 + GET.len() as u64);
    wire.closes(Closing::Fully);
    assert_eq!(wire.log.unanswered(), []);
}

#[test]
fn server_sent_events_until_the_client_leaves() {
    let mut wire = Wire::born();
    wire.reads(get("/events")).writes("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n");
    for _ in 0..3 {
        wire.writes("data: tick\n\n");
    }
    assert_eq!(wire.log.active(), 1);
    wire.closes(Closing::ByPeer).closes(Closing::Locally);
    assert_eq!(wire.log.answered(), [("GET", "/events", 200)]);
}

#[test]
fn a_body_by_sendfile() {
    let mut wire = Wire::born();
    wire.reads(get("/file")).writes("HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n");
    wire.passes(Direction::Sent, 60_000, Capture::Spliced).passes(Direction::Sent, 40_000, Capture::Spliced);
    wire.reads(GET).writes(OK);
    assert_eq!(wire.log.answered(), [("GET", "/file", 200), ("GET", "/a", 200)]);
    assert_eq!(wire.log.ended[0].course.response_body, 100_000);
}

#[test]
fn partial_sends_are_what_was_sent() {
    let mut wire = Wire::born();
    wire.reads(get("/big")).writes("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n01234");
    assert_eq!(wire.log.active(), 1);
    wire.writes("56").writes("789");
    assert_eq!(wire.log.answered(), [("GET", "/big", 200)]);
}

#[test]
fn idle_keep_alive_is_no_part_of_a_duration() {
    let mut wire = Wire::born();
    wire.clock = 3_000_000;
    wire.reads(GET).writes(OK);
    let course = wire.log.ended[0].course;
    assert_eq!((course.read, course.last_sent), (Instant(3_000_001), Some(Instant(3_000_002))));
}

#[test]
fn a_connection_joined_midway_counts_from_its_next_request() {
    let mut wire = Wire::joined();
    // The rest of a response whose request was never seen; its body looks like a request's first word.
    wire.writes("POST it\n").reads(GET).writes(OK);
    assert_eq!(wire.log.answered(), [("GET", "/a", 200)]);
    let mut wire = Wire::joined();
    wire.writes(OK).reads(GET).writes("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
    assert_eq!(wire.log.answered(), [("GET", "/a", 404)]);
    // A client's end is none of a server's business.
    let mut wire = Wire::joined();
    wire.writes(GET).reads(OK).writes(GET).reads("HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n").reads(GET);
    assert_eq!((wire.log.seen(), wire.log.unparsed.len()), (0, 0));
}

#[test]
fn a_client_is_followed_where_that_is_wanted() {
    let mut wire = Wire::client();
    wire.writes(get("/1")).reads(OK);
    wire.writes("POST /2 HTTP/1.1\r\ncontent-length: 4\r\n\r\n").writes(b"body");
    wire.reads("HTTP/1.1 201 Created\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n").reads("0\r\n\r\n");
    wire.writes(get("/3")).reads("HTTP/1.1 200 OK\r\n\r\nuntil").closes(Closing::ByPeer).reads(" the end");
    assert_eq!(wire.log.active(), 1);
    wire.closes(Closing::Locally).closes(Closing::Fully);
    assert_eq!(wire.log.answered(), [("GET", "/1", 200), ("POST", "/2", 201), ("GET", "/3", 200)]);
    let course = wire.log.ended[1].course;
    assert_eq!((course.request_body, course.response_body), (4, 2));
    assert_eq!(wire.log.ended[2].course.response_body, 13);
}

#[test]
fn a_client_without_a_whole_response() {
    for (by_peer, reset, reason) in [
        (true, false, Unanswered::ServerClosed),
        (false, true, Unanswered::ServerClosed),
        (false, false, Unanswered::ClientClosed),
    ] {
        let mut wire = Wire::client();
        wire.writes(GET).reads("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf");
        if by_peer {
            wire.closes(Closing::ByPeer);
        }
        wire.closes(Closing::Locally).closes_with(Closing::Fully, reset, None);
        assert_eq!(wire.log.unanswered(), [("/a", reason)]);
    }
}

#[test]
fn a_request_without_a_whole_response_is_unanswered() {
    let half = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf";
    for (closing, reason) in [
        ((Closing::Locally, false, Some(9)), Unanswered::ProcessExited),
        ((Closing::Fully, true, None), Unanswered::ClientClosed),
        ((Closing::Locally, false, None), Unanswered::ServerClosed),
    ] {
        for sent in ["", half] {
            let mut wire = Wire::born();
            wire.reads(GET);
            if !sent.is_empty() {
                wire.writes(sent);
            }
            wire.closes_with(closing.0, closing.1, closing.2);
            assert_eq!(wire.log.unanswered(), [("/a", reason)]);
        }
    }
    let mut wire = Wire::born();
    wire.reads(GET).closes(Closing::ByPeer);
    // The client has sent all that it had to say: the response may still come.
    assert_eq!(wire.log.active(), 1);
    wire.closes(Closing::Locally);
    assert_eq!(wire.log.unanswered(), [("/a", Unanswered::ClientClosed)]);
}

#[test]
fn a_unix_connection_ends_with_its_process() {
    let mut wire = Wire::unix();
    wire.reads(GET).exits(9);
    assert_eq!(wire.log.unanswered(), [("/a", Unanswered::ProcessExited)]);
    assert!(wire.connections.is_empty());
}

#[test]
fn half_a_request_is_none() {
    let mut wire = Wire::born();
    wire.reads("GET /half HTTP/1.1\r\nho").closes(Closing::ByPeer).closes(Closing::Fully);
    assert_eq!(wire.log.seen(), 0);
    assert_eq!(wire.log.unparsed(Unparsed::NotHttp), 22);
}

#[test]
fn garbage_tls_and_http2_are_counted_as_what_they_are() {
    for (bytes, reason) in [
        (&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"[..], Unparsed::Tls),
        (b"\x00\x01\x02garbage", Unparsed::NotHttp),
        (b"SSH-2.0-OpenSSH_9.2\r\n", Unparsed::NotHttp),
    ] {
        let mut wire = Wire::born();
        wire.reads(bytes).closes(Closing::Fully);
        assert_eq!(wire.log.unparsed, [(reason, bytes.len() as u64)]);
        assert_eq!(wire.log.seen(), 0);
    }
}

#[test]
fn bytes_that_io_uring_moved_are_counted_as_unreadable() {
    let mut wire = Wire::born();
    wire.passes(Direction::Received, 30, Capture::Unreadable).passes(
        Direction::Sent,
        40,
        Capture::Unreadable,
    );
    assert_eq!((wire.log.seen(), wire.log.unparsed(Unparsed::IoUring)), (0, 30));
}

#[test]
fn a_response_with_an_impossible_status_is_no_status() {
    let mut wire = Wire::born();
    wire.reads(GET).writes("HTTP/1.1 999 Strange\r\ncontent-length: 0\r\n\r\n").closes(Closing::Locally);
    assert_eq!(wire.log.answered(), []);
    assert_eq!(wire.log.unanswered(), [("/a", Unanswered::Desync)]);
    assert!(wire.log.unparsed(Unparsed::Desync) > 0);
}

#[test]
fn a_lost_request_leaves_its_neighbours_right() {
    let mut wire = Wire::born();
    wire.reads(get("/1")).writes(OK);
    // The second request's record is lost: its response answers nothing that is known.
    wire.loses(Direction::Received, GET.len()).writes("HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n");
    wire.reads(get("/3")).writes(OK);
    assert_eq!(wire.log.answered(), [("GET", "/1", 200), ("GET", "/3", 200)]);
}

#[test]
fn a_lost_response_is_said_to_be_lost() {
    let mut wire = Wire::born();
    wire.reads(get("/1")).loses(Direction::Sent, OK.len());
    wire.reads(get("/2")).writes("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
    assert_eq!(wire.log.answered(), [("GET", "/2", 404)]);
    assert_eq!(wire.log.unanswered(), [("/1", Unanswered::Desync)]);
}

#[test]
fn loss_within_a_body_loses_nothing() {
    let mut wire = Wire::born();
    wire.reads(get("/1")).writes("HTTP/1.1 200 OK\r\ncontent-length: 30\r\n\r\n0123456789");
    wire.loses(Direction::Sent, 10).writes("0123456789").reads(GET).writes(OK);
    assert_eq!(wire.log.answered(), [("GET", "/1", 200), ("GET", "/a", 200)]);
    assert_eq!(wire.log.ended[0].course.response_body, 30);
}

#[test]
fn arrival_is_that_of_the_requests_first_byte() {
    let mut wire = Wire::born();
    wire.clock = 100;
    wire.reads_arrived(GET, 40).writes(OK);
    wire.reads_arrived("GET /b HTTP/1.1\r\n", 60).reads_arrived("\r\n", 90).writes(OK);
    let arrived: Vec<_> = wire.log.ended.iter().map(|one| one.course.arrived).collect();
    assert_eq!(arrived, [Some(Instant(40)), Some(Instant(60))]);
}

#[test]
fn endless_pipelining_is_given_up() {
    let mut wire = Wire::born();
    for _ in 0..5000 {
        wire.reads(GET);
    }
    assert!(wire.log.active() <= 4097, "{}", wire.log.active());
}

#[test]
fn an_endless_head_is_given_up() {
    let mut wire = Wire::born();
    wire.limit = 1 << 20;
    wire.reads("GET / HTTP/1.1\r\n");
    for _ in 0..200 {
        wire.reads("x: y\r\n".repeat(200));
    }
    assert_eq!(wire.log.seen(), 0);
    assert!(wire.log.unparsed(Unparsed::NotHttp) > 64 << 10);
}
