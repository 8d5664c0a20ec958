//! The records that the kernel side sends and the agent reads, the tables both share, and the kernel
//! object that the agent embeds. The programs themselves are this crate's binary, built for the BPF target.
#![no_std]

pub mod config;
pub mod place;
pub mod record;

/// The compiled programs: `cargo xtask ebpf` makes them from this crate's sources.
#[cfg(not(feature = "programs"))]
pub static OBJECT: &[u8] = {
    #[repr(C, align(8))]
    struct Aligned<Bytes: ?Sized>(Bytes);
    static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!("../httpmon.bpf.o"));
    &OBJECT.0
};
