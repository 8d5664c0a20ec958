//! Many probes in one file by one link, `uprobe.multi` (Linux 6.6, `kernel/trace/bpf_trace.c`): two descriptors for a process,
//! put on and taken off at once, and without the privilege that single ones need. aya doesn't load programs for it yet, so
//! that it is done here with what aya has read and made.
#![expect(unsafe_code, reason = "commands of bpf(2) that aya doesn't have")]

use std::{
    collections::{HashMap, HashSet},
    ffi::CString,
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

use aya::{Ebpf, maps::Map};
use aya_obj::{
    Function, Object,
    generated::{bpf_attach_type::BPF_TRACE_UPROBE_MULTI, bpf_attr, bpf_cmd, bpf_prog_type},
};

/// `BPF_F_UPROBE_MULTI_RETURN` (include/uapi/linux/bpf.h)
const ON_RETURN: u32 = 1;

/// A place in a file, and what the program is told of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) offset: u64,
    pub(super) cookie: u64,
}

/// A loaded program.
#[derive(Debug)]
pub(super) struct Multi(OwnedFd);

impl Multi {
    /// Loads programs of the object that was loaded, by name, to use the same tables.
    pub(super) fn load<const N: usize>(ebpf: &Ebpf, names: [&str; N]) -> Result<[Self; N], String> {
        let mut object = Object::parse(monitor_ebpf::OBJECT).map_err(|error| error.to_string())?;
        let tables: HashMap<&str, BorrowedFd<'_>> =
            ebpf.maps().filter_map(|(name, map)| Some((name, descriptor(map)?))).collect();
        // Without it the kernel takes no program that gives a function to a helper.
        let none = || "the kernel, or the object, has no BTF".to_owned();
        let features = aya::features().btf().ok_or_else(none)?;
        let types = object.fixup_and_sanitize_btf(features).map_err(|error| error.to_string())?;
        let types = load_types(&types.ok_or_else(none)?.to_bytes()).map_err(|error| error.to_string())?;
        let maps = std::mem::take(&mut object.maps);
        let sections: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
        let known = maps.iter().filter_map(|(name, map)| {
            tables.get(name.as_str()).map(|table| (name.as_str(), table.as_raw_fd(), map))
        });
        object.relocate_maps(known, &sections).map_err(|error| error.to_string())?;
        object.relocate_calls(&sections).map_err(|error| error.to_string())?;
        let mut loaded = Vec::new();
        for name in names {
            let program = object.programs.get(name).ok_or_else(|| format!("there is no program {name}"))?;
            let function = object
                .functions
                .get(&program.function_key())
                .ok_or_else(|| format!("there is no function {name}"))?;
            loaded.push(load(name, function, &program.license, &types).map_err(|error| error.to_string())?);
        }
        loaded.try_into().map_err(|_| "not as many programs as names".to_owned())
    }

    /// Puts the program at places of a file in one process, or in all.
    pub(super) fn attach(
        &self,
        file: &CString,
        places: &[Place],
        on_return: bool,
        pid: Option<u32>,
    ) -> io::Result<OwnedFd> {
        let offsets: Vec<u64> = places.iter().map(|place| place.offset).collect();
        let cookies: Vec<u64> = places.iter().map(|place| place.cookie).collect();
        // SAFETY: zeroes are valid for the union of numbers that it is.
        let mut attr: bpf_attr = unsafe { std::mem::zeroed() };
        // SAFETY: numbers, whichever they are.
        let link = unsafe { &mut attr.link_create };
        link.__bindgen_anon_1.prog_fd = self.0.as_raw_fd().cast_unsigned();
        link.attach_type = BPF_TRACE_UPROBE_MULTI as u32;
        // SAFETY: as above.
        let multi = unsafe { &mut link.__bindgen_anon_3.uprobe_multi };
        multi.path = file.as_ptr() as u64;
        multi.offsets = offsets.as_ptr() as u64;
        multi.cookies = cookies.as_ptr() as u64;
        multi.cnt = places.len() as u32;
        multi.flags = if on_return { ON_RETURN } else { 0 };
        multi.pid = pid.unwrap_or(0);
        // SAFETY: what the attributes point to lives until the call returns.
        unsafe { bpf(bpf_cmd::BPF_LINK_CREATE, &attr) }
    }

    /// For its statistics.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn descriptor(map: &Map) -> Option<BorrowedFd<'_>> {
    match map {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::PerCpuArray(data)
        | Map::RingBuf(data)
        | Map::SkStorage(data)
        | Map::PerfEventArray(data)
        | Map::Unsupported(data) => Some(data.fd().as_fd()),
        _ => None,
    }
}

/// Loads the object's types.
fn load_types(types: &[u8]) -> io::Result<OwnedFd> {
    // SAFETY: zeroes are valid for the union of numbers that it is.
    let mut attr: bpf_attr = unsafe { std::mem::zeroed() };
    // SAFETY: numbers, whichever they are.
    let btf = unsafe { &mut attr.__bindgen_anon_7 };
    btf.btf = types.as_ptr() as u64;
    btf.btf_size = types.len() as u32;
    // SAFETY: what the attributes point to lives until the call returns.
    unsafe { bpf(bpf_cmd::BPF_BTF_LOAD, &attr) }
}

fn load(name: &str, function: &Function, license: &CString, types: &OwnedFd) -> io::Result<Multi> {
    let functions = function.func_info.func_info_bytes();
    // SAFETY: zeroes are valid for the union of numbers that it is.
    let mut attr: bpf_attr = unsafe { std::mem::zeroed() };
    // SAFETY: numbers, whichever they are.
    let program = unsafe { &mut attr.__bindgen_anon_3 };
    for (to, from) in program.prog_name.iter_mut().zip(name.bytes().take(15)) {
        *to = std::ffi::c_char::from_ne_bytes([from]);
    }
    program.prog_type = bpf_prog_type::BPF_PROG_TYPE_KPROBE as u32;
    program.expected_attach_type = BPF_TRACE_UPROBE_MULTI as u32;
    program.insns = function.instructions.as_ptr() as u64;
    program.insn_cnt = function.instructions.len() as u32;
    program.prog_btf_fd = types.as_raw_fd().cast_unsigned();
    program.func_info = functions.as_ptr() as u64;
    program.func_info_cnt = function.func_info.len() as u32;
    program.func_info_rec_size = function.func_info_rec_size as u32;
    program.license = license.as_ptr() as u64;
    // SAFETY: what the attributes point to lives until the call returns.
    unsafe { bpf(bpf_cmd::BPF_PROG_LOAD, &attr) }.map(Multi)
}

/// bpf(2), for commands that return a descriptor.
///
/// # Safety
/// What the attributes point to is there.
unsafe fn bpf(command: bpf_cmd, attributes: &bpf_attr) -> io::Result<OwnedFd> {
    // SAFETY: the caller's promise; the kernel reads as many bytes as there are.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command as libc::c_long, attributes, size_of::<bpf_attr>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(result as i32) })
}
