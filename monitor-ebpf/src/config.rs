//! What the agent tells the kernel side when it loads it: where the running kernel keeps what.

/// Byte offsets of the fields that the programs read, from the running kernel's BTF.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Offsets {
    /// `task_struct.flags`
    pub task_flags: u64,
    /// `task_struct.exit_code`
    pub task_exit_code: u64,
    /// `task_struct.tgid`
    pub task_tgid: u64,
    /// `task_struct.pid`
    pub task_pid: u64,
    /// `task_struct.files`
    pub task_files: u64,
    /// `files_struct.fdt`
    pub files_fdt: u64,
    /// `fdtable.fd`
    pub fdtable_fd: u64,
    /// `sock.sk_socket`
    pub sock_socket: u64,
    /// `socket.file`
    pub socket_file: u64,
    /// `file.f_inode`
    pub file_inode: u64,
    /// `inode.i_ino`
    pub inode_ino: u64,
    /// `sock.__sk_common.skc_family`
    pub sock_family: u64,
    /// `sock.__sk_common.skc_state`
    pub sock_state: u64,
    /// `sock.__sk_common.skc_num`: the local port, host order
    pub sock_num: u64,
    /// `sock.__sk_common.skc_dport`: the peer's port, network order
    pub sock_dport: u64,
    /// `sock.__sk_common.skc_daddr`
    pub sock_daddr: u64,
    /// `sock.__sk_common.skc_rcv_saddr`
    pub sock_rcv_saddr: u64,
    /// `sock.__sk_common.skc_v6_daddr`
    pub sock_v6_daddr: u64,
    /// `sock.__sk_common.skc_v6_rcv_saddr`
    pub sock_v6_rcv_saddr: u64,
    /// `sock.sk_err`
    pub sock_err: u64,
    /// `sock.sk_type`
    pub sock_type: u64,
    /// `unix_sock.addr`
    pub unix_addr: u64,
    /// `unix_sock.peer`
    pub unix_peer: u64,
    /// `unix_address.len`
    pub unix_address_len: u64,
    /// `unix_address.name`
    pub unix_address_name: u64,
    /// `signal_struct.live`, `task_struct.signal`: whether other threads of an exiting process live on
    pub task_signal: u64,
    /// `signal_struct.live`
    pub signal_live: u64,
}

/// How the kernel side counts what never reached the agent: indices of its table of losses.
pub mod loss {
    /// No room in the ring buffer.
    pub const RING_FULL: u32 = 0;
    /// No room in a table of connections or processes.
    pub const MAP_FULL: u32 = 1;
    /// Of those, records that began a request.
    pub const REQUEST_STARTS: u32 = 2;
    /// How many there are.
    pub const COUNT: u32 = 3;
}
