//! Which functions of a program or library give and take the clear text of TLS, and where in its file they are.

mod cheap;
mod go;
mod rust;

use std::{cmp::Reverse, fs::File, io, os::unix::fs::FileExt as _};

use object::{
    Architecture, Endianness, Object as _, ObjectSection as _, ObjectSegment as _, ObjectSymbol, ReadCache,
    read::elf::ElfFile64,
};

use cheap::Places;

/// What a function does at which a probe stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// It has returned how many bytes it moved.
    TellsCount,
    /// It has returned whether it succeeded.
    TellsSuccess,
    /// [`Self::RustDecrypts`] has returned.
    RustDecrypted,
    /// It is about to return how many bytes it moved.
    WillTellCount,
    /// [`Self::GoReads`] is about to return.
    GoDidRead,
    /// [`Self::GoReads`] copies clear text to where it was told to.
    GoGives,
    /// [`Self::GoWrites`] is about to return.
    GoDidWrite,
    /// [`Self::GoWrites`] has written what it was given.
    GoWrote,
    /// [`Self::GoShakesHands`] is about to return.
    GoDidShakeHands,
    /// It gives clear text.
    Reads,
    /// It takes clear text.
    Writes,
    /// It takes clear text from a file.
    WritesFile,
    /// It begins a session.
    ShakesHands,
    /// It ends a session.
    Frees,
    /// One of Go's: it gives clear text.
    GoReads,
    /// One of Go's: it takes clear text.
    GoWrites,
    /// One of Go's: it begins a session.
    GoShakesHands,
    /// One of Go's: it ends a session.
    GoFrees,
    /// One of rustls': it deciphers a record.
    RustDecrypts,
    /// One of rustls': it enciphers a message.
    RustEncrypts,
    /// It tells that something was mapped.
    Mapped,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 21] = [
        Self::TellsCount,
        Self::TellsSuccess,
        Self::RustDecrypted,
        Self::WillTellCount,
        Self::GoDidRead,
        Self::GoGives,
        Self::GoDidWrite,
        Self::GoWrote,
        Self::GoDidShakeHands,
        Self::Reads,
        Self::Writes,
        Self::WritesFile,
        Self::ShakesHands,
        Self::Frees,
        Self::GoReads,
        Self::GoWrites,
        Self::GoShakesHands,
        Self::GoFrees,
        Self::RustDecrypts,
        Self::RustEncrypts,
        Self::Mapped,
    ];

    /// Whether the function gives what was enciphered.
    #[must_use]
    pub fn gives_clear_text(self) -> bool {
        matches!(self, Self::Reads | Self::GoReads | Self::RustDecrypts)
    }

    /// Whether the probe is the kernel's kind for when the function has returned.
    #[must_use]
    pub fn is_on_return(self) -> bool {
        matches!(self, Self::TellsCount | Self::TellsSuccess | Self::RustDecrypted)
    }
}

/// A probe at a place in a file. Those for returns are the least: a function must not be seen to begin whose end isn't.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Point {
    /// What it is for.
    pub role: Role,
    /// Where in the file: where the function begins or is about to return, or near that.
    pub offset: u64,
}

/// A table of names that is longer isn't read: no library has one.
const LONGEST_TABLE: u64 = 64 << 20;

/// A function that is longer is none of those that matter.
const LONGEST_FUNCTION: u64 = 1 << 16;

