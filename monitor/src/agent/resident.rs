//! Memory that only the start needed.
#![expect(unsafe_code, reason = "madvise can take memory away: here, code that the file has")]

use std::ptr::NonNull;

use nix::sys::mman::{MmapAdvise, madvise};
use procfs::process::{MMPermissions, MMapPath, Process};

/// Lets the program's code go that has run until now: most of it will not run again. What does comes back from the
/// page cache, a few pages at a time.
pub(super) fn let_code_go() {
    let Ok(program) = std::env::current_exe() else { return };
    let Ok(maps) = Process::myself().and_then(|process| process.maps()) else { return };
    for map in maps {
        let is_code = map.perms.contains(MMPermissions::EXECUTE) && !map.perms.contains(MMPermissions::WRITE);
        if !is_code || map.pathname != MMapPath::Path(program.clone()) {
            continue;
        }
        let (from, to) = map.address;
        let Some(start) = NonNull::new(from as *mut _) else { continue };
        // SAFETY: the kernel gave the range, and nothing was ever written to it: it is what the file has.
        if let Err(error) = unsafe { madvise(start, (to - from) as usize, MmapAdvise::MADV_DONTNEED) } {
            tracing::debug!("code that only the start needed stays in memory: {error}");
        }
    }
}
