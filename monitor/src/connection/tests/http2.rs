//! HTTP/2 on a connection.

use proptest::prelude::*;

use super::wire::Wire;
use crate::{
    event::{Capture, Closing, Direction, Instant, Place},
    exchange::{Grpc, Unanswered, Unparsed},
    http2::PREFACE,
};

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = (payload.len() as u32).to_be_bytes();
    let head = [&len[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    [&head, payload].concat()
}

/// A literal field that leaves the table as it is.
fn literal(name: &str, value: &str) -> Vec<u8> {
    string(&[0], name, value)
}

/// A literal field that enters the table.
fn indexed(name: &str, value: &str) -> Vec<u8> {
    string(&[0x40], name, value)
}

fn string(first: &[u8], name: &str, value: &str) -> Vec<u8> {
    let len = |text: &str| u8::try_from(text.len()).ok().filter(|len| *len < 127).expect("a short text");
    [first, &[len(name)], name.as_bytes(), &[len(value)], value.as_bytes()].concat()
}

fn headers(stream: u32, flags: u8, fields: &[Vec<u8>]) -> Vec<u8> {
    frame(1, flags, stream, &fields.concat())
}

/// GET, by the static table.
fn get(stream: u32, path: &str) -> Vec<u8> {
    headers(stream, END_STREAM | END_HEADERS, &[vec![0x82, 0x86], literal(":path", path)])
}

fn post(stream: u32, path: &str, more: &[Vec<u8>]) -> Vec<u8> {
    let fields = [&[vec![0x83, 0x86], literal(":path", path)][..], more].concat();
    headers(stream, END_HEADERS, &fields)
}

/// 200, by the static table.
fn ok(stream: u32, flags: u8) -> Vec<u8> {
    headers(stream, flags | END_HEADERS, &[vec![0x88]])
}

fn data(stream: u32, flags: u8, octets: &[u8]) -> Vec<u8> {
    frame(0, flags, stream, octets)
}

fn settings() -> Vec<u8> {
    frame(4, 0, 0, &[])
}

fn opening() -> Vec<u8> {
    [&PREFACE[..], &settings()].concat()
}

/// A server's connection on which HTTP/2 has begun.
fn begun() -> Wire {
    let mut wire = Wire::born();
    wire.reads(opening()).writes([settings(), frame(4, 1, 0, &[])].concat()).reads(frame(4, 1, 0, &[]));
    wire
}

#[test]
fn requests_at_once_are_answered_in_any_order() {
    let mut wire = begun();
    wire.reads([get(1, "/1"), get(3, "/3")].concat()).reads(post(5, "/5", &[]));
    assert_eq!(wire.log.active(), 3);
    wire.reads(data(5, END_STREAM, b"body")).writes([ok(3, 0), ok(1, 0)].concat());
    wire.writes([data(1, 0, b"a"), data(3, END_STREAM, b"bb"), data(1, END_STREAM, b"aa")].concat());
    wire.writes(ok(5, END_STREAM));
    assert_eq!(wire.log.answered(), [("GET", "/3", 200), ("GET", "/1", 200), ("POST", "/5", 200)]);
    let bodies: Vec<_> =
        wire.log.ended.iter().map(|one| (one.course.request_body, one.course.response_body)).collect();
    assert_eq!(bodies, [(0, 2), (0, 3), (4, 0)]);
    assert!(wire.log.unparsed.is_empty() && wire.log.active() == 0);
}

#[test]
fn times_are_those_of_the_operations() {
    let mut wire = begun();
    let request = get(1, "/");
    let before = wire.clock;
    wire.reads(&request[..5]).reads(&request[5..]);
    wire.writes(&ok(1, 0)[..3])
        .writes(&ok(1, 0)[3..])
        .writes(data(1, 0, b"x"))
        .writes(data(1, END_STREAM, b""));
    let course = wire.log.ended[0].course;
    assert_eq!(course.read, Instant(before + 1));
    assert_eq!(course.first_sent, Some(Instant(before + 3)));
    assert_eq!(course.last_sent, Some(Instant(before + 6)));
}

#[test]
fn cut_at_every_byte_it_is_the_same() {
    let asked = [
        opening(),
        get(1, "/1"),
        post(3, "/3", &[indexed("content-type", "text/plain")]),
        data(3, END_STREAM, b"body"),
    ]
    .concat();
    let answered = [settings(), ok(1, 0), data(1, END_STREAM, b"12"), ok(3, END_STREAM)].concat();
    for first in 0..=asked.len() {
        for second in [0, 5, 12, 30, answered.len()] {
            let mut wire = Wire::born();
            for piece in [&asked[..first], &asked[first..]] {
                if !piece.is_empty() {
                    wire.reads(piece);
                }
            }
            for piece in [&answered[..second], &answered[second..]] {
                if !piece.is_empty() {
                    wire.writes(piece);
                }
            }
            assert_eq!(wire.log.answered(), [("GET", "/1", 200), ("POST", "/3", 200)], "{first} {second}");
            assert_eq!(wire.log.ended[1].course.request_body, 4);
        }
    }
    let mut wire = Wire::born();
    for byte in &asked {
        wire.reads([*byte]);
    }
    for byte in &answered {
        wire.writes([*byte]);
    }
    assert_eq!(wire.log.answered(), [("GET", "/1", 200), ("POST", "/3", 200)]);
    assert!(wire.log.unparsed.is_empty());
}

#[test]
fn a_server_may_say_its_settings_first() {
    let mut wire = Wire::born();
    wire.writes(settings()).reads([opening(), get(1, "/")].concat()).writes(ok(1, END_STREAM));
    assert_eq!(wire.log.answered(), [("GET", "/", 200)]);
    assert!(wire.log.unparsed.is_empty());
}

#[test]
fn an_upgrade_is_answered_on_the_first_stream() {
    let mut wire = Wire::born();
    wire.reads("GET /up HTTP/1.1\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAEAAQAA\r\n\r\n");
    let switch = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n";
    // A table of 65536, as the request allows.
    let answer = headers(1, END_HEADERS, &[vec![0x3f, 0xe1, 0xff, 0x03, 0x88]]);
    wire.writes([&switch[..], &settings(), &answer].concat());
    assert_eq!((wire.log.seen(), wire.log.active()), (1, 1));
    wire.reads(opening()).writes(data(1, END_STREAM, b"hello"));
    wire.reads(get(3, "/next")).writes(ok(3, END_STREAM));
    assert_eq!(wire.log.answered(), [("GET", "/up", 200), ("GET", "/next", 200)]);
    assert_eq!(wire.log.ended[0].course.response_body, 5);
    assert!(wire.log.unparsed.is_empty());
}

#[test]
fn continuation_padding_priority_and_unknown_frames() {
    let mut wire = begun();
    let block = [&[0x82, 0x86][..], &literal(":path", "/long")].concat();
    let (one, two) = block.split_at(4);
    // Padded by 3, with a priority.
    let first = frame(1, END_STREAM | 0x8 | 0x20, 1, &[&[3, 0, 0, 0, 0, 15][..], one, &[0; 3]].concat());
    wire.reads(first).reads(frame(9, 0, 1, &two[..3])).reads(frame(9, END_HEADERS, 1, &two[3..]));
    wire.reads(
        [frame(2, 0, 1, &[0; 5]), frame(0x77, 0xff, 9, b"whatever"), frame(8, 0, 0, &[0, 0, 0, 9])].concat(),
    );
    wire.writes(ok(1, 0)).writes(data(1, 0x8, &[&[5][..], b"body", &[0; 5]].concat()));
    // All padding.
    wire.writes(data(1, 0x8 | END_STREAM, &[4, 0, 0, 0, 0]));
    assert_eq!(wire.log.answered(), [("GET", "/long", 200)]);
    assert_eq!(wire.log.ended[0].course.response_body, 4);
}

#[test]
fn interim_responses_and_trailers_belong_to_their_request() {
    let mut wire = begun();
    wire.reads(post(1, "/", &[])).writes(headers(1, END_HEADERS, &[literal(":status", "100")]));
    wire.reads(data(1, 0, b"body")).reads(headers(1, END_STREAM | END_HEADERS, &[literal("checksum", "1")]));
    wire.writes(headers(1, END_HEADERS, &[literal(":status", "103"), literal("link", "</a.css>")]));
    let before = wire.clock;
    wire.writes(headers(1, END_HEADERS, &[literal(":status", "201")])).writes(data(1, 0, b"x"));
    wire.writes(headers(1, END_STREAM | END_HEADERS, &[literal("checksum", "2")]));
    assert_eq!(wire.log.answered(), [("POST", "/", 201)]);
    let course = wire.log.ended[0].course;
    assert_eq!((course.request_body, course.response_body), (4, 1));
    assert_eq!((course.first_sent, course.last_sent), (Some(Instant(before + 1)), Some(Instant(before + 3))));
}

#[test]
fn streams_that_are_reset_or_refused_are_unanswered() {
    let mut wire = begun();
    wire.reads(
        [get(1, "/cancelled"), get(3, "/failed"), get(5, "/refused"), get(7, "/fine"), get(9, "/late")]
            .concat(),
    );
    wire.reads(frame(3, 0, 1, &[0, 0, 0, 8])).writes(frame(3, 0, 3, &[0, 0, 0, 2]));
    wire.writes(frame(3, 0, 5, &[0, 0, 0, 7])).writes(frame(7, 0, 0, &[0, 0, 0, 7, 0, 0, 0, 0]));
    wire.writes(ok(7, END_STREAM)).closes(Closing::Fully);
    let expected = [
        ("/cancelled", Unanswered::ClientReset),
        ("/failed", Unanswered::ServerReset),
        ("/refused", Unanswered::Refused),
        ("/late", Unanswered::Refused),
    ];
    assert_eq!(wire.log.unanswered(), expected);
    assert_eq!(wire.log.answered(), [("GET", "/fine", 200)]);
}

#[test]
fn what_is_open_when_the_connection_ends_is_unanswered() {
    let mut wire = begun();
    wire.reads([get(1, "/1"), get(3, "/3")].concat()).writes([ok(1, 0), data(1, 0, b"part")].concat());
    wire.closes(Closing::ByPeer).closes(Closing::Locally);
    assert_eq!(wire.log.unanswered(), [("/1", Unanswered::ClientClosed), ("/3", Unanswered::ClientClosed)]);
}

/// Clients that count what they got need no end of the stream, and some leave without it.
#[test]
fn a_response_whose_content_came_whole_is_one() {
    let length = |stream: u32, octets: &str| {
        headers(stream, END_HEADERS, &[vec![0x88], literal("content-length", octets)])
    };
    let head = |stream| {
        let fields = [literal(":method", "HEAD"), vec![0x86], literal(":path", "/head")];
        headers(stream, END_STREAM | END_HEADERS, &fields)
    };
    let mut wire = begun();
    wire.reads([get(1, "/whole"), get(3, "/part"), get(5, "/reset"), get(7, "/cancelled")].concat());
    wire.reads([head(9), get(11, "/empty"), get(13, "/untold"), get(15, "/call")].concat());
    wire.writes([length(1, "5"), data(1, 0, b"12"), data(1, 0, b"345")].concat());
    wire.writes([length(3, "5"), data(3, 0, b"1234")].concat());
    wire.writes([length(5, "1"), data(5, 0, b"1"), length(7, "1"), data(7, 0, b"1")].concat());
    wire.writes([length(9, "100"), headers(11, END_HEADERS, &[vec![0x89]])].concat());
    wire.writes([ok(13, 0), data(13, 0, b"1")].concat());
    let grpc = [vec![0x88], literal("content-type", "application/grpc"), literal("content-length", "1")];
    wire.writes([headers(15, END_HEADERS, &grpc), data(15, 0, b"1")].concat());
    let last = wire.clock;
    wire.writes(frame(3, 0, 5, &[0, 0, 0, 2])).reads(frame(3, 0, 7, &[0, 0, 0, 8]));
    wire.closes(Closing::ByPeer).closes(Closing::Fully);
    assert_eq!(
        wire.log.answered(),
        [("GET", "/cancelled", 200), ("GET", "/whole", 200), ("HEAD", "/head", 200), ("GET", "/empty", 204)]
    );
    assert!(wire.log.ended.iter().all(|one| one.course.last_sent <= Some(Instant(last))));
    assert_eq!(
        wire.log.unanswered(),
        [
            ("/reset", Unanswered::ServerReset),
            ("/part", Unanswered::ClientClosed),
            ("/untold", Unanswered::ClientClosed),
            ("/call", Unanswered::ClientClosed),
        ]
    );
}

#[test]
fn promises_are_nobodys_requests_and_keep_the_table() {
    let mut wire = begun();
    wire.reads(get(1, "/"));
    let promise = [&[0, 0, 0, 2][..], &[0x82], &indexed(":path", "/pushed")].concat();
    wire.writes(frame(5, END_HEADERS, 1, &promise));
    wire.writes([ok(2, 0), data(2, END_STREAM, b"pushed")].concat());
    // The newest entry is 62.
    wire.writes(headers(1, END_HEADERS, &[indexed(":status", "418")])).writes(data(1, END_STREAM, b""));
    wire.reads(get(3, "/")).writes(headers(3, END_STREAM | END_HEADERS, &[vec![0xbe]]));
    assert_eq!(wire.log.answered(), [("GET", "/", 418), ("GET", "/", 418)]);
    assert_eq!(wire.log.seen(), 2);
}

#[test]
fn a_body_beyond_the_capture_is_passed_over_exactly() {
    let mut wire = begun();
    wire.limit = 100;
    let body = get(3, "/within").repeat(400);
    wire.reads(get(1, "/large")).writes([ok(1, 0), data(1, 0, &body)].concat());
    // A frame in several operations, and one that never was in a buffer.
    wire.writes(&data(1, 0, &body)[..9]).passes(Direction::Sent, body.len(), Capture::Spliced);
    wire.writes(data(1, END_STREAM, b"")).reads(get(3, "/next")).writes(ok(3, END_STREAM));
    assert_eq!(wire.log.answered(), [("GET", "/large", 200), ("GET", "/next", 200)]);
    assert_eq!(wire.log.ended[0].course.response_body, 2 * body.len() as u64);
    assert!(wire.log.unparsed.is_empty());
}

#[test]
fn a_lost_place_is_found_again_and_nothing_is_guessed() {
    let mut wire = begun();
    wire.limit = 100;
    wire.reads([get(1, "/1"), get(3, "/3")].concat()).writes(headers(
        1,
        END_HEADERS,
        &[indexed(":status", "201")],
    ));
    // Frames' headers in what wasn't captured: among them may have been any response's end.
    wire.writes([data(1, 0, &[7; 5000]), data(1, 0, &[7; 5000]), data(3, END_STREAM, &[7; 50])].concat());
    assert!(wire.log.unparsed(Unparsed::Desync) > 4000 && wire.connections.take_cut());
    // The one goes on; of its table nothing is known any more.
    wire.writes([data(1, END_STREAM, b"x"), frame(6, 0, 0, &[0; 8])].concat());
    assert_eq!(wire.log.answered(), [("GET", "/1", 201)]);
    wire.reads(get(5, "/5")).writes(headers(5, END_STREAM | END_HEADERS, &[vec![0xbe]]));
    wire.reads(get(7, "/7")).writes(ok(7, END_STREAM));
    assert_eq!(wire.log.answered()[1..], [("GET", "/5", 0), ("GET", "/7", 200)]);
    wire.closes(Closing::Fully);
    assert_eq!(wire.log.unanswered(), [("/3", Unanswered::Desync)]);
}

/// A connection whose frames the kernel side walks over.
fn walked() -> Wire {
    let mut wire = begun();
    wire.places = Some([Place::START; 2]);
    wire
}

#[test]
fn bodies_that_were_left_out_are_counted() {
    let mut wire = walked();
    let body = vec![b'x'; 70_000];
    let mut frames: Vec<u8> = body.chunks(16_384).flat_map(|part| data(1, 0, part)).collect();
    frames.extend([data(1, END_STREAM, b""), get(3, "/3")].concat());
    let asked = [post(1, "/1", &[]), frames].concat();
    for part in asked.chunks(20_000) {
        wire.reads(part);
    }
    wire.writes([ok(3, 0), data(3, 0x8 | END_STREAM, b"\x02hello\0\0"), ok(1, END_STREAM)].concat());
    assert_eq!(wire.log.answered(), [("GET", "/3", 200), ("POST", "/1", 200)]);
    assert_eq!(wire.log.ended[0].course.response_body, 5);
    assert_eq!(wire.log.ended[1].course.request_body, 70_000);
    assert!(wire.log.unparsed.is_empty());
}

#[test]
fn a_lost_operation_costs_what_began_in_it_alone() {
    let upload = data(1, 0, &[7; 9000]);
    for cut in [3, 7, 9, 500] {
        let mut wire = walked();
        wire.reads(post(1, "/1", &[]));
        let lost = [&get(3, "/3")[..], &data(1, 0, b"x"), &upload[..cut]].concat();
        wire.loses_frames(Direction::Received, &lost);
        wire.reads(&upload[cut..]).reads([data(1, END_STREAM, b""), get(5, "/5")].concat());
        wire.writes([ok(1, END_STREAM), ok(5, END_STREAM)].concat());
        assert_eq!(wire.log.answered(), [("POST", "/1", 200), ("GET", "/5", 200)], "{cut}");
        assert_eq!(wire.log.active(), 0);
        assert!(wire.log.unparsed(Unparsed::Desync) >= lost.len() as u64, "{cut}");
    }
}

#[test]
fn frames_that_are_told_where_none_were_seen_begin_a_connection() {
    let mut wire = Wire::joined();
    wire.places = Some([Place::START; 2]);
    wire.reads([post(7, "/7", &[]), data(7, END_STREAM, &[1; 3000])].concat()).writes(ok(7, END_STREAM));
    assert_eq!(wire.log.answered(), [("POST", "/7", 200)]);
    assert_eq!(wire.log.ended[0].course.request_body, 3000);
}

#[test]
fn frames_that_are_told_within_http1_are_bytes_of_its_bodies() {
    let mut wire = Wire::born();
    let body = [data(1, 0, b"in a body"), settings()].concat();
    wire.reads(format!("POST / HTTP/1.1\r\ncontent-length: {}\r\n\r\n", body.len()));
    wire.places = Some([Place::START; 2]);
    wire.reads(&body);
    wire.places = None;
    wire.writes("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    wire.reads("GET /next HTTP/1.1\r\n\r\n").writes("HTTP/1.1 204 No Content\r\n\r\n");
    assert_eq!(wire.log.answered(), [("POST", "/", 200), ("GET", "/next", 204)]);
    assert_eq!(wire.log.ended[0].course.request_body, body.len() as u64);
}

#[test]
fn lost_events_within_a_body_are_survived() {
    let mut wire = begun();
    wire.reads(get(1, "/")).writes([ok(1, 0), data(1, 0, &[7; 3000])[..1000].to_vec()].concat());
    wire.loses(Direction::Sent, 1500).writes(vec![7; 509]).writes(data(1, END_STREAM, b"x"));
    assert_eq!(wire.log.answered(), [("GET", "/", 200)]);
    assert_eq!(wire.log.ended[0].course.response_body, 3001);
}

#[test]
fn a_head_that_was_not_captured_whole_leaves_the_rest_unknown() {
    let mut wire = begun();
    wire.limit = 60;
    let fields = [vec![0x82, 0x86], literal(":path", "/cut"), [literal("cookie", &"c".repeat(120))].concat()];
    wire.reads(headers(1, END_STREAM | END_HEADERS, &fields)).writes(ok(1, END_STREAM));
    // Nothing of the path was captured.
    let fields = [vec![0x82, 0x86], literal("cookie", &"c".repeat(120)), literal(":path", "/unknown")];
    wire.reads(headers(3, END_STREAM | END_HEADERS, &fields)).writes(ok(3, END_STREAM));
    wire.reads(get(5, "/after")).writes(ok(5, END_STREAM));
    assert_eq!(wire.log.answered(), [("GET", "/cut", 200), ("GET", "unknown", 200), ("GET", "/after", 200)]);
    assert!(wire.log.unparsed.is_empty());
}

#[test]
fn joined_midway_it_counts_from_the_first_new_stream() {
    let mut wire = Wire::joined();
    // The end of an upload on a stream from before, then a whole operation of frames.
    wire.reads(vec![0; 700]);
    wire.reads([data(9, END_STREAM, b"rest"), get(11, "/new")].concat());
    assert_eq!((wire.log.seen(), wire.log.active()), (1, 1));
    // What was said on older streams answers nothing known; an index to the table from before is no status.
    wire.writes([ok(9, END_STREAM), headers(11, END_HEADERS, &[vec![0xbe]])].concat());
    wire.writes(data(11, END_STREAM, b"answer"));
    wire.reads(headers(13, END_STREAM | END_HEADERS, &[vec![0x82, 0x86, 0xbf]]));
    wire.writes(headers(13, END_STREAM | END_HEADERS, &[indexed(":status", "404")]));
    wire.reads(get(15, "/third")).writes(headers(15, END_STREAM | END_HEADERS, &[vec![0xbe]]));
    let expected = [("GET", "/new", 0), ("GET", "unknown", 404), ("GET", "/third", 404)];
    assert_eq!(wire.log.answered(), expected);
    assert_eq!(wire.log.ended[0].course.response_body, 6);
}

#[test]
fn joined_midway_where_a_frame_is_read_in_two() {
    let mut wire = Wire::joined();
    let (first, second) = (get(11, "/new"), get(13, "/newer"));
    for request in [&first, &second] {
        wire.reads(&request[..9]).reads(&request[9..]);
    }
    wire.writes([ok(11, END_STREAM), ok(13, END_STREAM)].concat());
    assert_eq!(wire.log.answered(), [("GET", "/new", 200), ("GET", "/newer", 200)]);
    assert_eq!(wire.log.ended[0].course.read, Instant(1));
    // What only looks like it is left alone.
    let mut wire = Wire::joined();
    wire.reads(&first[..9])
        .writes("?")
        .reads("GET /1 HTTP/1.1\r\n\r\n")
        .writes("HTTP/1.1 204 No Content\r\n\r\n");
    assert_eq!(wire.log.answered(), [("GET", "/1", 204)]);
}

#[test]
fn a_clients_end_midway_is_told_by_the_fields() {
    let mut wire = Wire::client();
    wire.writes(get(7, "/asked")).reads(ok(7, END_STREAM)).writes(get(9, "/again")).reads(ok(9, END_STREAM));
    // The first operation tells the side, and its request with it.
    assert_eq!(wire.log.answered(), [("GET", "/asked", 200), ("GET", "/again", 200)]);
    let mut wire = Wire::client();
    wire.writes([opening(), get(1, "/")].concat()).reads([settings(), ok(1, END_STREAM)].concat());
    assert_eq!(wire.log.answered(), [("GET", "/", 200)]);
}

#[test]
fn calls_of_grpc_end_with_their_trailers() {
    let mut wire = begun();
    let grpc = [literal("content-type", "application/grpc"), literal("te", "trailers")];
    wire.reads([post(1, "/shop.Cart/Add", &grpc), data(1, END_STREAM, b"12345")].concat());
    wire.writes(headers(1, END_HEADERS, &[vec![0x88], literal("content-type", "application/grpc")]));
    wire.writes(data(1, 0, b"12345"));
    assert_eq!(wire.log.active(), 1);
    wire.writes(headers(1, END_STREAM | END_HEADERS, &[literal("grpc-status", "0")]));
    // Trailers alone, and none at all.
    wire.reads(post(3, "/shop.Cart/Nothing", &grpc));
    wire.writes(headers(3, END_STREAM | END_HEADERS, &[vec![0x88], literal("grpc-status", "12")]));
    wire.reads(post(5, "/shop.Cart/Add", &grpc)).writes(ok(5, END_STREAM));
    wire.reads(get(7, "/page")).writes(ok(7, END_STREAM));
    let calls: Vec<_> = wire.log.ended.iter().map(|one| one.grpc).collect();
    assert_eq!(calls, [Some(Grpc::Status(0)), Some(Grpc::Status(12)), Some(Grpc::Unknown), None]);
}

#[test]
fn a_websocket_lasts_from_its_response_to_its_end() {
    let mut wire = Wire::born();
    wire.reads("GET /chat HTTP/1.1\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n");
    wire.writes("HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n");
    let begun = wire.clock;
    assert_eq!((wire.log.websockets.0, wire.log.active()), (1, 0));
    wire.reads("GET /frame HTTP/1.1\r\n\r\n").writes(opening());
    wire.closes(Closing::ByPeer).closes(Closing::Fully);
    assert_eq!(wire.log.answered(), [("GET", "/chat", 101)]);
    assert_eq!(wire.log.websockets, (0, vec![(wire.clock - 1 - begun) as f64 / 1e9]));
    // The same on a stream (RFC 8441).
    let mut wire = self::begun();
    let fields =
        [literal(":method", "CONNECT"), literal(":protocol", "websocket"), literal(":path", "/chat")];
    wire.reads(headers(1, END_HEADERS, &fields)).writes(ok(1, 0));
    assert_eq!(wire.log.answered(), [("CONNECT", "/chat", 200)]);
    wire.reads(data(1, 0, b"hello")).writes(data(1, END_STREAM, b"bye"));
    assert_eq!((wire.log.websockets.0, wire.log.websockets.1.len()), (0, 1));
    assert_eq!(wire.log.unparsed(Unparsed::NotHttp), 8);
}

#[test]
fn traces_are_read() {
    let value = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let mut wire = begun();
    wire.reads(post(1, "/", &[literal("traceparent", value)])).writes(ok(1, END_STREAM));
    assert_eq!(wire.log.ended[0].trace.unwrap().span_id(), "00f067aa0ba902b7");
    let mut wire = Wire::born();
    wire.reads(format!("GET / HTTP/1.1\r\nTraceparent: {value}\r\n\r\n"));
    wire.writes("HTTP/1.1 204 No Content\r\n\r\n");
    assert_eq!(wire.log.ended[0].trace.unwrap().trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
}

#[test]
fn what_no_peer_would_accept_is_counted_as_unreadable() {
    for strange in [
        // Another preface, DATA of no stream, a continuation of nothing.
        [&PREFACE[..20], &b"what"[..]].concat(),
        [opening(), data(0, 0, b"x")].concat(),
        [opening(), frame(9, END_HEADERS, 1, b"x")].concat(),
        // A request before the settings.
        [&PREFACE[..], &get(1, "/")].concat(),
    ] {
        let mut wire = Wire::born();
        wire.reads(&strange).reads("more of it");
        assert!(wire.log.unparsed(Unparsed::Http2) >= 10, "{:?}", wire.log.unparsed);
        assert_eq!(wire.log.seen(), 0);
    }
}

#[test]
fn a_server_that_does_not_speak_it_answers_nothing() {
    let mut wire = Wire::born();
    wire.reads([opening(), get(1, "/")].concat())
        .writes("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
    assert!(wire.log.unparsed(Unparsed::Http2) > 0);
    wire.closes(Closing::Locally);
    assert_eq!(wire.log.unanswered(), [("/", Unanswered::Desync)]);
}

#[test]
fn streams_without_an_end_are_bounded() {
    let mut wire = begun();
    for number in 0..6000 {
        wire.reads(get(2 * number + 1, "/"));
    }
    assert_eq!((wire.log.active(), wire.log.unanswered().len()), (4096, 6000 - 4096));
}

/// Exchanges on streams of their own, as the frames of both sides.
#[derive(Clone, Debug)]
struct Exchange {
    body: Vec<u8>,
    status: u16,
    padded: bool,
    trailers: bool,
}

fn exchange() -> impl Strategy<Value = Exchange> {
    let status = prop::sample::select(vec![200_u16, 201, 204, 404, 500]);
    (prop::collection::vec(any::<u8>(), 0..2000), status, any::<bool>(), any::<bool>())
        .prop_map(|(body, status, padded, trailers)| Exchange { body, status, padded, trailers })
}

impl Exchange {
    fn asked(&self, stream: u32) -> Vec<Vec<u8>> {
        let path = literal(":path", &format!("/{stream}?SECRET"));
        let fields = [vec![0x83, 0x86], path, indexed("cookie", "SECRET")];
        let mut frames = vec![headers(stream, END_HEADERS, &fields)];
        frames.extend(self.body.chunks(700).map(|part| data(stream, 0, part)));
        frames.push(data(stream, END_STREAM, b""));
        frames
    }

    fn answered(&self, stream: u32) -> Vec<Vec<u8>> {
        let mut frames = vec![headers(stream, END_HEADERS, &[indexed(":status", &self.status.to_string())])];
        frames.extend(self.body.chunks(900).map(|part| {
            if self.padded {
                data(stream, 0x8, &[&[9][..], part, &[0; 9]].concat())
            } else {
                data(stream, 0, part)
            }
        }));
        frames.push(if self.trailers {
            headers(stream, END_STREAM | END_HEADERS, &[literal("x", "SECRET")])
        } else {
            data(stream, END_STREAM, b"")
        });
        frames
    }
}

/// The frames of all streams, mixed: those of one stream stay in order.
fn mixed(mut streams: Vec<Vec<Vec<u8>>>, order: &[prop::sample::Index]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut order = order.iter().cycle();
    // Streams begin in order.
    for frames in &mut streams {
        bytes.extend(frames.remove(0));
    }
    while streams.iter().any(|frames| !frames.is_empty()) {
        let open: Vec<usize> = (0..streams.len()).filter(|index| !streams[*index].is_empty()).collect();
        let next = open[order.next().map_or(0, |index| index.index(open.len()))];
        bytes.extend(streams[next].remove(0));
    }
    bytes
}

fn carry(wire: &mut Wire, direction: Direction, bytes: &[u8], sizes: &[usize]) {
    let mut rest = bytes;
    for size in sizes.iter().cycle() {
        if rest.is_empty() {
            return;
        }
        let (piece, more) = rest.split_at((*size).min(rest.len()));
        match direction {
            Direction::Received => wire.reads(piece),
            Direction::Sent => wire.writes(piece),
        };
        rest = more;
    }
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(prop_oneof![1_usize..10, 10_usize..200, 200_usize..9000], 1..8)
}

type Order = Vec<prop::sample::Index>;

fn conversation() -> impl Strategy<Value = (Vec<Exchange>, Order, Vec<usize>)> {
    let order = prop::collection::vec(any::<prop::sample::Index>(), 1..20);
    (prop::collection::vec(exchange(), 1..12), order, sizes())
}

fn play(wire: &mut Wire, exchanges: &[Exchange], order: &Order, sizes: &[usize]) {
    let numbered = || exchanges.iter().zip((0..).map(|index| 2 * index + 1));
    let asked = mixed(numbered().map(|(one, stream)| one.asked(stream)).collect(), order);
    let answered = mixed(numbered().map(|(one, stream)| one.answered(stream)).collect(), order);
    carry(wire, Direction::Received, &[opening(), asked].concat(), sizes);
    carry(wire, Direction::Sent, &[settings(), answered].concat(), sizes);
}

proptest! {
    #[test]
    fn mixed_and_cut_anywhere_everything_is_counted(
        (exchanges, order, sizes) in conversation(),
        walked in any::<bool>(),
    ) {
        let mut wire = Wire::born();
        wire.limit = usize::MAX;
        wire.places = walked.then_some([Place::PREFACE, Place::START]);
        play(&mut wire, &exchanges, &order, &sizes);
        prop_assert!(wire.log.unparsed.is_empty());
        prop_assert_eq!((wire.log.active(), wire.log.ended.len()), (0, exchanges.len()));
        for one in &wire.log.ended {
            let number: usize = one.target[1..].split('?').next().unwrap_or_default().parse().unwrap_or_default();
            let truth = &exchanges[number / 2];
            let body = truth.body.len() as u64;
            prop_assert_eq!(one.outcome.ok().and_then(crate::exchange::Status::code), Some(truth.status));
            prop_assert_eq!((one.course.request_body, one.course.response_body), (body, body));
        }
    }

    #[test]
    fn captured_in_part_what_is_counted_is_true(
        (exchanges, order, sizes) in conversation(),
        limit in 10_usize..3000,
    ) {
        let mut wire = Wire::born();
        wire.limit = limit;
        play(&mut wire, &exchanges, &order, &sizes);
        for (method, target, status) in wire.log.answered() {
            if method == "POST" && target != "unknown" {
                let number: usize = target[1..].split('?').next().unwrap_or_default().parse().unwrap_or(usize::MAX);
                // The path may be cut, where its end was not captured: then it is no path at all.
                if let Some(truth) = exchanges.get(number / 2) {
                    prop_assert!(status == 0 || status == truth.status, "{} {}", target, status);
                }
            }
        }
        wire.closes(Closing::Fully);
        prop_assert_eq!(wire.log.active(), 0);
    }

    #[test]
    fn a_recording_of_it_holds_no_secrets(
        (exchanges, order, sizes) in conversation(),
        walked in any::<bool>(),
    ) {
        let mut wire = Wire::born().recorded();
        wire.limit = usize::MAX;
        wire.places = walked.then_some([Place::PREFACE, Place::START]);
        play(&mut wire, &exchanges, &order, &sizes);
        let shadow = wire.shadow.take().expect("it was made");
        prop_assert!(!shadow.bytes.windows(6).any(|window| window == b"SECRET"));
        // Framing stays, and with it counts, times and sizes; and where no block was cut, all that is counted by.
        let facts = |log: &super::wire::Log| log.ended.iter().map(|one| one.course).collect::<Vec<_>>();
        prop_assert_eq!(facts(&shadow.log), facts(&wire.log));
        if sizes.iter().all(|size| *size > 5000) {
            let facts = |log: &super::wire::Log| {
                let path = |one: &super::wire::Exchange| one.target.split('?').next().unwrap_or_default().to_owned();
                log.ended.iter().map(|one| (one.method.clone(), path(one), one.outcome)).collect::<Vec<_>>()
            };
            prop_assert_eq!(facts(&shadow.log), facts(&wire.log));
        }
        prop_assert_eq!(shadow.log.active(), 0);
    }
}
