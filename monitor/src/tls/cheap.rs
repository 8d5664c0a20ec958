//! Where at a function of C probes cost least. The kernel steps over the instruction that a probe stands at, with an
//! exception that costs several times the probe itself, and most in virtual machines; but pushes, branches and calls it does
//! by itself (arch/x86/kernel/uprobes.c, `push_setup_xol_ops` and `branch_setup_xol_ops`, Linux 3.16 and later).
//!
//! So a function is watched at the first such instruction that it comes to in any case, while its arguments are where they
//! were. If by then it has moved the stack pointer, its return can't be watched by its return address; it is at the branch of
//! its check for an overrun stack, which compilers put before returns, if each has one. And one that only hands its arguments on
//! to another is watched there.

use std::collections::HashSet;

use iced_x86::{
    Code, Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess,
    OpKind, Register,
};

/// The first four arguments of a function (System V ABI, AMD64 supplement, section 3.2.3).
const ARGUMENTS: [Register; 4] = [Register::RDI, Register::RSI, Register::RDX, Register::RCX];

/// Where to watch a function, from its begin.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Places {
    /// Here its begin, and from here its return by its return address.
    At(u64),
    /// Here its begin, and there that it is about to return, with its result.
    Within(u64, Vec<u64>),
    /// Neither; but it hands its arguments on as they are, to the function there, and has its result from that.
    Elsewhere(u64),
}

/// Finds them in a function's code on x86-64; none where its begin itself is no worse, or it can't be told.
pub(super) fn places(code: &[u8]) -> Option<Places> {
    let function = Function::read(code)?;
    let (begin, depth) = function.begin()?;
    if depth == 0 {
        return Some(Places::At(begin));
    }
    match function.ends(depth) {
        Some(ends) => Some(Places::Within(begin, ends)),
        None => function.hands_on(begin).map(Places::Elsewhere),
    }
}

/// Where a function's begin and return can be watched that begins with this code: at its first instruction, or the one after
/// what marks it as a branch's target.
pub(super) fn at_once(code: &[u8]) -> Option<u64> {
    let mut first = Decoder::new(64, code, DecoderOptions::NONE).into_iter();
    let instruction = first.find(|instruction| instruction.code() != Code::Endbr64)?;
    (instruction.ip() <= 4 && is_emulated(&instruction)).then_some(instruction.ip())
}

/// Whether a function calls another one, of which it is told how far that is from its own begin.
pub(super) fn calls(code: &[u8], to: u64) -> bool {
    Decoder::new(64, code, DecoderOptions::NONE)
        .iter()
        .any(|instruction| instruction.is_call_near() && instruction.near_branch_target() == to)
}

struct Function {
    instructions: Vec<Instruction>,
    /// What branches lead to.
    targets: HashSet<u64>,
}

impl Function {
    /// None where it is left otherwise than by a return, or not of instructions alone.
    fn read(code: &[u8]) -> Option<Self> {
        let instructions: Vec<_> = Decoder::new(64, code, DecoderOptions::NONE).iter().collect();
        let mut targets = HashSet::new();
        for instruction in &instructions {
            match instruction.flow_control() {
                FlowControl::Next | FlowControl::Call | FlowControl::IndirectCall | FlowControl::Return => {}
                FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch => {
                    targets.insert(instruction.near_branch_target());
                }
                _ => return None,
            }
        }
        let begins: HashSet<u64> = instructions.iter().map(Instruction::ip).collect();
        targets.is_subset(&begins).then_some(Self { instructions, targets })
    }

    /// Where to watch that it begins, and by how much the stack pointer has moved by then.
    fn begin(&self) -> Option<(u64, i64)> {
        let mut depth = 0;
        for instruction in &self.instructions {
            if self.targets.contains(&instruction.ip()) {
                return None;
            }
            if is_emulated(instruction) {
                return Some((instruction.ip(), depth));
            }
            if instruction.flow_control() != FlowControl::Next || writes(instruction, &ARGUMENTS) {
                return None;
            }
            depth += moves_stack(instruction)?;
        }
        None
    }