/// The functions: what they do, and how they tell what came of it. OpenSSL 1.1 and 3 and `BoringSSL`
/// (<https://docs.openssl.org/master/man3/>), `GnuTLS` (<https://gnutls.org/reference/gnutls-gnutls.html>), Mbed TLS
/// (include/mbedtls/ssl.h), `wolfSSL` (wolfssl/ssl.h), and the loader's notice to debuggers (glibc's elf/dl-debug.c, musl's
/// ldso/dynlink.c).
const FUNCTIONS: [(&str, Role, Option<Role>); 26] = [
    ("SSL_read", Role::Reads, Some(Role::TellsCount)),
    ("SSL_read_ex", Role::Reads, Some(Role::TellsSuccess)),
    ("SSL_write", Role::Writes, Some(Role::TellsCount)),
    ("SSL_write_ex", Role::Writes, Some(Role::TellsSuccess)),
    ("SSL_sendfile", Role::WritesFile, Some(Role::TellsCount)),
    ("SSL_do_handshake", Role::ShakesHands, Some(Role::TellsCount)),
    ("SSL_accept", Role::ShakesHands, Some(Role::TellsCount)),
    ("SSL_connect", Role::ShakesHands, Some(Role::TellsCount)),
    ("SSL_free", Role::Frees, None),
    ("gnutls_record_recv", Role::Reads, Some(Role::TellsCount)),
    ("gnutls_record_send", Role::Writes, Some(Role::TellsCount)),
    ("gnutls_record_send2", Role::Writes, Some(Role::TellsCount)),
    ("gnutls_handshake", Role::ShakesHands, Some(Role::TellsCount)),
    ("gnutls_deinit", Role::Frees, None),
    ("mbedtls_ssl_read", Role::Reads, Some(Role::TellsCount)),
    ("mbedtls_ssl_write", Role::Writes, Some(Role::TellsCount)),
    ("mbedtls_ssl_handshake", Role::ShakesHands, Some(Role::TellsCount)),
    ("mbedtls_ssl_free", Role::Frees, None),
    ("wolfSSL_read", Role::Reads, Some(Role::TellsCount)),
    ("wolfSSL_recv", Role::Reads, Some(Role::TellsCount)),
    ("wolfSSL_write", Role::Writes, Some(Role::TellsCount)),
    ("wolfSSL_send", Role::Writes, Some(Role::TellsCount)),
    ("wolfSSL_accept", Role::ShakesHands, Some(Role::TellsCount)),
    ("wolfSSL_connect", Role::ShakesHands, Some(Role::TellsCount)),
    ("wolfSSL_free", Role::Frees, None),
    ("_dl_debug_state", Role::Mapped, None),
];

/// Finds them in a file, in order; none in one that isn't a 64-bit program or library of this machine's byte order.
pub fn points(file: &File) -> io::Result<Vec<Point>> {
    let cache = ReadCache::new(file.try_clone()?);
    let Ok(elf) = ElfFile64::<Endianness, _>::parse(&cache) else { return Ok(Vec::new()) };
    if elf.sections().any(|section| {
        matches!(section.name(), Ok(".dynsym" | ".dynstr" | ".symtab" | ".strtab"))
            && section.size() > LONGEST_TABLE
    }) {
        return Ok(Vec::new());
    }
    let mut points = Vec::new();
    // A library's functions that a program is linked with are not for others, and in the longer table alone, as Rust's are.
    let mut named: Vec<_> = elf
        .dynamic_symbols()
        .chain(elf.symbols())
        .filter(ObjectSymbol::is_definition)
        .filter_map(|symbol| {
            let (begins, ends) = roles(symbol.name().ok()?)?;
            Some((offset(&elf, symbol.address())?, symbol.size(), begins, ends))
        })
        .collect();
    // It may have several names, or versions of one, for the same function, not all of which say how long that is.
    named.sort_unstable_by_key(|&(offset, len, begins, _)| (offset, begins, Reverse(len)));
    named.dedup_by_key(|&mut (offset, _, begins, _)| (offset, begins));
    let of_x86 = elf.architecture() == Architecture::X86_64;
    let found: Vec<Function> = named
        .into_iter()
        .map(|(offset, len, begins, ends)| {
            let code = if of_x86 { code(file, offset, len) } else { None };
            let places = code.as_deref().and_then(cheap::places);
            Function { begins, ends, offset, code, places }
        })
        .collect();
    let instead: Vec<_> = found.iter().filter_map(|function| function.instead(file)).collect();
    for function in &found {
        if !instead.iter().any(|(to, [_, begin])| function.begins == begin.role && function.calls(*to)) {
            points.extend(function.points());
        }
    }
    points.extend(instead.into_iter().flat_map(|(_, points)| points));
    points.extend(go::points(&elf, file).unwrap_or_default());
    points.sort_unstable();
    points.dedup();
    Ok(points)
}

/// What the function of this name does, and how it tells what came of it.
fn roles(name: &str) -> Option<(Role, Option<Role>)> {
    let known = FUNCTIONS.iter().find(|(function, ..)| *function == name);
    known.map(|(_, begins, ends)| (*begins, *ends)).or_else(|| rust::roles(name))
}

/// A function at which probes will stand.
struct Function {
    begins: Role,
    ends: Option<Role>,
    offset: u64,
    /// Its code, where that can be read as instructions.
    code: Option<Vec<u8>>,
    /// Where in it probes cost least, where that can be told.
    places: Option<Places>,
}

