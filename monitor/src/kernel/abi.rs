//! System calls' numbers and registers on the architectures that the probes know.

use monitor_ebpf::config::Abi;

/// Those of an architecture, by Rust's name of it.
pub(super) fn of(architecture: &str) -> Option<Abi> {
    match architecture {
        "x86_64" => Some(Abi::X86_64),
        "aarch64" => Some(Abi::AARCH64),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;

    macro_rules! assert_numbers {
        ($abi:expr, $($calls:tt)+) => {{
            use $($calls)+::Sysno as Call;
            let abi: Abi = $abi;
            let numbers = |calls: &[Call]| calls.iter().map(|&call| call as u64).collect::<Vec<_>>();
            assert_eq!(abi.flat[..], numbers(&[Call::read, Call::write, Call::recvfrom, Call::sendto]));
            assert_eq!(abi.vectored[..], numbers(&[Call::readv, Call::writev, Call::preadv2, Call::pwritev2]));
            assert_eq!(abi.message[..], numbers(&[Call::recvmsg, Call::sendmsg]));
            assert_eq!(abi.messages[..], numbers(&[Call::recvmmsg, Call::sendmmsg]));
            assert_eq!(abi.spliced[..], numbers(&[Call::sendfile, Call::splice]));
            assert_eq!([abi.clone, abi.clone3][..], numbers(&[Call::clone, Call::clone3]));
            assert_eq!(abi.rings[..], numbers(&[Call::io_uring_setup, Call::io_uring_enter]));
        }};
    }

    #[test]
    fn calls_have_the_numbers_of_their_architecture() {
        assert_numbers!(Abi::X86_64, syscalls::x86_64);
        assert_numbers!(Abi::AARCH64, syscalls::aarch64);
    }

    /// arch/x86/include/asm/ptrace.h, `struct pt_regs` (Linux 6.18).
    #[repr(C)]
    struct RegistersX86 {
        r15: u64,
        r14: u64,
        r13: u64,
        r12: u64,
        bp: u64,
        bx: u64,
        r11: u64,
        r10: u64,
        r9: u64,
        r8: u64,
        ax: u64,
        cx: u64,
        dx: u64,
        si: u64,
        di: u64,
        orig_ax: u64,
        ip: u64,
        cs: u64,
        flags: u64,
    }

    /// arch/arm64/include/asm/ptrace.h, `struct pt_regs` (Linux 6.18).
    #[repr(C)]
    struct RegistersArm {
        regs: [u64; 31],
        sp: u64,
        pc: u64,
        pstate: u64,
        orig_x0: u64,
    }

    #[test]
    fn registers_are_where_their_architecture_has_them() {
        let abi = Abi::X86_64;
        assert_eq!(abi.number, offset_of!(RegistersX86, orig_ax) as u64);
        let arguments = [
            offset_of!(RegistersX86, di),
            offset_of!(RegistersX86, si),
            offset_of!(RegistersX86, dx),
            offset_of!(RegistersX86, r10),
        ];
        assert_eq!(abi.arguments, arguments.map(|offset| offset as u64));
        assert_eq!(abi.width, offset_of!(RegistersX86, cs) as u64);
        let of_go =
            [offset_of!(RegistersX86, ax), offset_of!(RegistersX86, bx), offset_of!(RegistersX86, cx)];
        assert_eq!(abi.go_parameters, of_go.map(|offset| offset as u64));
        // A result's place comes first, as any other argument.
        assert_eq!(abi.rust_parameters, abi.parameters);
        assert_eq!(abi.goroutine, offset_of!(RegistersX86, r14) as u64);
        assert_eq!(abi.flags, offset_of!(RegistersX86, flags) as u64);

        let abi = Abi::AARCH64;
        let register = |number: usize| (offset_of!(RegistersArm, regs) + number * 8) as u64;
        assert_eq!(abi.number, register(8));
        let first = offset_of!(RegistersArm, orig_x0) as u64;
        assert_eq!(abi.arguments, [first, register(1), register(2), register(3)]);
        assert_eq!(abi.width, offset_of!(RegistersArm, pstate) as u64);
        assert_eq!(abi.go_parameters, [register(0), register(1), register(2)]);
        assert_eq!(abi.rust_parameters, [register(8), register(0), register(1), register(2)]);
        assert_eq!(abi.goroutine, register(28));
        assert_eq!(abi.flags, offset_of!(RegistersArm, pstate) as u64);
    }

    #[test]
    fn every_call_means_one_thing() {
        for abi in [Abi::X86_64, Abi::AARCH64] {
            let calls = [
                &abi.flat[..],
                &abi.vectored,
                &abi.message,
                &abi.messages,
                &abi.spliced,
                &abi.rings,
                &[abi.clone, abi.clone3],
            ]
            .concat();
            let distinct: std::collections::HashSet<_> = calls.iter().collect();
            assert_eq!(distinct.len(), calls.len());
        }
    }

    #[test]
    fn other_architectures_are_not_guessed() {
        assert_eq!(of("aarch64"), Some(Abi::AARCH64));
        assert_eq!(of("riscv64"), None);
    }
}
