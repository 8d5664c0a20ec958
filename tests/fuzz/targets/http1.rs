//! Any bytes as heads and bodies, cut anywhere: pieces make what the whole makes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use monitor::http1::{self, Body, Framing};

fuzz_target!(|input: (u8, &[u8])| {
    let (cut, bytes) = input;
    let _ = http1::request(bytes);
    let _ = http1::response(bytes);
    let (first, second) = bytes.split_at(usize::from(cut).min(bytes.len()));
    for framing in [Framing::Length(cut.into()), Framing::Chunked, Framing::Unstated] {
        let mut whole = Body::framed(framing, Body::until_close());
        let all = whole.read(bytes);
        let mut pieces = Body::framed(framing, Body::until_close());
        let one = pieces.read(first);
        if one.read == first.len() && !one.ended {
            let two = pieces.read(second);
            assert_eq!(all.ended, two.ended);
            assert_eq!(all.read, one.read + two.read);
        }
    }
});
