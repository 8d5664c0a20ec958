//! Go's crypto/tls in a program, with or without symbols: the runtime's own table of functions tells where they are.
//!
//! A Go function's return can't be watched by its return address, since goroutines' stacks move; so its return instructions
//! are. Its begin is watched at the branch that it takes where its stack is too small, after which it begins anew. Nothing is
//! taken for an instruction that isn't surely one: the function must begin as Go's compiler has functions begin that take
//! their arguments in registers (Go 1.17 and later), and consist of instructions from its begin to its end.

use std::{fs::File, os::unix::fs::FileExt as _};

use iced_x86::{Code as Instruction, Decoder, DecoderOptions, FlowControl, Mnemonic, Register};
use memchr::memmem;
use object::{Architecture, Endianness, Object as _, ObjectSection as _, ReadRef, read::elf::ElfFile64};

use super::{LONGEST_TABLE, Point, Role, cheap::is_emulated, code, offset};

/// The functions of `crypto/tls.(*Conn)`, what they do, and where their end is seen. A program may have one of the handshakes
/// alone.
const FUNCTIONS: [(&str, Role, End); 5] = [
    ("crypto/tls.(*Conn).Read", Role::GoReads, End::AtCall(COPIES, Role::GoGives, Role::GoDidRead)),
    ("crypto/tls.(*Conn).Write", Role::GoWrites, End::AfterCall(SENDS, Role::GoWrote, Role::GoDidWrite)),
    ("crypto/tls.(*Conn).Close", Role::GoFrees, End::Unseen),
    ("crypto/tls.(*Conn).serverHandshake", Role::GoShakesHands, End::AtReturn(Role::GoDidShakeHands)),
    ("crypto/tls.(*Conn).clientHandshake", Role::GoShakesHands, End::AtReturn(Role::GoDidShakeHands)),
];

/// What they call: nothing else is copied in `Read` but the clear text of a record, to who called it.
const CALLED: [&str; 2] = ["runtime.memmove", "crypto/tls.(*Conn).writeRecordLocked"];
/// The first of [`CALLED`].
const COPIES: usize = 0;
/// The second.
const SENDS: usize = 1;

/// Where a function's end is seen. The kernel has to step over a return, but not over a call of a certain function.
enum End {
    Unseen,
    AtReturn(Role),
    /// Where it calls one of [`CALLED`], in one place alone; else as the other role where it returns.
    AtCall(usize, Role, Role),
    /// After each place where it calls that; else the same.
    AfterCall(usize, Role, Role),
}

impl End {
    /// Where that is in a function that begins at a place in the table, and the functions called at these.
    fn places(&self, ways: &Ways, begin: u64, called: &[Option<(u64, u64)>]) -> Vec<(Role, u64)> {
        let calls = |which: usize| -> Vec<&Call> {
            let Some(Some((to, _))) = called.get(which) else { return Vec::new() };
            ways.calls.iter().filter(|call| begin.wrapping_add(call.to) == *to).collect()
        };
        let returns = |role: Role| ways.out.iter().map(|at| (role, *at)).collect();
        match *self {
            Self::Unseen => Vec::new(),
            Self::AtReturn(role) => returns(role),
            Self::AtCall(which, there, otherwise) => match calls(which)[..] {
                [call] => vec![(there, call.at)],
                _ => returns(otherwise),
            },
            Self::AfterCall(which, there, otherwise) => {
                let after: Option<Vec<_>> =
                    calls(which).iter().map(|call| Some((there, call.after?))).collect();
                after.filter(|places| !places.is_empty()).unwrap_or_else(|| returns(otherwise))
            }
        }
    }
}

/// `cmp rsp, [r14+16]`, or r12, which tells them in another byte before these.
const LOOKS_ON_X86: [u8; 3] = [0x3b, 0x66, 0x10];
/// `ldr x16, [x28, #16]`
const LOOKS_ON_ARM: [u8; 4] = 0xf940_0b90_u32.to_le_bytes();

/// How many instructions a function may have before it looks how much stack there is.
const FIRST: usize = 6;

