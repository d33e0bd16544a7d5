//! Who a container's processes are: names and numbers looked up in the container's own files.
//!
//! Nothing of the container is trusted: the files are read through its root (`openat2`,
//! RESOLVE_IN_ROOT), must be regular, and lines that do not parse are passed over. No NSS.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags, fstat, openat2};

use crate::error::Error;

/// No more than this is read of a file.
const MAX_BYTES: u64 = 4 << 20;
/// The greatest id: the kernel's are 32 bits wide, of which Docker uses 31.
const MAX_ID: u32 = 2_147_483_647;

/// A user as the kernel knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ResolvedUser {
    /// User id.
    pub(crate) uid: u32,
    /// Primary group.
    pub(crate) gid: u32,
    /// All groups that the process gets: the primary one first (CVE-2022-36109), then supplementary ones.
    pub(crate) additional_gids: Vec<u32>,
    /// Home directory; `/` when the user has no entry.
    pub(crate) home: String,
}

struct User<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

/// A user or group as given: numbers are never looked up as names (CVE-2024-40635 and others).
#[derive(Clone, Copy)]
enum Given<'a> {
    Name(&'a str),
    Number(u32),
}

/// Finds out who `user` is: `""` (root), `name`, `uid`, `name:group`, `uid:gid` and mixtures; `group_add`
/// are further groups by name or number. `root` is the container's root folder. Blocking.
///
/// # Errors
/// 500 with dockerd's texts, like `unable to find user x: no matching entries in passwd file`.
pub(crate) fn resolve(root: BorrowedFd<'_>, user: &str, group_add: &[String]) -> Result<ResolvedUser, Error> {
    let passwd = read(root, "etc/passwd")?;
    let groups = read(root, "etc/group")?;
    look_up(&passwd, &groups, user, group_add)
}

fn look_up(passwd: &str, groups: &str, user: &str, group_add: &[String]) -> Result<ResolvedUser, Error> {
    let (user_text, group_text) = user.split_once(':').unwrap_or((user, ""));
    let given = if user_text.is_empty() { Given::Number(0) } else { parse_id(user_text)? };
    let entry = users(passwd).find(|u| match given {
        Given::Name(name) => u.name == name,
        Given::Number(uid) => u.uid == uid,
    });
    let (uid, mut gid, home) = match (&entry, given) {
        (Some(entry), _) => (entry.uid, entry.gid, entry.home),
        (None, Given::Number(uid)) => (uid, 0, ""),
        (None, Given::Name(name)) => {
            return Err(Error::server(format!(
                "unable to find user {name}: no matching entries in passwd file"
            )));
        }
    };
    let mut supplementary = Vec::new();
    if !group_text.is_empty() {
        gid = find_group(groups, group_text)?;
    } else if let Some(entry) = &entry {
        // Only without an explicit group does one get the groups that one is a member of.
        let is_member = |g: &Group<'_>| g.members.split(',').any(|m| m == entry.name);
        supplementary.extend(self::groups(groups).filter(is_member).map(|g| g.gid));
    }
    for group in group_add {
        supplementary.push(find_group(groups, group)?);
    }
    let mut additional_gids = vec![gid];
    for group in supplementary {
        if !additional_gids.contains(&group) {
            additional_gids.push(group);
        }
    }
    let home = if home.is_empty() { "/" } else { home };
    Ok(ResolvedUser { uid, gid, additional_gids, home: home.to_owned() })
}

fn find_group(table: &str, text: &str) -> Result<u32, Error> {
    match parse_id(text)? {
        Given::Number(gid) => Ok(gid),
        Given::Name(name) => groups(table).find(|g| g.name == name).map(|g| g.gid).ok_or_else(|| {
            Error::server(format!("unable to find group {name}: no matching entries in group file"))
        }),
    }
}

/// What looks like a whole number is one, and must be in range.
fn parse_id(text: &str) -> Result<Given<'_>, Error> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(Given::Name(text));
    }
    match text.parse::<u32>() {
        Ok(id) if id <= MAX_ID => Ok(Given::Number(id)),
        _ => Err(Error::server(format!("uids and gids must be in range 0-{MAX_ID}"))),
    }
}

/// The entries of a passwd file: `name:password:uid:gid:comment:home:shell`.
fn users(table: &str) -> impl Iterator<Item = User<'_>> {
    table.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let (name, uid, gid) = (fields.next()?, fields.nth(1)?, fields.next()?);
        Some(User { name, uid: strict_id(uid)?, gid: strict_id(gid)?, home: fields.nth(1).unwrap_or("") })
    })
}

/// The entries of a group file: `name:password:gid:member,member`.
fn groups(table: &str) -> impl Iterator<Item = Group<'_>> {
    table.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let (name, gid) = (fields.next()?, fields.nth(1)?);
        Some(Group { name, gid: strict_id(gid)?, members: fields.next().unwrap_or("") })
    })
}

/// A number in a file: digits only. A damaged one must not come out as 0, which is root.
fn strict_id(text: &str) -> Option<u32> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|id| plain && *id <= MAX_ID)
}

