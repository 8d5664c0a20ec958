//! The fields that the kernel side reads, resolved for the running kernel.

use monitor_ebpf::config::Offsets;

use super::btf::{BtfError, Types};

const STRUCTS: &[&str] = &[
    "task_struct",
    "files_struct",
    "fdtable",
    "sock",
    "socket",
    "file",
    "inode",
    "unix_sock",
    "unix_address",
    "signal_struct",
    "sched_entity",
    "net",
    "pid",
    "upid",
    "pid_namespace",
    "list_head",
    "trace_event_raw_sched_process_fork",
];

/// Every offset, from the bytes of `/sys/kernel/btf/vmlinux`.
pub fn resolve(btf: &[u8]) -> Result<Offsets, BtfError> {
    let types = Types::parse(btf, STRUCTS)?;
    let at = |path: &str| types.offset(path);
    Ok(Offsets {
        task_flags: at("task_struct.flags")?,
        task_exit_code: at("task_struct.exit_code")?,
        task_tgid: at("task_struct.tgid")?,
        task_pid: at("task_struct.pid")?,
        task_thread_pid: at("task_struct.thread_pid")?,
        task_group_leader: at("task_struct.group_leader")?,
        task_real_parent: at("task_struct.real_parent")?,
        task_children: at("task_struct.children")?,
        task_sibling: at("task_struct.sibling")?,
        list_prev: at("list_head.prev")?,
        task_files: at("task_struct.files")?,
        task_signal: at("task_struct.signal")?,
        signal_live: at("signal_struct.live")?,
        signal_sum_sched_runtime: at("signal_struct.sum_sched_runtime")?,
        task_se: at("task_struct.se")?,
        sched_entity_sum_exec_runtime: at("sched_entity.sum_exec_runtime")?,
        files_fdt: at("files_struct.fdt")?,
        fdtable_fd: at("fdtable.fd")?,
        sock_socket: at("sock.sk_socket")?,
        socket_file: at("socket.file")?,
        socket_sk: at("socket.sk")?,
        file_private_data: at("file.private_data")?,
        file_inode: at("file.f_inode")?,
        inode_ino: at("inode.i_ino")?,
        inode_mode: at("inode.i_mode")?,
        sock_family: at("sock.__sk_common.skc_family")?,
        sock_state: at("sock.__sk_common.skc_state")?,
        sock_num: at("sock.__sk_common.skc_num")?,
        sock_dport: at("sock.__sk_common.skc_dport")?,
        sock_daddr: at("sock.__sk_common.skc_daddr")?,
        sock_rcv_saddr: at("sock.__sk_common.skc_rcv_saddr")?,
        sock_v6_daddr: at("sock.__sk_common.skc_v6_daddr")?,
        sock_v6_rcv_saddr: at("sock.__sk_common.skc_v6_rcv_saddr")?,
        sock_err: at("sock.sk_err")?,
        sock_type: at("sock.sk_type")?,
        sock_net: at("sock.__sk_common.skc_net")?,
        sock_storage: at("sock.sk_bpf_storage")?,
        net_cookie: at("net.net_cookie")?,
        net_inode: at("net.ns.inum")?,
        sock_peer_pid: at("sock.sk_peer_pid")?,
        pid_level: at("pid.level")?,
        pid_numbers: at("pid.numbers")?,
        upid_number: at("upid.nr")?,
        upid_namespace: at("upid.ns")?,
        pid_namespace_inode: at("pid_namespace.ns.inum")?,
        unix_addr: at("unix_sock.addr")?,
        unix_peer: at("unix_sock.peer")?,
        unix_address_len: at("unix_address.len")?,
        unix_address_name: at("unix_address.name")?,
        fork_child_pid: at("trace_event_raw_sched_process_fork.child_pid")?,
    })
}
