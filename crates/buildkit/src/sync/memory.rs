//! A few small files, kept in memory: Dockerfiles and what belongs to them.

use std::collections::BTreeMap;

use rustix::fs::FileType;

use super::receive::Next;
use super::{Error, attributes, check_path};
use crate::pb::services::{Packet, PacketType};

/// The most bytes of all files together.
const MAX_CONTENT_BYTES: usize = 16 << 20;
/// The most files.
const MAX_FILES: usize = 1024;
/// The most links on the way to a file, as the kernel has it.
const MAX_LINKS: usize = 40;

/// The files that came.
#[derive(Clone, Debug, Default)]
pub struct Files {
    entries: BTreeMap<String, Entry>,
}

#[derive(Clone, Debug)]
enum Entry {
    File(Vec<u8>),
    Link(String),
    Folder,
}

impl Files {
    /// The content of a file; links are followed, and lead nowhere but to files that came.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&[u8]> {
        let mut parts: Vec<String> = path.split('/').rev().map(str::to_string).collect();
        let mut at: Vec<String> = Vec::new();
        let mut links = 0;
        while let Some(part) = parts.pop() {
            match part.as_str() {
                "" | "." => continue,
                ".." => {
                    at.pop();
                    continue;
                }
                _ => at.push(part),
            }
            match self.entries.get(&at.join("/"))? {
                Entry::Link(target) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return None;
                    }
                    if target.starts_with('/') {
                        at.clear();
                    } else {
                        at.pop();
                    }
                    parts.extend(target.split('/').rev().map(str::to_string));
                }
                Entry::File(data) if parts.iter().all(|p| p.is_empty()) => return Some(data),
                Entry::File(_) => return None,
                Entry::Folder => {}
            }
        }
        None
    }
}

/// Takes the packets of such a transfer.
#[derive(Debug, Default)]
pub struct Receiver {
    files: Files,
    previous: String,
    listed: u32,
    wanted: BTreeMap<u32, String>,
    content: usize,
    list_ended: bool,
}

impl Receiver {
    /// Takes the next packet.
    ///
    /// # Errors
    /// Hostile names, broken protocol, and more than fits into memory.
    pub fn packet(&mut self, packet: Packet) -> Result<Next, Error> {
        match (PacketType::try_from(packet.r#type), packet.stat) {
            (Ok(PacketType::Stat), Some(stat)) => {
                check_path(&stat.path, &self.previous)?;
                let id = self.listed;
                self.listed += 1;
                if self.files.entries.len() >= MAX_FILES {
                    return Err(Error::Limit { what: "files", limit: MAX_FILES });
                }
                self.previous.clone_from(&stat.path);
                let (entry, next) = match attributes::kind(&stat) {
                    Some(FileType::RegularFile) if stat.linkname.is_empty() => {
                        self.wanted.insert(id, stat.path.clone());
                        (Entry::File(Vec::new()), Next::Request(id))
                    }
                    // A hard link leads to the same content as a link from the root does.
                    Some(FileType::RegularFile) => {
                        (Entry::Link(format!("/{}", stat.linkname)), Next::Continue)
                    }
                    Some(FileType::Symlink) => (Entry::Link(stat.linkname), Next::Continue),
                    Some(FileType::Directory) => (Entry::Folder, Next::Continue),
                    _ => return Ok(Next::Continue),
                };
                self.files.entries.insert(stat.path, entry);
                Ok(next)
            }
            (Ok(PacketType::Stat), None) => {
                self.list_ended = true;
                Ok(self.finish_if_complete())
            }
            (Ok(PacketType::Data), _) => self.data(packet.id, &packet.data),
            (Ok(PacketType::Err), _) => {
                Err(Error::Sender(String::from_utf8_lossy(&packet.data).into_owned()))
            }
            _ => Err(Error::Protocol("the sender sent a packet that does not fit")),
        }
    }

    fn data(&mut self, id: u32, data: &[u8]) -> Result<Next, Error> {
        let Some(path) = self.wanted.get(&id) else {
            return Err(Error::Protocol("the sender sent bytes that nobody had asked for"));
        };
        if data.is_empty() {
            self.wanted.remove(&id);
            return Ok(self.finish_if_complete());
        }
        self.content += data.len();
        if self.content > MAX_CONTENT_BYTES {
            return Err(Error::Limit { what: "bytes", limit: MAX_CONTENT_BYTES });
        }
        if let Some(Entry::File(content)) = self.files.entries.get_mut(path) {
            content.extend_from_slice(data);
        }
        Ok(Next::Continue)
    }

    fn finish_if_complete(&self) -> Next {
        if self.list_ended && self.wanted.is_empty() { Next::Finish } else { Next::Continue }
    }

    /// What came.
    #[must_use]
    pub fn into_files(self) -> Files {
        self.files
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(entries: &[(&str, Entry)]) -> Files {
        Files { entries: entries.iter().map(|(path, entry)| ((*path).to_string(), entry.clone())).collect() }
    }

    #[test]
    fn links_lead_only_to_what_came() {
        let link = |target: &str| Entry::Link(target.to_string());
        let files = files(&[
            ("Dockerfile", link("sub/real")),
            ("abs", link("/sub/real")),
            ("loop", link("loop")),
            ("out", link("../../../etc/passwd")),
            ("sub", Entry::Folder),
            ("sub/real", Entry::File(b"FROM x".to_vec())),
            ("sub/up", link("../Dockerfile")),
        ]);
        for path in ["Dockerfile", "abs", "sub/real", "./sub//up", "/Dockerfile"] {
            assert_eq!(files.get(path), Some(b"FROM x".as_slice()), "{path}");
        }
        for path in ["loop", "out", "sub", "nothere", "sub/real/more", ""] {
            assert_eq!(files.get(path), None, "{path}");
        }
    }
}
