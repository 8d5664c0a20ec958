//! What goes wrong elsewhere, by name; then anything at all, cut and lost anywhere.

mod traps;
mod wire;

mod anything;
mod http2;
mod tls;
