//! The header fields that matter here.

use super::hpack::{Broken, Decoder, Field};
use crate::exchange::{Trace, offers_http3};

/// gRPC's last status code, UNAUTHENTICATED.
const LAST_STATUS: u32 = 16;

/// What a header block says.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, none of which excludes another")]
pub struct Fields {
    /// `:method`.
    pub method: Option<String>,
    /// `:path`.
    pub path: Option<String>,
    /// `:authority`.
    pub authority: Option<String>,
    /// `:status`, where it is one.
    pub status: Option<u16>,
    /// `content-length`.
    pub length: Option<u64>,
    /// `:protocol` is `websocket` (RFC 8441).
    pub websocket: bool,
    /// The content type is gRPC's.
    pub grpc: bool,
    /// `grpc-status`.
    pub grpc_status: Option<u32>,
    /// `traceparent`.
    pub trace: Option<Trace>,
    /// `alt-svc` offers HTTP/3.
    pub http3: bool,
    /// There are fields that only a request has.
    pub asks: bool,
    /// There are fields, or a rest, of which nothing is known.
    pub unknown: bool,
}

impl Fields {
    /// Whether a field of this name is looked at.
    #[must_use]
    pub fn asked(name: &[u8]) -> bool {
        matches!(
            name,
            b":method"
                | b":path"
                | b":scheme"
                | b":authority"
                | b":status"
                | b":protocol"
                | b"content-length"
                | b"content-type"
                | b"grpc-status"
                | b"traceparent"
                | b"alt-svc"
        )
    }

    /// Reads a block; one that was not captured whole as far as it goes.
    #[must_use]
    pub fn of(block: &[u8], whole: bool, decoder: &mut Decoder) -> Self {
        let mut fields = Self::default();
        let result = decoder.decode(block, |field| match field {
            Field::Known(name, value) => fields.take(name, value),
            Field::Unknown => fields.unknown = true,
        });
        if !whole {
            decoder.forget();
        }
        fields.unknown |= !whole || result == Err(Broken);
        fields
    }

    fn take(&mut self, name: &[u8], value: &[u8]) {
        let text = || Some(String::from_utf8_lossy(value).into_owned());
        self.asks |= matches!(name, b":method" | b":path" | b":scheme" | b":authority" | b":protocol");
        match name {
            b":method" => self.method = text(),
            b":path" => self.path = text(),
            b":authority" => self.authority = text(),
            b":status" => self.status = number(value).filter(|status| (100..=599).contains(status)),
            b":protocol" => self.websocket = value.eq_ignore_ascii_case(b"websocket"),
            b"content-length" => self.length = number(value),
            b"content-type" => self.grpc = is_grpc(value),
            b"grpc-status" => self.grpc_status = number(value).filter(|status| *status <= LAST_STATUS),
            b"traceparent" => self.trace = Trace::read(value),
            b"alt-svc" => self.http3 |= offers_http3(value),
            _ => {}
        }
    }
}

/// `application/grpc`, with a suffix or parameters or without; `application/grpc-web` is another protocol.
fn is_grpc(value: &[u8]) -> bool {
    let rest = value.strip_prefix(b"application/grpc");
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ')))
}

fn number<T: std::str::FromStr>(value: &[u8]) -> Option<T> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(value).ok().filter(|_| digits)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types_of_grpc() {
        for (value, is) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;x=y", true),
            ("application/grpc-web", false),
            ("text/plain", false),
        ] {
            assert_eq!(is_grpc(value.as_bytes()), is, "{value}");
        }
    }
}
