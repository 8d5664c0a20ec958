//! The records that the kernel side sends and the agent reads, the tables both share, and the kernel
//! object that the agent embeds. The programs themselves are this crate's binary, built for the BPF target.
#![no_std]

pub mod config;
pub mod record;