    /// Where a call leads that is all that it does but for what it makes of the result.
    fn hands_on(&self, begin: u64) -> Option<u64> {
        let mut calls = self.instructions.iter().filter(|instruction| {
            matches!(instruction.flow_control(), FlowControl::Call | FlowControl::IndirectCall)
        });
        let (Some(call), None) = (calls.next(), calls.next()) else { return None };
        let straight = self.targets.is_empty();
        (straight && call.ip() == begin && call.is_call_near()).then(|| call.near_branch_target())
    }

    /// Where to watch that it is about to return, with the stack pointer moved as much.
    fn ends(&self, depth: i64) -> Option<Vec<u64>> {
        let returns = (0..self.instructions.len()).filter(|&at| self.instructions[at].code() == Code::Retnq);
        let ends: Vec<u64> = returns.map(|at| self.end(at, depth)).collect::<Option<_>>()?;
        (!ends.is_empty()).then_some(ends)
    }

    /// The same before one return.
    fn end(&self, at: usize, depth: i64) -> Option<u64> {
        let mut moved = 0;
        for at in (1..=at).rev() {
            let (before, instruction) = (&self.instructions[at - 1], &self.instructions[at]);
            if instruction.mnemonic() == Mnemonic::Jne && is_check(before) {
                return (moved == depth).then_some(instruction.ip());
            }
            if instruction.code() != Code::Retnq {
                if instruction.flow_control() != FlowControl::Next || writes(instruction, &[Register::RAX]) {
                    return None;
                }
                moved += moves_stack(instruction)?;
            }
            if self.targets.contains(&instruction.ip()) {
                return None;
            }
        }
        None
    }
}

/// Whether the kernel does it by itself.
pub(super) fn is_emulated(instruction: &Instruction) -> bool {
    match instruction.flow_control() {
        FlowControl::ConditionalBranch => instruction.is_jcc_short_or_near(),
        FlowControl::Call => instruction.is_call_near(),
        FlowControl::Next => instruction.code() == Code::Push_r64,
        _ => false,
    }
}

/// Whether it compares the stack's canary with the thread's.
fn is_check(instruction: &Instruction) -> bool {
    matches!(instruction.mnemonic(), Mnemonic::Sub | Mnemonic::Xor | Mnemonic::Cmp)
        && instruction.segment_prefix() == Register::FS
        && instruction.memory_base() == Register::None
        && instruction.memory_displacement64() == 0x28
}

fn writes(instruction: &Instruction, registers: &[Register]) -> bool {
    let mut factory = InstructionInfoFactory::new();
    factory.info(instruction).used_registers().iter().any(|used| {
        registers.contains(&used.register().full_register())
            && !matches!(used.access(), OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess)
    })
}

