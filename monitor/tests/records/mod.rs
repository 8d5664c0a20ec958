//! Records as the kernel side writes them, of a service's process.

use monitor_ebpf::record;

/// A record's first bytes.
pub(crate) fn header(kind: u8, flags: u16, at: u64, connection: u64) -> Vec<u8> {
    let mut bytes = vec![kind, 0];
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(1_u32.to_ne_bytes());
    bytes.extend([at, connection].map(u64::to_ne_bytes).concat());
    bytes.extend([4242_u32, 9].map(u32::to_ne_bytes).concat());
    bytes
}

/// An operation that turned the direction, after so many bytes of its own and of the other; what is received had arrived
/// 100 ns before.
pub(crate) fn moved(
    kind: u8,
    at: u64,
    connection: u64,
    (offset, other): (usize, usize),
    payload: &[u8],
) -> Vec<u8> {
    let mut bytes = header(kind, record::FLAG_TURNED, at, connection);
    bytes.extend([offset as u64, other as u64, at - 100].map(u64::to_ne_bytes).concat());
    bytes.extend((payload.len() as u32).to_ne_bytes());
    bytes.extend([payload.len() as u16, 0].map(u16::to_ne_bytes).concat());
    bytes.extend(payload);
    bytes
}
