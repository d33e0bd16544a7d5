//! Forgetting tracked UDP "connections". A client that keeps sending from one port keeps its
//! old translation for as long as it sends: without this, datagrams to a published port go on to
//! a container that is gone.

use rustix::io::Errno;

use super::Socket;
use super::message::Batch;

const SUBSYSTEM: u16 = 1 << 8;
const DELETE: u16 = SUBSYSTEM | 2;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_UDP: u8 = 17;

/// Deletes the entries of a family's UDP packets that were sent to host port `port`, whatever they were translated to.
/// Needs Linux 5.8 to single them out; older kernels refuse, and entries then end by themselves after 30 s of silence.
pub(crate) fn forget_udp(socket: &mut Socket, v6: bool, port: u16) -> Result<(), Errno> {
    const TUPLE_ORIGINAL: u16 = 1;
    const TUPLE_PROTOCOL: u16 = 2;
    const PROTOCOL_NUMBER: u16 = 1;
    const DESTINATION_PORT: u16 = 3;
    const FILTER: u16 = 25;
    const FILTER_ORIGINAL: u16 = 1;
    const FILTER_REPLY: u16 = 2;
    // CTA_FILTER_F_CTA_PROTO_NUM | CTA_FILTER_F_CTA_PROTO_DST_PORT
    const WHAT: u32 = 1 << 3 | 1 << 5;
    let mut batch = Batch::default();
    batch
        .order(DELETE, 0, &[if v6 { AF_INET6 } else { AF_INET }, 0, 0, 0])
        .nest(TUPLE_ORIGINAL, |tuple| {
            tuple.nest(TUPLE_PROTOCOL, |protocol| {
                protocol.bytes(PROTOCOL_NUMBER, &[IPPROTO_UDP]).bytes(DESTINATION_PORT, &port.to_be_bytes());
            });
        })
        .nest(FILTER, |filter| {
            filter.u32(FILTER_ORIGINAL, WHAT).u32(FILTER_REPLY, 0);
        });
    match socket.commit(batch) {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}