/// Where the functions are; none where the program isn't Go's, has no crypto/tls, or not all of it is surely told.
pub(super) fn points<'data, R: ReadRef<'data>>(
    elf: &ElfFile64<'data, Endianness, R>,
    file: &File,
) -> Option<Vec<Point>> {
    let (ways, looks): (FindWays, &[u8]) = match elf.architecture() {
        Architecture::X86_64 => (Ways::of_x86, &LOOKS_ON_X86),
        Architecture::Aarch64 => (Ways::of_arm, &LOOKS_ON_ARM),
        _ => return None,
    };
    let table = table(elf)?;
    let names: Vec<&str> = FUNCTIONS.iter().map(|(name, ..)| *name).chain(CALLED).collect();
    let found = table.find(&names)?;
    let (found, called) = found.split_at(FUNCTIONS.len());
    if FUNCTIONS.iter().zip(found).any(|((_, role, _), at)| *role != Role::GoShakesHands && at.is_none()) {
        return None;
    }
    let place = |base: u64| {
        let mut points = Vec::new();
        for ((_, begins, ends), at) in FUNCTIONS.iter().zip(found) {
            let &Some((begin, end)) = at else { continue };
            let begin_offset = offset(elf, base.checked_add(begin)?)?;
            let ways = ways(&code(file, begin_offset, end.checked_sub(begin)?)?)?;
            points.push(Point { role: *begins, offset: begin_offset + ways.fits });
            let ends = ends.places(&ways, begin, called).into_iter();
            points.extend(ends.map(|(role, at)| Point { role, offset: begin_offset + at }));
        }
        Some(points)
    };
    // In programs that may lie anywhere the table's base is filled in later, and Go 1.26 has none.
    let text = elf.section_by_name(".text")?;
    let told = [table.text, text.address()].into_iter().find_map(place);
    told.or_else(|| {
        let &[Some((first, _)), ..] = found else { return None };
        let (offset, len) = text.file_range()?;
        let behind = Code { file, offset: offset.checked_add(first)?, len: len.checked_sub(first)?, looks };
        behind.begins().find_map(|distance| place(text.address() + distance))
    })
}

/// The runtime's table of functions: in a section of its own, or where a linker of C programs put it, among other data.
fn table<'data, R: ReadRef<'data>>(elf: &ElfFile64<'data, Endianness, R>) -> Option<Table<'data>> {
    /// What every version's begins with, but for the first byte.
    const BEGIN: &[u8] = &[0xff, 0xff, 0xff, 0, 0];
    const ALIGNMENT: usize = 8;
    let data = |names: [&str; 2]| {
        let section = names.into_iter().find_map(|name| elf.section_by_name(name))?;
        if section.size() <= LONGEST_TABLE { section.data().ok() } else { None }
    };
    if let Some(table) = data([".gopclntab", ".data.rel.ro.gopclntab"]) {
        return Table::read(table);
    }
    elf.section_by_name(".go.buildinfo")?;
    let others = data([".data.rel.ro", ".rodata"])?;
    let begins = memmem::find_iter(others, BEGIN).filter_map(|at| at.checked_sub(1));
    begins.filter(|at| at % ALIGNMENT == 0).find_map(|at| Table::read(&others[at..]))
}

/// A program's code from where the first of the functions would be, were all of it Go's. A linker of C programs puts other
/// code before that, and nothing tells how much.
struct Code<'a> {
    file: &'a File,
    offset: u64,
    len: u64,
    /// What looks how much stack there is.
    looks: &'a [u8],
}

impl Code<'_> {
    /// How functions are aligned, at least (Go's src/cmd/link/internal/*/l.go).
    const ALIGNMENT: usize = 16;
    /// How much is read at a time.
    const PIECE: usize = 64 << 10;

    /// Where functions may begin: some bytes before they look at their stack.
    fn begins(&self) -> impl Iterator<Item = u64> {
        (0..self.len).step_by(Self::PIECE).flat_map(|start| {
            // What looks may lie across the end of a piece.
            let len = (self.len - start).min((Self::PIECE + self.looks.len() - 1) as u64);
            let mut piece = vec![0; len as usize];
            if self.file.read_exact_at(&mut piece, self.offset + start).is_err() {
                piece.clear();
            }
            let looks: Vec<usize> = memmem::find_iter(&piece, self.looks).collect();
            looks.into_iter().flat_map(move |at| {
                let here = start + (at / Self::ALIGNMENT * Self::ALIGNMENT) as u64;
                here.checked_sub(Self::ALIGNMENT as u64).into_iter().chain([here])
            })
        })
    }
}

