//! HTTP/2 (RFC 9113) from bytes that come in any pieces: frames and header fields. No connection, no clock.
//!
//! Each direction is a [`Half`] of its own. Bytes that weren't captured are passed over exactly where they lie within one
//! frame's payload; where they hold a frame's header, the half is lost until an operation surely begins with a frame
//! ([`recognise`]). What was missed of header blocks leaves fields unknown, and nothing is guessed.

mod fields;
mod frame;
mod half;
mod hpack;
mod recognise;
mod redact;

pub use fields::Fields;
pub use half::{Fact, Half, Step};
pub use hpack::{Beyond, Broken, Decoder, Field};
pub use recognise::{Scout, contiguous, recognise, settles};
pub use redact::Blocks;

/// What a client sends first (RFC 9113, section 3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Whether bytes begin like a client's preface, and like no request of HTTP/1.
#[must_use]
pub fn begins(bytes: &[u8]) -> bool {
    const SURELY: usize = 12;
    bytes.len() >= SURELY && bytes[..SURELY] == PREFACE[..SURELY]
}
