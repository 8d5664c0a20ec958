//! rustls. It moves no bytes itself: the program receives records, has them deciphered in place, and sends what was
//! enciphered. What is deciphered is of the connection that the thread received from last. What is enciphered is of the
//! connection on which the thread sends next as much as that makes; from then on it is known whose cipher it is, until
//! another one begins, which shows by its first record.
//!
//! Where structures have what, Rust doesn't promise: each is looked at for what must be there (rustls 0.23,
//! src/msgs/message/inbound.rs and outbound.rs).

use aya_ebpf::{
    EbpfContext as _,
    macros::{uprobe, uretprobe},
    programs::{ProbeContext, RetProbeContext},
};
use monitor_ebpf::{
    config::Waiting,
    record::{FLAG_OWED, FLAG_PLAIN, KIND_RECEIVED, enciphered},
};

use crate::{
    clear,
    kernel::{current_thread, now, process_of},
    maps::SESSIONS,
    tls::{self, keep_to_the_tasks_stack, register},
    user::{abi, words},
};

// fn decrypt(&mut self, message: InboundOpaqueMessage, number: u64) -> Result<InboundPlainMessage, Error>
#[uprobe]
pub fn httpmon_rust_decrypt(context: ProbeContext) -> u32 {
    keep_to_the_tasks_stack();
    decrypts(&context);
    0
}

#[uretprobe]
pub fn httpmon_rust_decrypted(context: RetProbeContext) -> u32 {
    keep_to_the_tasks_stack();
    decrypted(&context, false);
    0
}

// fn encrypt(&mut self, message: OutboundPlainMessage, number: u64) -> Result<OutboundOpaqueMessage, Error>
#[uprobe]
pub fn httpmon_rust_encrypt(context: ProbeContext) -> u32 {
    keep_to_the_tasks_stack();
    encrypts(&context, false);
    0
}

/// `ContentType::ApplicationData`, among the constants of that type.
const APPLICATION_DATA: u64 = 3;
/// How many constants it has.
const TYPES: u64 = 6;
/// `ProtocolVersion::TLSv1_2`, among the constants of that type; the next one is TLS 1.3.
const TLS_1_2: u64 = 4;
/// The most clear text that a record has (RFC 8446 section 5.1).
const LONGEST: u64 = 1 << 14;
/// How much longer records are than their clear text: in TLS 1.3, in TLS 1.2 with ChaCha20-Poly1305, and with AES-GCM
/// (RFC 8446 section 5.2; RFC 7905 section 2; RFC 5288 section 3).
const LONGER: [u32; 3] = [22, 21, 29];

/// How long a nonce is that a record of TLS 1.2 with AES-GCM begins with (RFC 5288 section 3): clear text is put over it, or
/// not.
const NONCE: u64 = 8;

/// What a structure says of a message: its type is application data; or not, or it is none.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Application,
    Other,
    None,
}

/// Of the word that has a message's type in the lowest byte, and from the third on its version.
#[inline(always)]
fn kind(word: u64) -> Kind {
    let (message, version) = (word & 0xff, word >> 16 & 0xffff);
    if message >= TYPES || version & !1 != TLS_1_2 {
        Kind::None
    } else if message == APPLICATION_DATA {
        Kind::Application
    } else {
        Kind::Other
    }
}

/// A record will be deciphered, in place.
#[inline(always)]
pub(crate) fn decrypts(context: &ProbeContext) {
    const HEADER: u64 = 5;
    /// A record's type, and its version's upper byte.
    const APPLICATION_DATA_HEADER: u64 = 0x0317;
    let key = current_thread();
    if tls::service(process_of(key)).is_none() {
        return;
    }
    let registers = context.as_ptr();
    let [address, len] = words(register(registers, abi!(rust_parameters[2])));
    // What lies before is the record's header.
    let [header] = words(address.wrapping_sub(HEADER));
    if header & 0xffff != APPLICATION_DATA_HEADER || (header >> 24 & 0xff) << 8 | header >> 32 & 0xff != len {
        return;
    }
    let Some(thread) = tls::thread_or_new(key) else { return };
    thread.session = register(registers, abi!(rust_parameters[1]));
    thread.buffer = address;
    thread.count = register(registers, abi!(rust_parameters[0]));
    thread.stack = register(registers, abi!(stack));
    thread.inside = 0;
    thread.inside_read = 0;
    thread.direction = KIND_RECEIVED.into();
    thread.flags = 0;
}

