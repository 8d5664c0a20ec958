//! Any bytes as both directions of HTTP/2, cut anywhere, with anything missing: they are read to their end.
#![no_main]

use libfuzzer_sys::fuzz_target;
use monitor::http2::{Half, PREFACE};

fuzz_target!(|pieces: Vec<(&[u8], u8)>| {
    let mut client = Half::client();
    client.step(PREFACE);
    for mut half in [client, Half::server(), Half::joined()] {
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
