//! The tables that the kernel side keeps, and the settings that it is loaded with.

use core::{arch::asm, cell::UnsafeCell, ffi::c_void};

use aya_ebpf::{
    Global,
    bindings::{BPF_F_CLONE, BPF_F_MMAPABLE, BPF_F_NO_PREALLOC, bpf_map_type::BPF_MAP_TYPE_SK_STORAGE},
    btf_maps::{Array, HashMap, LruHashMap, PerCpuArray},
    macros::{btf_map, map},
    maps::RingBuf,
};
use monitor_ebpf::{
    config::{Abi, Choices, Cipher, Connection, Limits, Offsets, Port, Selected, Session, Thread, loss},
    record::{Data, TAIL},
};

use crate::user;

/// Where the running kernel keeps what.
#[unsafe(no_mangle)]
pub(crate) static OFFSETS: Global<Offsets> = Global::new(unsafe { core::mem::zeroed() });

/// This architecture's system calls.
#[unsafe(no_mangle)]
pub(crate) static ABI: Global<Abi> = Global::new(unsafe { core::mem::zeroed() });

/// What is wanted.
#[unsafe(no_mangle)]
pub(crate) static CHOICES: Global<Choices> = Global::new(unsafe { core::mem::zeroed() });

/// Reads one field of a setting. Of those that the loader froze the verifier sees a constant.
macro_rules! setting {
    ($global:ident: $type:ty, $($field:tt)+) => {{
        let global = (&raw const crate::maps::$global).cast::<$type>();
        #[allow(unused_unsafe, reason = "also used within unsafe blocks")]
        // SAFETY: a `Global` and a `Shared` are transparent over their values, which the loader has set.
        let value = unsafe { core::ptr::read_volatile(&raw const (*global).$($field)+) };
        value
    }};
}
pub(crate) use setting;

/// Reads one field of [`OFFSETS`].
macro_rules! offset {
    ($field:ident) => {
        crate::maps::setting!(OFFSETS: monitor_ebpf::config::Offsets, $field)
    };
}
pub(crate) use offset;

/// To the agent.
#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(4 << 20, 0);

/// The selected processes, by thread group.
#[btf_map]
pub(crate) static PROCESSES: HashMap<u32, Selected, 65536, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

/// What programs on all CPUs and the agent read and write, each word of it whole. Found without a look into a table: the
/// loader writes its address into the programs.
#[repr(transparent)]
pub(crate) struct Shared<T>(UnsafeCell<T>);

// SAFETY: nothing refers to what is within; it is read and written through pointers.
unsafe impl<T> Sync for Shared<T> {}

impl<T> Shared<T> {
    pub(crate) const fn get(&self) -> *mut T {
        self.0.get()
    }
}

/// How many processes are remembered in [`UNSELECTED`].
pub(crate) const PLACES: usize = 4096;

/// Processes that were found not to be selected, each with the [`Limits::epoch`] at which that was looked up in its
/// upper half; in the place that the process's lowest bits say.
#[unsafe(no_mangle)]
pub(crate) static UNSELECTED: Shared<[u64; PLACES]> = Shared(UnsafeCell::new([0; PLACES]));

/// How much to copy: all of the section, which the agent writes whole.
#[unsafe(no_mangle)]
pub(crate) static LIMITS: Shared<Limits> = Shared(UnsafeCell::new(Limits::FIRST));

/// A record of bytes while it is put together, so that the ring buffer's is as long as what it holds.
#[repr(C)]
pub(crate) struct Scratch {
    pub(crate) data: Data,
    pub(crate) bytes: [u8; Limits::MOST as usize + user::PIECE as usize + TAIL],
}

/// One for what is received and one for what is sent: the kernel lets no program run on a CPU where the same one is
/// under way.
#[btf_map]
pub(crate) static SCRATCH: PerCpuArray<Scratch, 2> = PerCpuArray::new();

/// What never reached the agent, by [`loss`]. The agent has it mapped.
#[btf_map]
pub(crate) static LOSSES: Array<u64, { loss::COUNT as usize }, { BPF_F_MMAPABLE as usize }> = Array::new();

/// The addresses that selected processes' unix sockets are bound to (`unix_sock.addr`, shared by a listener and
/// what it accepted), so that bytes which arrive before `accept` are timed.
#[btf_map]
pub(crate) static UNIX_ADDRESSES: LruHashMap<u64, u8, 1024> = LruHashMap::new();

/// The ports that selected processes listen on, and who: for hooks where a connection isn't begun as a copy of the
/// listening socket's state.
#[btf_map]
pub(crate) static PORTS: LruHashMap<Port, Connection, 4096> = LruHashMap::new();

/// Sockets by their address in the kernel, for hooks where it is only a number. The least recently used give way:
/// a unix socket's end fires no hook.
#[btf_map]
pub(crate) static SOCKETS: LruHashMap<u64, Connection, 131_072> = LruHashMap::new();

/// Connections that carry TLS, by [`Connection::id`]. They are taken out when the connection ends.
#[btf_map]
pub(crate) static CIPHERS: HashMap<u64, Cipher, 131_072, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

/// Which of them a TLS library's session is of. They are taken out when either ends.
#[btf_map]
pub(crate) static SESSIONS: HashMap<Session, u64, 131_072, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

/// Threads and goroutines that use TLS. The least recently seen give way.
#[btf_map]
pub(crate) static THREADS: LruHashMap<u64, Thread, 16_384> = LruHashMap::new();

/// Sockets' own storage: found without hashing, freed with the socket, copied from a listener to its children.
#[repr(C)]
pub(crate) struct Storage {
    r#type: *const [i32; BPF_MAP_TYPE_SK_STORAGE as usize],
    key: *const i32,
    value: *const Connection,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; (BPF_F_NO_PREALLOC | BPF_F_CLONE) as usize],
}

// SAFETY: the fields are placeholders for the loader, never read.
unsafe impl Sync for Storage {}

impl Storage {
    const fn new() -> Self {
        Self {
            r#type: core::ptr::null(),
            key: core::ptr::null(),
            value: core::ptr::null(),
            max_entries: core::ptr::null(),
            map_flags: core::ptr::null(),
        }
    }

    pub(crate) const fn as_ptr(&self) -> *mut c_void {
        core::ptr::from_ref(self).cast_mut().cast()
    }
}

/// What is known of each socket, in the socket.
#[btf_map]
pub(crate) static STORAGE: Storage = Storage::new();

/// Counts a loss.
pub(crate) fn lost(which: u32) {
    if let Some(count) = LOSSES.get_ptr_mut(which) {
        // SAFETY: an atomic addition to a number in the table.
        unsafe { asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) count, in(reg) 1_u64, options(nostack)) };
    }
}
