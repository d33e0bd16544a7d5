//! Standard input, output and error.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, FileType, Mode, OFlags, Uid, makedev};
use rustix::io::Errno;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::termios::{OptionalActions, OutputModes, Winsize, tcgetattr, tcsetattr, tcsetwinsize};

use super::channel::{Channel, NO_SUBJECT, TERMINAL};
use super::{At, Done, dev, inherited, target};
use crate::error::Step;
use crate::plan::process::{ProcessPlan, StdioPlan, TerminalPlan};
use crate::sys::identity::set_controlling_terminal;
use crate::sys::process::duplicate_to;

const DEVPTS_MAGIC: u64 = 0x1cd1;

/// Makes a terminal in the container's devpts, sends its master to the parent, and gives the slave.
pub(crate) fn open<'p>(
    root: BorrowedFd<'_>,
    channel: &Channel,
    uid: u32,
    terminal: TerminalPlan,
    console: bool,
) -> Done<'p, OwnedFd> {
    let step = Step::Terminal;
    // A node that an image has put there would be the host's; only devpts's own is taken.
    let node = target::open(root, c"dev/pts/ptmx", OFlags::RDWR | OFlags::NOCTTY | OFlags::NOFOLLOW)
        .at(step, c"dev/pts/ptmx")?;
    let fs = rustix::fs::fstatfs(&node).at(step, c"dev/pts/ptmx")?;
    if u64::try_from(fs.f_type) != Ok(DEVPTS_MAGIC) {
        return Err(Errno::NODEV).at(step, c"dev/pts/ptmx");
    }
    unlockpt(&node).at(step, c"unlock")?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = ioctl_tiocgptpeer(&node, flags).at(step, c"slave")?;
    let TerminalPlan { rows, cols, carriage_returns } = terminal;
    if !carriage_returns {
        let mut settings = tcgetattr(&slave).at(step, c"line ends")?;
        settings.output_modes.remove(OutputModes::ONLCR);
        tcsetattr(&slave, OptionalActions::Now, &settings).at(step, c"line ends")?;
    }
    if rows != 0 || cols != 0 {
        let size = Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&node, size).at(step, c"size")?;
    }
    if uid != 0 {
        rustix::fs::fchown(&slave, Some(Uid::from_raw(uid)), None).at(step, c"owner")?;
    }
    if console {
        dev::console(root, slave.as_fd())?;
    }
    channel.send_descriptor(TERMINAL, node.as_fd()).at(step, c"send")?;
    Ok(slave)
}

/// Puts descriptors 0, 1 and 2 in their place, for the user who will use them.
pub(crate) fn set_stdio<'p>(process: &'p ProcessPlan, slave: Option<OwnedFd>) -> Done<'p> {
    match (process.stdio, slave) {
        (_, Some(slave)) => {
            set_controlling_terminal(slave.as_fd()).at(Step::Terminal, c"controlling terminal")?;
            for number in 0..3 {
                duplicate_to(slave.as_fd(), number).at(Step::Stdio, NO_SUBJECT)?;
            }
            Ok(())
        }
        (StdioPlan::Fds(fds), None) => {
            place(fds).at(Step::Stdio, NO_SUBJECT)?;
            own(process.uid).at(Step::Stdio, c"owner")
        }
        _ => own(process.uid).at(Step::Stdio, c"owner"),
    }
}

/// Makes three descriptors 0, 1 and 2. Those that are in each other's places move out of the way first.
fn place(fds: [i32; 3]) -> Result<(), Errno> {
    let mut moved = [None, None, None];
    for (number, (fd, moved)) in (0..).zip(fds.into_iter().zip(&mut moved)) {
        let fd = inherited::descriptor(fd);
        if fd.as_raw_fd() < 3 && fd.as_raw_fd() != number {
            *moved = Some(rustix::io::fcntl_dupfd_cloexec(fd, 3)?);
        }
    }
    for (number, (fd, moved)) in (0..).zip(fds.into_iter().zip(&moved)) {
        let fd = moved.as_ref().map_or(inherited::descriptor(fd), AsFd::as_fd);
        duplicate_to(fd, number)?;
    }
    Ok(())
}

/// Lets a user other than root open `/dev/stdout` and its like: pipes belong to who made them. A null device
/// becomes the container's own: the host's would keep the host's file system in reach, and cannot be checkpointed.
fn own(uid: u32) -> Result<(), Errno> {
    let is_null = |stat: &rustix::fs::Stat| {
        FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == makedev(1, 3)
    };
    let mut null: Option<Option<OwnedFd>> = None;
    for (number, fd) in (0..).zip([rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()])
    {
        let Ok(stat) = rustix::fs::fstat(fd) else { continue }; // closed
        if is_null(&stat) {
            let own = null.get_or_insert_with(|| {
                let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let own = rustix::fs::openat(CWD, c"/dev/null", flags, Mode::empty()).ok()?;
                rustix::fs::fstat(&own).is_ok_and(|stat| is_null(&stat)).then_some(own)
            });
            if let Some(own) = own {
                duplicate_to(own.as_fd(), number)?;
            }
            continue;
        }
        if stat.st_uid == uid {
            continue;
        }
        match rustix::fs::fchown(fd, Some(Uid::from_raw(uid)), None) {
            // files of a read-only file system, or of users that this namespace does not know
            Ok(()) | Err(Errno::PERM | Errno::ROFS | Errno::INVAL) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
