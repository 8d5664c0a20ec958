//! Any bytes as both directions of HTTP/2, cut anywhere, with anything missing: they are read to their end.
#![no_main]

use libfuzzer_sys::fuzz_target;
use monitor::http2::{Half, PREFACE};

fuzz_target!(|pieces: Vec<(&[u8], u8)>| {
    let (mut client, mut server) = (Half::client(), Half::server());
    client.step(PREFACE);
    for half in [&mut client, &mut server] {
        half.step(b"\0\0\0\x04\0\0\0\0\0");
    }
    for mut half in [client, server, Half::joined()] {
        for (piece, missing) in &pieces {
            half.find(piece, piece.len() as u32);
            let mut rest = *piece;
            while !rest.is_empty() {
                let read = half.step(rest).read;
                assert!(read > 0 && read <= rest.len());
                rest = &rest[read..];
            }
            half.skip(u64::from(*missing));
        }
    }
});