/// A file below `root`; empty when there is none.
fn read(root: BorrowedFd<'_>, path: &str) -> Result<String, Error> {
    // Without blocking, since it may be a named pipe.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let failed = |e: std::io::Error| Error::io("read the container's", format_args!("/{path}"))(e);
    let file = match openat2(root, path, flags, Mode::empty(), resolve) {
        Ok(file) => File::from(file),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(String::new()),
        Err(errno) => return Err(failed(errno.into())),
    };
    let stat = fstat(file.as_fd()).map_err(|errno| failed(errno.into()))?;
    if !rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file() {
        return Err(failed(std::io::Error::other("not a regular file")));
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(failed(std::io::ErrorKind::FileTooLarge.into()));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33:web:/var/www:/bin/sh\n\
                          bad:x:zero:0:bad:/:/bin/sh\n0000:x:7:7::/seven:\nneg:x:-1:0::/:\nbig:x:4294967296:0::/:\n\
                          nohome:x:50:50::\nshort:x\n:::\nweb:x:34:34:second::\n";
    const GROUP: &str =
        "root:x:0:root\nwheel:x:10:root,web\nweb:x:33:\nvideo:x:27:web\nodd:x:x:web\n99:x:5:\nshort:x\n";

    fn check(user: &str, add: &[&str], expected: Result<(u32, u32, &[u32], &str), &str>) {
        let add: Vec<String> = add.iter().map(ToString::to_string).collect();
        let got = look_up(PASSWD, GROUP, user, &add).map_err(|e| e.to_string());
        let expected = expected
            .map(|(uid, gid, gids, home)| ResolvedUser {
                uid,
                gid,
                additional_gids: gids.to_vec(),
                home: home.to_owned(),
            })
            .map_err(ToOwned::to_owned);
        assert_eq!(got, expected, "{user:?} {add:?}");
    }

    #[test]
    fn users_are_found_as_dockerd_finds_them() {
        check("", &[], Ok((0, 0, &[0, 10], "/root")));
        check("root", &["video", "7"], Ok((0, 0, &[0, 10, 27, 7], "/root")));
        check("web", &[], Ok((33, 33, &[33, 10, 27], "/var/www")));
        check("33", &[], Ok((33, 33, &[33, 10, 27], "/var/www")));
        check("web:root", &[], Ok((33, 0, &[0], "/var/www")));
        check("web:5", &[], Ok((33, 5, &[5], "/var/www")));
        check("1234", &[], Ok((1234, 0, &[0], "/")));
        check("1234:web", &[], Ok((1234, 33, &[33], "/")));
        check(":10", &[], Ok((0, 10, &[10], "/root")));
        check("root:", &[], Ok((0, 0, &[0, 10], "/root")));
        check("nohome", &[], Ok((50, 50, &[50], "/")));
        check("2147483647", &[], Ok((2_147_483_647, 0, &[0], "/")));
    }

    #[test]
    fn hostile_users_are_nobody() {
        let range = "uids and gids must be in range 0-2147483647";
        for user in
            ["-1", "2147483648", "4294967296", "4294967295", "99999999999999999999", "0:-1", "0:4294967296"]
        {
            check(user, &[], Err(range));
        }
        // A number is never a name: "0000" is 0, though there is a user who is called so.
        check("0000", &[], Ok((0, 0, &[0, 10], "/root")));
        check("0:99", &[], Ok((0, 99, &[99], "/root")));
        for user in ["bad", "neg", "big", "short", "nosuch", " ", "root\0", "0x0", "1e3", "\u{663}"] {
            let text = format!("unable to find user {user}: no matching entries in passwd file");
            check(user, &[], Err(&text));
        }
        check("root:odd", &[], Err("unable to find group odd: no matching entries in group file"));
        check("", &["nos"], Err("unable to find group nos: no matching entries in group file"));
        check("", &["-1"], Err(range));
    }

    #[test]
    fn files_are_read_inside_the_root_only() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        let root = File::open(dir.path()).unwrap();
        let who = |user: &str| resolve(root.as_fd(), user, &[]).map(|u| u.uid).map_err(|e| e.to_string());
        assert_eq!(who("0"), Ok(0), "without files, numbers still work");
        symlink("/proc/self/root/etc/passwd", dir.path().join("etc/passwd")).unwrap();
        assert_eq!(who("12"), Ok(12), "the link ends inside the root, where there is nothing");
        std::fs::remove_file(dir.path().join("etc/passwd")).unwrap();
        symlink("../../../../etc/real", dir.path().join("etc/passwd")).unwrap();
        std::fs::write(dir.path().join("etc/real"), "me:x:77:7::/:\n").unwrap();
        assert_eq!(who("me"), Ok(77), "links are followed as from inside");
        std::fs::remove_file(dir.path().join("etc/real")).unwrap();
        let fifo = dir.path().join("etc/real");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
        assert!(who("me").unwrap_err().contains("not a regular file"));
        std::fs::remove_file(&fifo).unwrap();
        File::create(&fifo).unwrap().set_len(MAX_BYTES + 1).unwrap();
        assert!(who("me").unwrap_err().contains("/etc/passwd"));
    }
}
