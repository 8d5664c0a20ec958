//! HTTP/1 messages: heads and bodies (RFC 9112), from bytes that come in any pieces. No connection, no clock.

mod body;
mod chunked;
mod head;
mod memo;

pub use body::{Body, Progress};
pub use chunked::Chunks;
pub use head::{
    Framing, Head, RequestHead, ResponseHead, Upgrade, begins_request, begins_response, may_begin_request,
    may_begin_response, request, response,
};