/// The runtime's table of functions, from Go 1.18 on (Go's src/runtime/symtab.go, `pcHeader`, `functab` and `_func`;
/// src/internal/abi/symtab.go).
struct Table<'data> {
    data: &'data [u8],
    /// How many functions there are.
    len: u64,
    /// The address that functions' are counted from.
    text: u64,
    /// Where the names are.
    names: u64,
    /// Where the functions are.
    functions: u64,
}

impl<'data> Table<'data> {
    const MAGIC_1_18: u64 = 0xffff_fff0;
    const MAGIC_1_20: u64 = 0xffff_fff1;

    fn read(data: &'data [u8]) -> Option<Self> {
        const WORD: u8 = 8;
        let magic = number::<4>(data, 0)?;
        if ![Self::MAGIC_1_18, Self::MAGIC_1_20].contains(&magic) || *data.get(7)? != WORD {
            return None;
        }
        let word = |index: u64| number::<8>(data, 8 + index * u64::from(WORD));
        Some(Self { data, len: word(0)?, text: word(2)?, names: word(3)?, functions: word(7)? })
    }

    /// Where functions of these names begin and end, counted from [`Self::text`]; none where the table isn't one.
    fn find(&self, names: &[&str]) -> Option<Vec<Option<(u64, u64)>>> {
        let mut found = vec![None; names.len()];
        for index in 0..self.len {
            let entry = self.functions.checked_add(index.checked_mul(8)?)?;
            let function = self.functions.checked_add(number::<4>(self.data, entry.checked_add(4)?)?)?;
            let name = self.names.checked_add(number::<4>(self.data, function.checked_add(4)?)?)?;
            let text = self.data.get(usize::try_from(name).ok()?..)?;
            let which = names.iter().position(|name| {
                text.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&0))
            });
            if let Some(which) = which {
                let begin = number::<4>(self.data, entry)?;
                let end = number::<4>(self.data, entry.checked_add(8)?)?;
                found[which] = Some((begin, end));
                if found.iter().all(Option::is_some) {
                    break;
                }
            }
        }
        Some(found)
    }
}