impl Function {
    fn points(&self) -> Vec<Point> {
        let (begin, about): (_, &[u64]) = match (&self.places, self.ends) {
            (Some(Places::Within(begin, about)), Some(Role::TellsCount)) => (*begin, about),
            (Some(Places::At(begin)), _) => (*begin, &[]),
            _ => (0, &[]),
        };
        let at = |role| move |at: u64| Point { role, offset: self.offset + at };
        let mut points: Vec<Point> = about.iter().copied().map(at(Role::WillTellCount)).collect();
        if points.is_empty() {
            points.extend(self.ends.map(|role| at(role)(begin)));
        }
        points.push(at(self.begins)(begin));
        points
    }

    /// The function that it hands its arguments on to, and the probes there: it is watched instead of all that call it, where
    /// that costs less. It tells whether it succeeded, and how much it moved where it is told to.
    fn instead(&self, file: &File) -> Option<(u64, [Point; 2])> {
        /// Enough for an instruction after what marks a branch's target.
        const FIRST: u64 = 4 + 15;
        let ends = self.ends.filter(|ends| *ends == Role::TellsSuccess)?;
        let Some(Places::Elsewhere(far)) = self.places else { return None };
        let to = self.offset.wrapping_add(far);
        let at = to + cheap::at_once(&code(file, to, FIRST)?)?;
        Some((to, [ends, self.begins].map(|role| Point { role, offset: at })))
    }

    /// Whether it calls the function there.
    fn calls(&self, to: u64) -> bool {
        self.code.as_deref().is_some_and(|code| cheap::calls(code, to.wrapping_sub(self.offset)))
    }
}

/// A function's code; none of one that is longer than any of those is.
fn code(file: &File, offset: u64, len: u64) -> Option<Vec<u8>> {
    let mut code = vec![0; usize::try_from(len).ok().filter(|_| len <= LONGEST_FUNCTION)?];
    file.read_exact_at(&mut code, offset).ok()?;
    Some(code)
}

/// Where a program begins.
#[must_use]
pub fn begin(file: &File) -> Option<Point> {
    let cache = ReadCache::new(file.try_clone().ok()?);
    let elf = ElfFile64::<Endianness, _>::parse(&cache).ok()?;
    Some(Point { role: Role::Mapped, offset: offset(&elf, elf.entry())? })
}

/// Where in the file what lies at an address comes from.
fn offset<'data, R: object::ReadRef<'data>>(
    elf: &ElfFile64<'data, Endianness, R>,
    address: u64,
) -> Option<u64> {
    elf.segments().find_map(|segment| {
        let (begin, len) = segment.file_range();
        let within = address.checked_sub(segment.address())?;
        (within < len).then_some(begin + within)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file that this test's own process has mapped.
    fn mapped(name: &str) -> File {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let path =
            maps.lines().filter_map(|line| line.split_whitespace().nth(5)).find(|path| path.contains(name));
        File::open(path.unwrap()).unwrap()
    }

    #[test]
    fn the_loader_has_its_notice_and_nothing_else() {
        let points = points(&mapped("/ld-")).unwrap();
        assert_eq!(points.iter().map(|point| point.role).collect::<Vec<_>>(), [Role::Mapped]);
    }

    #[test]
    fn a_library_without_tls_has_nothing() {
        assert_eq!(points(&mapped("/libc.so")).unwrap(), []);
    }

    #[test]
    fn what_is_no_program_has_nothing() {
        let mut file = tempfile::tempfile().unwrap();
        assert_eq!(points(&file).unwrap(), []);
        io::Write::write_all(&mut file, b"\x7fELF\x02\x01\x01 and then nothing of the kind").unwrap();
        assert_eq!(points(&file).unwrap(), []);
    }

    #[test]
    fn a_program_begins_where_its_header_says() {
        let begin = begin(&File::open("/proc/self/exe").unwrap()).unwrap();
        assert!(begin.offset > 0);
    }

    #[test]
    fn ends_are_watched_before_beginnings() {
        let roles = Role::ALL;
        assert!(roles.is_sorted());
        let begins = |role: &Role| {
            let tells = matches!(
                role,
                Role::WillTellCount
                    | Role::GoDidRead
                    | Role::GoGives
                    | Role::GoDidWrite
                    | Role::GoWrote
                    | Role::GoDidShakeHands
            );
            !tells && !role.is_on_return()
        };
        assert!(roles.is_sorted_by_key(begins));
    }
}