/// By how much it moves the stack pointer, which of two ways doesn't matter; none where that can't be told.
fn moves_stack(instruction: &Instruction) -> Option<i64> {
    if !writes(instruction, &[Register::RSP]) {
        return Some(0);
    }
    let by_constant = matches!(instruction.mnemonic(), Mnemonic::Sub | Mnemonic::Add)
        && instruction.op0_register() == Register::RSP
        && matches!(instruction.op1_kind(), OpKind::Immediate8to64 | OpKind::Immediate32to64);
    if by_constant {
        return i64::try_from(instruction.immediate(1)).ok();
    }
    let increment = instruction.stack_pointer_increment();
    (increment != 0).then(|| i64::from(increment).abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `sub rsp, 24; mov rax, fs:[40]; mov [rsp+8], rax`
    const OPENS: &[u8] = b"\x48\x83\xec\x18\x64\x48\x8b\x04\x25\x28\0\0\0\x48\x89\x44\x24\x08";
    /// `test edx, edx; js +0`
    const BRANCHES: &[u8] = b"\x85\xd2\x78\x00";
    /// `mov rdx, [rsp+8]; sub rdx, fs:[40]; jne +5`
    const CHECKS: &[u8] = b"\x48\x8b\x54\x24\x08\x64\x48\x2b\x14\x25\x28\0\0\0\x75\x05";
    /// `add rsp, 24; ret; endbr64`
    const CLOSES: &[u8] = b"\x48\x83\xc4\x18\xc3\xf3\x0f\x1e\xfa";

    fn code(parts: &[&[u8]]) -> Option<Places> {
        places(&parts.concat())
    }

    #[test]
    fn a_function_that_pushes_is_watched_there() {
        // push rbx; ret
        assert_eq!(code(&[b"\x53\xc3"]), Some(Places::At(0)));
        // endbr64; push r12; ret
        assert_eq!(code(&[b"\xf3\x0f\x1e\xfa\x41\x54\xc3"]), Some(Places::At(4)));
        // test rdi, rdi; je +0; ret
        assert_eq!(code(&[b"\x48\x85\xff\x74\x00\xc3"]), Some(Places::At(3)));
    }

    #[test]
    fn a_function_with_a_check_is_watched_at_its_branch() {
        assert_eq!(code(&[OPENS, BRANCHES, CHECKS, CLOSES]), Some(Places::Within(20, vec![36])));
        // endbr64 before
        let marked = code(&[b"\xf3\x0f\x1e\xfa", OPENS, BRANCHES, CHECKS, CLOSES]);
        assert_eq!(marked, Some(Places::Within(24, vec![40])));
    }

    #[test]
    fn a_function_that_hands_on_tells_where_to() {
        // call +16
        const CALLS: &[u8] = b"\xe8\x10\0\0\0";
        // sub rsp, 8; ...; xor edx, edx; test eax, eax; cmovs eax, edx; add rsp, 8; ret
        let (opens, closes) = (b"\x48\x83\xec\x08", b"\x31\xd2\x85\xc0\x0f\x48\xc2\x48\x83\xc4\x08\xc3");
        assert_eq!(code(&[opens, CALLS, closes]), Some(Places::Elsewhere(25)));
        assert!(calls(&[&opens[..], CALLS, closes].concat(), 25));
        assert!(!calls(&[&opens[..], CALLS, closes].concat(), 9));
        // It calls another one before or after, with an argument of its own, or in one case alone: call +16; xor ecx, ecx; js.
        assert_eq!(code(&[opens, CALLS, CALLS, closes]), None);
        assert_eq!(code(&[opens, b"\x31\xc9", CALLS, closes]), None);
        assert_eq!(code(&[opens, b"\x85\xd2\x78\x05", CALLS, closes]), None);
        // push r13; endbr64, push rbx; sub rsp, 8
        assert_eq!(at_once(b"\x41\x55"), Some(0));
        assert_eq!(at_once(b"\xf3\x0f\x1e\xfa\x53"), Some(4));
        assert_eq!(at_once(b"\x48\x83\xec\x08\x53"), None);
    }

    #[test]
    fn what_is_not_surely_so_is_not_taken() {
        // The arguments are gone: xor edi, edi; push rbx; ret
        assert_eq!(code(&[b"\x31\xff\x53\xc3"]), None);
        // No check before the return, or before one of two.
        assert_eq!(code(&[OPENS, BRANCHES, CLOSES]), None);
        assert_eq!(code(&[OPENS, BRANCHES, CHECKS, CLOSES, b"\xc3"]), None);
        // The result comes after the check: xor eax, eax
        assert_eq!(code(&[OPENS, BRANCHES, CHECKS, b"\x31\xc0", CLOSES]), None);
        // The stack is another: pop rbx
        assert_eq!(code(&[OPENS, BRANCHES, CHECKS, b"\x5b", CLOSES]), None);
        // A branch leads past the check: js +16
        assert_eq!(code(&[OPENS, b"\x85\xd2\x78\x10", CHECKS, CLOSES]), None);
        // Or out of the function, or to where a register says: jmp rax
        assert_eq!(code(&[OPENS, b"\x85\xd2\x78\x7f", CHECKS, CLOSES]), None);
        assert_eq!(code(&[OPENS, BRANCHES, CHECKS, CLOSES, b"\xff\xe0"]), None);
        // The begin comes twice, or what is no instruction is come to: jmp to the test, or into it
        assert_eq!(code(&[b"\x90\x48\x85\xff\x74\x00\xeb\xf9"]), None);
        assert_eq!(code(&[b"\x90\x48\x85\xff\x74\x00\xeb\xfa"]), None);
        // No instructions, or none that help.
        assert_eq!(code(&[]), None);
        assert_eq!(code(&[b"\xc3"]), None);
        assert_eq!(code(&[b"\x06\x53\xc3"]), None);
    }
}
