//! The commands and their options. Parser and help are both made from this.

use super::flags::{Flag, Kind, Order};

/// How many arguments a command takes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Count {
    Exactly(usize),
    AtLeast(usize),
    Between(usize, usize),
}

/// A command, as the help shows it.
#[derive(Debug)]
pub(crate) struct CommandText {
    pub(crate) name: &'static str,
    pub(crate) usage: &'static str,
    /// The arguments, for the line that shows how to call it.
    pub(crate) arguments: &'static str,
    /// What there is to know; `{name}` is the program's name.
    pub(crate) description: &'static str,
    pub(crate) flags: &'static [Flag],
    pub(crate) count: Count,
    pub(crate) order: Order,
}

const fn flag(name: &'static str, kind: Kind, usage: &'static str) -> Flag {
    Flag { name, short: None, kind, usage, default: None }
}

const fn short(name: &'static str, short: &'static str, kind: Kind, usage: &'static str) -> Flag {
    Flag { name, short: Some(short), kind, usage, default: None }
}

const fn with_default(flag: Flag, default: &'static str) -> Flag {
    Flag { default: Some(default), ..flag }
}

const BUNDLE: Flag =
    short("bundle", "b", Kind::Text, "the bundle's folder; without it, the working directory");
const CONSOLE_SOCKET: Flag =
    flag("console-socket", Kind::Text, "a Unix socket that gets the master of the container's terminal");
const PIDFD_SOCKET: Flag = flag("pidfd-socket", Kind::Text, "a Unix socket that gets a pidfd of the process");
const PID_FILE: Flag = flag("pid-file", Kind::Text, "a file that gets the process id");
const DETACH: Flag = short("detach", "d", Kind::Switch, "do not wait for the process to end");
const NO_SUBREAPER: Flag = flag("no-subreaper", Kind::Switch, "leave orphans of the container to the system");
const NO_PIVOT: Flag = flag(
    "no-pivot",
    Kind::Switch,
    "move the root file system instead of pivoting to it (for a host that runs from a ramdisk)",
);
const NO_NEW_KEYRING: Flag =
    flag("no-new-keyring", Kind::Switch, "let the container use the caller's session keyring");
const PRESERVE_FDS: Flag = with_default(
    flag(
        "preserve-fds",
        Kind::Number,
        "pass so many more descriptors on, after standard I/O and $LISTEN_FDS",
    ),
    "0",
);
const FORMAT: Flag = with_default(short("format", "f", Kind::Text, "table or json"), "\"table\"");
const IMAGE_PATH: Flag = flag("image-path", Kind::Text, "the folder of criu's images");
const WORK_PATH: Flag = flag("work-path", Kind::Text, "the folder of criu's logs and working files");
const TCP_ESTABLISHED: Flag = flag("tcp-established", Kind::Switch, "allow open TCP connections");
const EXT_UNIX_SK: Flag = flag("ext-unix-sk", Kind::Switch, "allow Unix sockets whose other end is outside");
const SHELL_JOB: Flag = flag("shell-job", Kind::Switch, "allow jobs of a shell outside");
const FILE_LOCKS: Flag = flag("file-locks", Kind::Switch, "handle file locks");
const MANAGE_CGROUPS: Flag =
    flag("manage-cgroups-mode", Kind::Text, "soft, full, strict or ignore (soft if not given)");
const EMPTY_NS: Flag = flag("empty-ns", Kind::Texts, "make this namespace anew, without what was in it");
const AUTO_DEDUP: Flag = flag("auto-dedup", Kind::Switch, "drop memory images that were used");
const LAZY_PAGES: Flag =
    flag("lazy-pages", Kind::Switch, "restore memory when it is first used (userfaultfd)");

const ID: &str = "<container-id>";

/// A command with a container's id and nothing more.
const fn simple(name: &'static str, usage: &'static str) -> CommandText {
    CommandText {
        name,
        usage,
        arguments: ID,
        description: "",
        flags: &[],
        count: Count::Exactly(1),
        order: Order::Mixed,
    }
}

/// What is said before the command.
pub(crate) const GLOBAL: [Flag; 7] = [
    flag("debug", Kind::Switch, "tell what is being done"),
    flag("log", Kind::Text, "the file for messages; without it, standard error"),
    with_default(flag("log-format", Kind::Text, "text or json"), "\"text\""),
    with_default(flag("root", Kind::Text, "where the containers' state is kept"), "\"/run/wherry-runtime\""),
    flag("criu", Kind::Text, ""),
    flag(
        "systemd-cgroup",
        Kind::Switch,
        "have systemd make the cgroups; cgroupsPath is then \"slice:prefix:name\"",
    ),
    with_default(
        flag(
            "rootless",
            Kind::Text,
            "go on without cgroups when there is no permission: true, false or auto",
        ),
        "\"auto\"",
    ),
];

