//! Host networking for containers: bridges, endpoints, NAT rules, published ports, names.
//!
//! This crate exists so that exactly one process, `wherry-netd`, changes the host's network; it must
//! not know Docker's HTTP API, nor images, nor what runs in a namespace. The library holds what an engine
//! needs to talk to it: [`protocol`] (the messages), [`client`] (asking, blocking, from any
//! thread) and [`launch`] (starting netd where none runs). The rest is the program.
//!
//! # The process
//!
//! One netd per pair of roots, started by the first engine and outliving it. It holds no state that is not on disk
//! or in the kernel, and may be killed and started again at any moment: translations, links and
//! established connections are the kernel's. Its threads:
//!
//! - one per connection of an engine (`server`): reads a request, carries it out (`core`), answers;
//! - `runtime`: a current-thread tokio runtime with the resolvers (`dns`) and the relays (`relay`);
//! - `firewall`: makes all rule changes, in order, those that wait together in one run of iptables-restore or nft;
//! - `firewalld`, on hosts with a message bus: hears when firewalld starts or reloads, and has our bridges registered again;
//! - `watch`: hears from the kernel when somebody else changes rules, and has them compared and mended;
//! - `standby`: has a second process wait for this one's death (below);
//! - `backstage`: takes down namespaces and links, and keeps one namespace ready;
//! - throwaway threads that enter a container's network namespace and end with it.
//!
//! Beside it waits its standby, a second process of the same program: blocked on the `lock` file that netd holds, it
//! becomes netd the moment the other one dies. So there is never more than one writer, and names do not
//! wait for an engine. It has been left the sockets of resolvers and relays and goes on with relayed connections
//! (`handover`); only if both are killed do these break.
//!
//! # Its files
//!
//! - `DATA_ROOT/network/ID.json`: a network; synced.
//! - `EXEC_ROOT/netd.sock`; `EXEC_ROOT/netd/`: `settings.json`, `sandboxes/ID.json`, `lock` (held while it lives), `standby.lock` (held by who waits for that one),
//!   `start.lock` (held by who starts it), `netd.log`. Valid until the next boot, replaced whole, not synced.
//! - `EXEC_ROOT/netns/`: the namespaces, bind-mounted in a mount that is shared with nobody.
//!
//! # A request's course
//!
//! `CreateSandbox`: under the state's lock, addresses, names of links and host ports are reserved (`ipam`, `ports`);
//! without it, the rules of published ports are ordered from `firewall` while a throwaway thread
//! makes the namespace and its links with a few netlink messages (`netlink`); then the sandbox is written to disk, its
//! names are made known and it is confirmed. If a step fails the reservation is taken back and nothing is left.

pub mod client;
pub mod launch;
pub mod protocol;

pub use client::{Client, ClientError};
pub use launch::{LaunchError, ensure_running};
