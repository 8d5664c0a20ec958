//! Any bytes in the ring buffer and in a recording.
#![no_main]

use libfuzzer_sys::fuzz_target;
use monitor::{event, recording::Reader};

fuzz_target!(|bytes: &[u8]| {
    let _ = event::decode(bytes);
    if let Ok(mut reader) = Reader::new(bytes) {
        while let Ok(Some(_)) = reader.frame() {}
    }
});