/// A number of so many bytes.
fn number<const N: usize>(data: &[u8], at: u64) -> Option<u64> {
    let at = usize::try_from(at).ok()?;
    let bytes = data.get(at..at.checked_add(N)?)?;
    Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

/// Finds them in a function's code; none where it isn't surely one of Go's.
type FindWays = fn(&[u8]) -> Option<Ways>;

/// The ways into a function and out of it.
#[derive(Debug, PartialEq, Eq)]
struct Ways {
    /// Where it goes on if its stack is large enough: a branch, which the kernel needs not step over.
    fits: u64,
    /// Its return instructions.
    out: Vec<u64>,
    /// Its calls of certain functions.
    calls: Vec<Call>,
}

#[derive(Debug, PartialEq, Eq)]
struct Call {
    at: u64,
    /// What is called, from the calling function's begin on.
    to: u64,
    /// The first instruction to follow in any case that the kernel needs not step over.
    after: Option<u64>,
}

impl Ways {
    /// On x86-64, which has the goroutine in R14, and at 16 there the end of its stack.
    fn of_x86(code: &[u8]) -> Option<Self> {
        let mut ways = Self { fits: 0, out: Vec::new(), calls: Vec::new() };
        let (mut fits, mut looked, mut called) = (None, false, false);
        for (index, instruction) in Decoder::new(64, code, DecoderOptions::NONE).iter().enumerate() {
            if instruction.is_invalid() {
                return None;
            }
            let at = instruction.ip();
            if looked && instruction.mnemonic() == Mnemonic::Jbe {
                fits = fits.or(Some(at));
            }
            looked = index < FIRST
                && instruction.mnemonic() == Mnemonic::Cmp
                && instruction.memory_base() == Register::R14
                && instruction.memory_displacement64() == 16;
            if called && is_emulated(&instruction) {
                ways.calls.last_mut()?.after = Some(at);
                called = false;
            }
            called &= instruction.flow_control() == FlowControl::Next;
            if instruction.is_call_near() {
                ways.calls.push(Call { at, to: instruction.near_branch_target(), after: None });
                called = true;
            }
            if instruction.code() == Instruction::Retnq {
                ways.out.push(at);
            }
        }
        ways.fits = fits?;
        (!ways.out.is_empty()).then_some(ways)
    }

    /// On aarch64, which has the goroutine in R28.
    fn of_arm(code: &[u8]) -> Option<Self> {
        const LOOKS_AT_STACK: u32 = u32::from_le_bytes(LOOKS_ON_ARM);
        /// `b.ls`, whichever way
        const BRANCHES: u32 = 0x5400_0009;
        const BRANCHES_MASK: u32 = 0xff00_001f;
        /// `ret`, which the kernel needs not step over here (arch/arm64/kernel/probes/simulate-insn.c).
        const RETURNS: u32 = 0xd65f_03c0;
        /// `bl`, wherever to
        const CALLS: u32 = 0x9400_0000;
        const CALLS_MASK: u32 = 0xfc00_0000;
        let (words, _) = code.as_chunks::<4>();
        let instructions = || (0..).step_by(4).zip(words.iter().map(|word| u32::from_le_bytes(*word)));
        let mut first = instructions().take(FIRST).skip_while(|(_, code)| *code != LOOKS_AT_STACK);
        let (fits, _) = first.find(|(_, code)| code & BRANCHES_MASK == BRANCHES)?;
        let out: Vec<u64> = instructions().filter(|(_, code)| *code == RETURNS).map(|(at, _)| at).collect();
        let calls = instructions().filter(|(_, code)| code & CALLS_MASK == CALLS).map(|(at, code)| {
            // The distance is in words, and signed.
            let distance = i64::from((code << 6).cast_signed() >> 6) * 4;
            Call { at, to: at.wrapping_add_signed(distance), after: None }
        });
        (!out.is_empty()).then_some(Self { fits, out, calls: calls.collect() })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn returns_are_told_from_bytes_within_instructions() {
        // cmp rsp, [r14+16]; jbe; mov eax, 0xc3c3c3c3; ret; int3; mov al, 0xc3; ret
        let code = b"\x49\x3b\x66\x10\x76\x0a\xb8\xc3\xc3\xc3\xc3\xc3\xcc\xb0\xc3\xc3";
        assert_eq!(Ways::of_x86(code), Some(Ways { fits: 4, out: vec![11, 15], calls: Vec::new() }));
        // Without the look at the stack, and with what is no instruction.
        assert_eq!(Ways::of_x86(&code[6..]), None);
        assert_eq!(Ways::of_x86(&[&code[..], b"\x06"].concat()), None);
        // ldr x16, [x28, #16]; cmp sp, x16; b.ls; ret; mov x0, #0; ret
        let words = [0xf940_0b90, 0xeb30_63ff, 0x5400_0089, 0xd65f_03c0, 0xd280_0000, 0xd65f_03c0_u32];
        let code: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        assert_eq!(Ways::of_arm(&code), Some(Ways { fits: 8, out: vec![12, 20], calls: Vec::new() }));
        assert_eq!(Ways::of_arm(&code[4..]), None);
    }

    /// Where the kernel needs not step over what follows, if that comes in any case.
    #[test]
    fn calls_have_their_targets_and_what_follows() {
        // cmp rsp, [r14+16]; jbe
        const BEGINS: &[u8] = b"\x49\x3b\x66\x10\x76\x00";
        let calls =
            |parts: &[&[u8]]| Ways::of_x86(&[BEGINS, &parts.concat(), b"\xc3"].concat()).unwrap().calls;
        // call -11; test rbx, rbx; je
        let called = calls(&[b"\xe8\xf0\xff\xff\xff\x48\x85\xdb\x74\x00"]);
        assert_eq!(called, [Call { at: 6, to: (-5_i64).cast_unsigned(), after: Some(14) }]);
        // Left before: call; ret. Not of a certain function: call rax.
        assert_eq!(calls(&[b"\xe8\x10\0\0\0\xc3\x74\x00"]), [Call { at: 6, to: 27, after: None }]);
        assert_eq!(calls(&[b"\xff\xd0\x74\x00"]), []);
        // ldr x16, [x28, #16]; b.ls; bl -8; ret
        let words = [0xf940_0b90, 0x5400_0089, 0x97ff_fffe, 0xd65f_03c0_u32];
        let code: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        assert_eq!(Ways::of_arm(&code).unwrap().calls, [Call { at: 8, to: 0, after: None }]);
    }

    /// One call of what copies is where clear text is given; with several, or none, only returns tell.
    #[test]
    fn ends_are_where_the_kernel_needs_not_step_if_that_is_certain() {
        const BEGIN: u64 = 0x1000;
        let call = |at, after| Call { at, to: 0x500_u64.wrapping_sub(BEGIN), after };
        let other = || Call { at: 7, to: 7, after: Some(8) };
        let places = |end: &End, calls| {
            let ways = Ways { fits: 0, out: vec![90, 99], calls };
            end.places(&ways, BEGIN, &[Some((0x500, 0x600)), None])
        };
        let at = End::AtCall(0, Role::GoGives, Role::GoDidRead);
        let returns = [(Role::GoDidRead, 90), (Role::GoDidRead, 99)];
        assert_eq!(places(&at, vec![other(), call(20, None)]), [(Role::GoGives, 20)]);
        assert_eq!(places(&at, vec![other()]), returns);
        assert_eq!(places(&at, vec![call(20, None), call(30, None)]), returns);
        let unknown = End::AtCall(1, Role::GoGives, Role::GoDidRead);
        assert_eq!(places(&unknown, vec![other()]), returns);
        let after = End::AfterCall(0, Role::GoWrote, Role::GoDidWrite);
        let wrote = [(Role::GoWrote, 25), (Role::GoWrote, 36)];
        let returns = [(Role::GoDidWrite, 90), (Role::GoDidWrite, 99)];
        assert_eq!(places(&after, vec![call(20, Some(25)), other(), call(30, Some(36))]), wrote);
        assert_eq!(places(&after, vec![call(20, Some(25)), call(30, None)]), returns);
        assert_eq!(places(&after, vec![other()]), returns);
    }

    #[test]
    fn functions_may_begin_wherever_a_stack_is_looked_at() {
        const FIRST: usize = 48;
        // After a move of six bytes; and from one piece to the next.
        const LOOKS: [usize; 3] = [FIRST + 7, FIRST + Code::PIECE - 1, FIRST + Code::PIECE + 65];
        let mut bytes = vec![0; LOOKS[2] + LOOKS_ON_X86.len()];
        for at in LOOKS {
            bytes[at..at + LOOKS_ON_X86.len()].copy_from_slice(&LOOKS_ON_X86);
        }
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        let len = (bytes.len() - FIRST) as u64;
        let code = Code { file: &file, offset: FIRST as u64, len, looks: &LOOKS_ON_X86 };
        let piece = Code::PIECE as u64;
        assert_eq!(code.begins().collect::<Vec<_>>(), [0, piece - 32, piece - 16, piece + 48, piece + 64]);
    }

    #[test]
    fn tables_that_are_cut_off_or_lie_have_nothing() {
        let mut data = vec![0xf1, 0xff, 0xff, 0xff, 0, 0, 1, 8];
        for word in [1_u64 << 60, 0, 0, u64::MAX - 1, 0, 0, 0, u64::MAX - 1] {
            data.extend(word.to_le_bytes());
        }
        for len in 0..data.len() {
            assert!(Table::read(&data[..len]).is_none());
        }
        assert!(Table::read(&data).unwrap().find(&["a"]).is_none());
    }
}
