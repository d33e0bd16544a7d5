//! Want of memory: counted, and told.

use std::os::fd::OwnedFd;

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::inotify;

use super::Cgroup;
use super::file::{pairs, read, write};

impl Cgroup {
    /// How many processes the kernel has killed.
    pub(crate) fn oom_kills(&self) -> u64 {
        let (path, file) = match (self.v1.iter().find(|f| f.has("memory")), &self.v2) {
            (Some(folder), _) => (&folder.path, "memory.oom_control"),
            (None, Some(folder)) => (&folder.path, "memory.events"),
            (None, None) => return 0,
        };
        let text = read(path, file).unwrap_or_default();
        pairs(&text).find(|(key, _)| *key == "oom_kill").map_or(0, |(_, count)| count)
    }

    /// Readable when memory ran out.
    pub(crate) fn oom_watch(&self) -> Option<OwnedFd> {
        if let Some(folder) = self.v1.iter().find(|f| f.has("memory")) {
            let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).ok()?;
            let control = std::fs::File::open(folder.path.join("memory.oom_control")).ok()?;
            use std::os::fd::AsRawFd;
            let line = format!("{} {}", event.as_raw_fd(), control.as_raw_fd());
            write(&folder.path, "cgroup.event_control", &line).ok()?;
            return Some(event);
        }
        let folder = self.v2.as_ref()?;
        let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).ok()?;
        inotify::add_watch(&watch, folder.path.join("memory.events"), inotify::WatchFlags::MODIFY).ok()?;
        Some(watch)
    }
}
