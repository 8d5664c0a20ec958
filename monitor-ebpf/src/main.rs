//! The kernel side: eBPF programs on the socket operations and the lives of selected processes.
//!
//! [`transfer`] sends what goes through sockets, [`frames`] what of it matters on connections that carry HTTP/2,
//! [`syscalls`] the same where the kernel has no hook for it, [`sockets`] their births and deaths, [`processes`] those of
//! processes, [`tls`] what TLS libraries make of it ([`go`] and [`rust`] those of these languages), and [`clear`] sends that. Each hook has flavours of one body ([`kernel::Flavour`]).
#![no_std]
#![no_main]
#![feature(asm_experimental_arch, stmt_expr_attributes)]
#![expect(unreachable_pub, reason = "programs are found by their symbols")]

mod clear;
mod frames;
mod go;
mod kernel;
mod maps;
mod output;
mod processes;
mod rust;
mod sockets;
mod syscalls;
mod tls;
mod transfer;
mod user;

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