/// It was.
#[inline(always)]
pub(crate) fn decrypted(context: &RetProbeContext, loops: bool) {
    let key = current_thread();
    let Some(thread) = tls::thread(key) else { return };
    if !tls::is_over(thread, context.as_ptr()) {
        return;
    }
    thread.session = 0;
    let [_, address, len, kinds] = words(thread.count);
    let within = address.wrapping_sub(thread.buffer);
    if (within != 0 && within != NONCE) || kind(kinds) != Kind::Application || len > LONGEST {
        return;
    }
    thread.buffer = address;
    if let Some(cipher) = tls::cipher(thread.received_on) {
        tls::tell(process_of(key), cipher, thread, len as i64, loops);
    }
}

/// A message will be enciphered.
#[inline(always)]
pub(crate) fn encrypts(context: &ProbeContext, loops: bool) {
    let key = current_thread();
    let pid = process_of(key);
    let Some(service) = tls::service(pid) else { return };
    let registers = context.as_ptr();
    let [list, second, third, end, kinds] = words(register(registers, abi!(rust_parameters[2])));
    let kind = kind(kinds);
    let len = if list == 0 { third } else { end.wrapping_sub(third) };
    if kind == Kind::None || len > LONGEST {
        return;
    }
    let Some(thread) = tls::thread_or_new(key) else { return };
    let session = tls::session(pid, register(registers, abi!(rust_parameters[1])));
    // The first record of a cipher: what was at its address is gone.
    if register(registers, abi!(rust_parameters[3])) == 0 {
        tls::freed(session.address);
    }
    if let Some(cipher) = tls::tied(&session) {
        thread.waiting.session = 0;
        if kind == Kind::Application && len > 0 {
            cipher.plain.used_by(pid, service);
            cipher.owed += enciphered(len);
            let id = cipher.plain.id;
            if list == 0 {
                let flags = FLAG_PLAIN | FLAG_OWED;
                clear::httpmon_piece(id, second, len | len << 32, now(), flags.into());
            } else if loops {
                clear::httpmon_many_slices(id, list, second, third, len);
            } else {
                clear::httpmon_slices(id, list, second, third, len);
            }
        }
        return;
    }
    if thread.waiting.session != session.address {
        thread.waiting = Waiting { session: session.address, ..Waiting::default() };
    }
    let waiting = &mut thread.waiting;
    waiting.records += 1;
    waiting.moved += len as u32;
    if kind == Kind::Application {
        let [address, first] = if list == 0 { [second, len] } else { words(list) };
        if waiting.len == 0 {
            waiting.address = address;
            [waiting.first] = words(address);
            waiting.known = if first < len { first } else { len } as u32;
        } else if list == 0 && waiting.address + u64::from(waiting.known) == address {
            waiting.known += len as u32;
        }
        waiting.len += len as u32;
    }
}

/// The thread sent so many bytes: if they are what it had enciphered, it is known whose cipher that is, and its clear text,
/// which is where it was, is told: 1. A handshake's messages may have others with them. Not static, so that the verifier looks
/// at it once.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn httpmon_settle(id: u64, sent: u64) -> u64 {
    let key = current_thread();
    let (Some(thread), Some(cipher)) = (tls::thread(key), tls::cipher(id)) else { return 0 };
    let (waiting, sent) = (thread.waiting, sent as u32);
    thread.waiting.session = 0;
    let longer = sent.wrapping_sub(waiting.moved);
    let exactly = LONGER.iter().any(|by| longer == by * waiting.records);
    let at_least = waiting.len == 0
        && cipher.session == 0
        && sent > waiting.moved
        && longer >= LONGER[1] * waiting.records;
    if !exactly && !at_least {
        return 0;
    }
    let pid = process_of(key);
    let Some(service) = tls::service(pid) else { return 0 };
    cipher.plain.used_by(pid, service);
    if cipher.session != 0 && cipher.session != waiting.session {
        let _ = SESSIONS.remove(tls::session(pid, cipher.session));
    }
    tls::tie(&tls::session(pid, waiting.session), cipher);
    if waiting.len > 0 {
        // What waited to be sent until the handshake was over may be gone.
        let known = if words(waiting.address) == [waiting.first] { waiting.known.into() } else { 0 };
        let lengths = known | u64::from(waiting.len) << 32;
        clear::httpmon_piece(id, waiting.address, lengths, cipher.sent, FLAG_PLAIN.into());
    }
    1
}
