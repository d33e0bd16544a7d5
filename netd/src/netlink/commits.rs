//! News of changes of the host's nftables rules (which today's iptables writes to), and who made them.

use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType};

use super::message::attributes;
use super::{RECEIVE_BYTES, messages};

/// NFNLGRP_NFTABLES.
const GROUP: u32 = 1 << (7 - 1);
/// NFT_MSG_NEWGEN of the subsystem nftables: the end of each transaction.
const NEW_GENERATION: u16 = 10 << 8 | 15;
const PROCESS_ID: u16 = 2;

/// A subscription.
pub(crate) struct Commits {
    socket: OwnedFd,
}

/// What was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum News {
    /// Nothing, for as long as was asked.
    Silence,
    /// Process `0` (as the kernel counts, outside of all pid namespaces) has changed rules; 0: the kernel did not say.
    Commit(u32),
    /// Some were missed.
    Lost,
}

impl Commits {
    /// Subscribes in the calling thread's namespace.
    pub(crate) fn subscribe() -> Result<Self, Errno> {
        let socket = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(NETFILTER),
        )?;
        rustix::net::bind(&socket, &SocketAddrNetlink::new(0, GROUP))?;
        Ok(Self { socket })
    }

    /// Waits for news, at most for `patience`, and gives all of it to `each`.
    pub(crate) fn wait(&self, patience: Option<&Timespec>, mut each: impl FnMut(News)) -> Result<(), Errno> {
        match poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], patience) {
            Ok(0) => each(News::Silence),
            Ok(_) => {
                let mut buffer = [0u8; RECEIVE_BYTES];
                match rustix::net::recv(&self.socket, &mut buffer[..], RecvFlags::empty()) {
                    Ok((length, _)) => {
                        messages(&buffer[..length])
                            .filter(|message| message.kind == NEW_GENERATION)
                            .for_each(|message| each(News::Commit(author(message.body))));
                    }
                    Err(Errno::NOBUFS) => each(News::Lost),
                    Err(Errno::INTR) => {}
                    Err(e) => return Err(e),
                }
            }
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
        Ok(())
    }
}

fn author(body: &[u8]) -> u32 {
    let payload = body.get(4..).and_then(|rest| attributes(rest).find(|a| a.0 == PROCESS_ID));
    payload.and_then(|a| a.1.first_chunk::<4>()).map_or(0, |b| u32::from_be_bytes(*b))
}