/// The commands, in the order of the help.
pub(crate) const COMMANDS: [CommandText; 17] = [
    CommandText {
        flags: &[
            IMAGE_PATH,
            WORK_PATH,
            flag("parent-path", Kind::Text, "the folder of an earlier pre-dump, relative to --image-path"),
            flag("leave-running", Kind::Switch, "let the container go on"),
            TCP_ESTABLISHED,
            flag(
                "tcp-skip-in-flight",
                Kind::Switch,
                "leave out TCP connections that are not yet established",
            ),
            flag("link-remap", Kind::Switch, "link removed files again where possible"),
            EXT_UNIX_SK,
            SHELL_JOB,
            LAZY_PAGES,
            with_default(
                flag(
                    "status-fd",
                    Kind::Number,
                    "a descriptor that gets a zero byte once lazy pages are ready",
                ),
                "-1",
            ),
            flag("page-server", Kind::Text, "ADDRESS:PORT of the server of lazy pages"),
            FILE_LOCKS,
            flag("pre-dump", Kind::Switch, "save memory only and let the container go on"),
            MANAGE_CGROUPS,
            EMPTY_NS,
            AUTO_DEDUP,
        ],
        ..simple("checkpoint", "save a running container to disk")
    },
    CommandText {
        description: "A bundle is a folder with the specification, config.json, and the root file system. The container is\n\
            made from it, and waits for `{name} start`. Its id must be new.",
        flags: &[BUNDLE, CONSOLE_SOCKET, PIDFD_SOCKET, PID_FILE, NO_PIVOT, NO_NEW_KEYRING, PRESERVE_FDS],
        ..simple("create", "make a container")
    },
    CommandText {
        flags: &[
            short("force", "f", Kind::Switch, "kill it first if it runs; it is fine if there is none"),
            flag("regex", Kind::Switch, "remove all containers whose id matches this regular expression"),
        ],
        ..simple("delete", "remove what a container has left")
    },
    CommandText {
        description: "Counters every five seconds, and a line whenever memory ran out.",
        flags: &[
            with_default(flag("interval", Kind::Duration, "how often counters are shown"), "5s"),
            flag("stats", Kind::Switch, "show the counters once"),
        ],
        ..simple("events", "show a container's counters and when its memory ran out")
    },
    CommandText {
        arguments: "<container-id> <command> [command options]  || -p process.json <container-id>",
        description: "Example:\n\n       # {name} exec box ps",
        flags: &[
            CONSOLE_SOCKET,
            PIDFD_SOCKET,
            flag("cwd", Kind::Text, "the working directory, in the container"),
            short("env", "e", Kind::Texts, "a variable for the environment"),
            short("tty", "t", Kind::Switch, "with a terminal"),
            short("user", "u", Kind::Text, "UID or UID:GID"),
            short("additional-gids", "g", Kind::Numbers, "a further group"),
            short("process", "p", Kind::Text, "a file with the whole process as in config.json"),
            DETACH,
            PID_FILE,
            flag("process-label", Kind::Text, "the SELinux label"),
            flag("apparmor", Kind::Text, "the AppArmor profile"),
            flag("no-new-privs", Kind::Switch, "set no_new_privs"),
            short("cap", "c", Kind::Texts, "a further capability"),
            PRESERVE_FDS,
            flag(
                "cgroup",
                Kind::Texts,
                "run in this cgroup below the container's: [CONTROLLER[,CONTROLLER…]:]PATH",
            ),
            flag("ignore-paused", Kind::Switch, "also in a paused container"),
        ],
        count: Count::AtLeast(1),
        order: Order::First,
        ..simple("exec", "run a further program in a container")
    },
    CommandText {
        arguments: "<container-id> [signal]",
        description: "Signals have names or numbers. Example:\n\n       # {name} kill box KILL",
        flags: &[short("all", "a", Kind::Switch, "")],
        count: Count::Between(1, 2),
        ..simple("kill", "send a signal (SIGTERM) to a container's first process")
    },
    CommandText {
        arguments: "",
        flags: &[FORMAT, short("quiet", "q", Kind::Switch, "ids only")],
        count: Count::Exactly(0),
        ..simple("list", "list the containers under --root")
    },
    simple("pause", "freeze all processes of a container"),
    CommandText {
        arguments: "<container-id> [ps options]",
        flags: &[FORMAT],
        count: Count::AtLeast(1),
        order: Order::First,
        ..simple("ps", "show a container's processes")
    },
    CommandText {
        flags: &[
            CONSOLE_SOCKET,
            IMAGE_PATH,
            WORK_PATH,
            TCP_ESTABLISHED,
            EXT_UNIX_SK,
            SHELL_JOB,
            FILE_LOCKS,
            MANAGE_CGROUPS,
            BUNDLE,
            DETACH,
            PID_FILE,
            NO_SUBREAPER,
            NO_PIVOT,
            EMPTY_NS,
            AUTO_DEDUP,
            LAZY_PAGES,
            flag("lsm-profile", Kind::Text, "the security profile to restore with, TYPE:NAME"),
            flag("lsm-mount-context", Kind::Text, "the security context of mounts to restore with"),
        ],
        ..simple("restore", "make a container from what checkpoint saved")
    },
    simple("resume", "thaw all processes of a container"),
    CommandText {
        description: "A bundle is a folder with the specification, config.json, and the root file system. The container is\n\
            made from it and started; its exit code is this program's. Its id must be new.",
        flags: &[
            BUNDLE,
            CONSOLE_SOCKET,
            PIDFD_SOCKET,
            DETACH,
            flag("keep", Kind::Switch, "do not delete the container when it has ended"),
            PID_FILE,
            NO_SUBREAPER,
            NO_PIVOT,
            NO_NEW_KEYRING,
            PRESERVE_FDS,
        ],
        ..simple("run", "make a container and start it")
    },
    CommandText {
        arguments: "",
        description: "It is written to config.json. Its program is \"sh\", and its root file system is the folder rootfs beside it.\n\
            With --rootless, the container needs no privileges: the caller is root in its user namespace.",
        flags: &[BUNDLE, flag("rootless", Kind::Switch, "for a container without privileges")],
        count: Count::Exactly(0),
        ..simple("spec", "write a specification to begin with")
    },
    simple("start", "start a container that was created"),
    simple("state", "show a container's state"),
    CommandText {
        description: "The file of --resources is `linux.resources` of the specification; what is not in it stays as it is.\n\
            Other options do not count then.",
        flags: &[
            short("resources", "r", Kind::Text, "a file with the limits, - for standard input"),
            flag("blkio-weight", Kind::Number, "block I/O weight, 10 to 1000"),
            flag("cpu-period", Kind::Text, "CPU period in µs, 0 for the system's"),
            flag("cpu-quota", Kind::Text, "CPU time per period in µs"),
            flag("cpu-burst", Kind::Text, "CPU time that may be saved up, in µs"),
            flag("cpu-share", Kind::Text, "CPU shares"),
            flag("cpu-rt-period", Kind::Text, "real-time period in µs, 0 for the system's"),
            flag("cpu-rt-runtime", Kind::Text, "real-time CPU time per period in µs"),
            flag("cpuset-cpus", Kind::Text, "CPUs to use"),
            flag("cpuset-mems", Kind::Text, "memory nodes to use"),
            flag("kernel-memory", Kind::Text, ""),
            flag("kernel-memory-tcp", Kind::Text, ""),
            flag("memory", Kind::Text, "memory in bytes"),
            flag("cpu-idle", Kind::Text, "1 to run only when nothing else does"),
            flag("memory-reservation", Kind::Text, "memory kept when it gets scarce, in bytes"),
            flag("memory-swap", Kind::Text, "memory and swap together in bytes, -1 for any"),
            flag("pids-limit", Kind::Number, "number of processes, -1 for any"),
            flag("l3-cache-schema", Kind::Text, "Intel RDT cache schema (not supported)"),
            flag("mem-bw-schema", Kind::Text, "Intel RDT memory bandwidth schema (not supported)"),
        ],
        ..simple("update", "change a container's limits")
    },
    CommandText {
        arguments: "",
        description: "As JSON; see features.md of the runtime specification.",
        count: Count::Exactly(0),
        ..simple("features", "show what this runtime can do")
    },
];

/// The command of that name.
pub(crate) fn find(name: &str) -> Option<&'static CommandText> {
    const LIST: &[CommandText] = &COMMANDS;
    LIST.iter().find(|command| command.name == name)
}
