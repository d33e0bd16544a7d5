//! Docker's default seccomp profile as tables: which system calls are allowed, and on what condition.
//!
//! Everything that is not listed fails with EPERM. Names that an architecture lacks are passed over by the runtime.

/// A condition under which system calls are allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// Always.
    Always,
    /// The container has this capability.
    With(&'static str),
    /// It has not.
    Without(&'static str),
}

/// How an argument is compared.
#[derive(Debug, Clone, Copy)]
pub(super) enum Compare {
    /// The argument has this value.
    Equal(u64),
    /// It has another one.
    NotEqual(u64),
    /// None of these bits is set.
    NoneOf(u64),
}

/// An entry of the profile. Names are separated by spaces; a comparison is of the first argument.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) when: When,
    pub(super) names: &'static str,
    pub(super) compare: Option<Compare>,
    /// The errno that the calls fail with; `None` allows them.
    pub(super) errno: Option<u32>,
}

const fn allow(when: When, names: &'static str) -> Rule {
    Rule { when, names, compare: None, errno: None }
}

const fn allow_if(names: &'static str, compare: Compare) -> Rule {
    Rule { when: When::Always, names, compare: Some(compare), errno: None }
}

/// Address family of virtual machines' sockets: a way out of network namespaces.
const AF_VSOCK: u64 = 40;
/// All `CLONE_NEW…` flags of `clone` except for time, which it cannot take.
const CLONE_NEW: u64 = 0x7e02_0000;
/// "Not implemented": makes C libraries fall back from `clone3`, whose flags a filter cannot see, to `clone`.
const ENOSYS: u32 = 38;

#[cfg(target_arch = "x86_64")]
const NATIVE: &[Rule] = &[allow(When::Always, "arch_prctl"), allow(When::Always, "modify_ldt")];
#[cfg(target_arch = "aarch64")]
const NATIVE: &[Rule] = &[allow(
    When::Always,
    "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls",
)];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const NATIVE: &[Rule] = &[];

/// The architectures whose calls the filter covers.
#[cfg(target_arch = "x86_64")]
pub(super) const ARCHITECTURES: &[&str] = &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"];
/// The architectures whose calls the filter covers.
#[cfg(target_arch = "aarch64")]
pub(super) const ARCHITECTURES: &[&str] = &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"];
/// The architectures whose calls the filter covers.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(super) const ARCHITECTURES: &[&str] = &[];

/// The whole profile, in order.
pub(super) fn rules() -> impl Iterator<Item = &'static Rule> {
    COMMON.iter().chain(NATIVE).chain(CONDITIONAL)
}

const COMMON: &[Rule] = &[
    allow(When::Always, ALWAYS),
    // Harmless since Linux 4.8, where a tracer no longer escapes the filter.
    allow(When::Always, "process_vm_readv process_vm_writev ptrace"),
    allow_if("socket", Compare::NotEqual(AF_VSOCK)),
    allow_if("personality", Compare::Equal(0)),
    allow_if("personality", Compare::Equal(0x8)),
    allow_if("personality", Compare::Equal(0x2_0000)),
    allow_if("personality", Compare::Equal(0x2_0008)),
    allow_if("personality", Compare::Equal(0xffff_ffff)),
];

const CONDITIONAL: &[Rule] = &[
    allow(When::With("CAP_DAC_READ_SEARCH"), "open_by_handle_at"),
    allow(When::With("CAP_SYS_ADMIN"), ADMINISTRATION),
    Rule {
        when: When::Without("CAP_SYS_ADMIN"),
        names: "clone",
        compare: Some(Compare::NoneOf(CLONE_NEW)),
        errno: None,
    },
    Rule { when: When::Without("CAP_SYS_ADMIN"), names: "clone3", compare: None, errno: Some(ENOSYS) },
    allow(When::With("CAP_SYS_BOOT"), "reboot"),
    allow(When::With("CAP_SYS_CHROOT"), "chroot"),
    allow(When::With("CAP_SYS_MODULE"), "delete_module init_module finit_module"),
    allow(When::With("CAP_SYS_PACCT"), "acct"),
    allow(
        When::With("CAP_SYS_PTRACE"),
        "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace",
    ),
    allow(When::With("CAP_SYS_RAWIO"), "iopl ioperm"),
    allow(When::With("CAP_SYS_TIME"), "settimeofday stime clock_settime clock_settime64"),
    allow(When::With("CAP_SYS_TTY_CONFIG"), "vhangup"),
    allow(When::With("CAP_SYS_NICE"), "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    allow(When::With("CAP_SYSLOG"), "syslog"),
    allow(When::With("CAP_BPF"), "bpf"),
    allow(When::With("CAP_PERFMON"), "perf_event_open"),
];

const ADMINISTRATION: &str = "\
    bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr \
    lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl \
    quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare";

const ALWAYS: &str = "\
    accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown chown32 \
    clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep \
    clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2 dup3 epoll_create \
    epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 \
    execve execveat exit exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir \
    fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock fork \
    fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futex \
    futex_requeue futex_time64 futex_wait futex_waitv futex_wake futimesat getcpu getcwd getdents getdents64 \
    getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getitimer getpeername getpgid \
    getpgrp getpid getppid getpriority getrandom getresgid getresgid32 getresuid getresuid32 getrlimit \
    get_robust_list getrusage getsid getsockname getsockopt get_thread_area gettid gettimeofday getuid getuid32 \
    getxattr getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel ioctl io_destroy \
    io_getevents io_pgetevents io_pgetevents_time64 ioprio_get ioprio_set io_setup io_submit ipc kill \
    landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lchown32 lgetxattr link linkat \
    listen listmount listxattr listxattrat llistxattr _llseek lremovexattr lseek lsetxattr lstat lstat64 madvise \
    map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 \
    mlockall mmap mmap2 mprotect mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 \
    mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall \
    munmap name_to_handle_at nanosleep newfstatat _newselect open openat openat2 pause pidfd_open \
    pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll ppoll_time64 prctl pread64 preadv \
    preadv2 prlimit64 process_mrelease pselect6 pselect6_time64 pwrite64 pwritev pwritev2 read readahead \
    readlink readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr \
    removexattrat rename renameat renameat2 restart_syscall riscv_hwprobe rmdir rseq rt_sigaction rt_sigpending \
    rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 \
    rt_tgsigqueueinfo sched_getaffinity sched_getattr sched_getparam sched_get_priority_max \
    sched_get_priority_min sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 \
    sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp select semctl semget \
    semop semtimedop semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto setfsgid setfsgid32 \
    setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setitimer setpgid setpriority setregid setregid32 \
    setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit set_robust_list setsid setsockopt \
    set_thread_area set_tid_address setuid setuid32 setxattr setxattrat shmat shmctl shmdt shmget shutdown \
    sigaltstack signalfd signalfd4 sigprocmask sigreturn socketcall socketpair splice stat stat64 statfs \
    statfs64 statmount statx symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time timer_create \
    timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create \
    timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill truncate truncate64 \
    ugetrlimit umask uname unlink unlinkat uretprobe utime utimensat utimensat_time64 utimes vfork vmsplice \
    wait4 waitid waitpid write writev";
