//! A UDP socket that tells to which of the machine's addresses a datagram came, and answers
//! from that one.
//!
//! Bound to every address, a socket would answer from the address of the way back, and a client
//! of a machine with several of them drops such an answer.

use std::cell::RefCell;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket as StdSocket};
use std::os::fd::AsRawFd;

use nix::cmsg_space;
use nix::sys::socket::sockopt::{Ipv4PacketInfo, Ipv6RecvPacketInfo};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt,
};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// See the module's documentation.
#[derive(Debug)]
pub struct Socket {
    io: UdpSocket,
    /// Room for what the kernel says beside a datagram.
    beside: RefCell<Vec<u8>>,
}

/// Who sent a datagram, and to which of our addresses: a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Between {
    pub client: SocketAddr,
    pub local: Local,
}

/// An address of this machine. One that is valid on a link only has that link's number; 0 for
/// all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Local {
    ip: IpAddr,
    link: u32,
}

impl Socket {
    /// `socket` does not block.
    pub fn new(socket: StdSocket) -> io::Result<Self> {
        match socket.local_addr()? {
            SocketAddr::V4(_) => setsockopt(&socket, Ipv4PacketInfo, &true)?,
            SocketAddr::V6(_) => setsockopt(&socket, Ipv6RecvPacketInfo, &true)?,
        }
        let beside = RefCell::new(cmsg_space!(libc::in6_pktinfo, libc::in_pktinfo));
        Ok(Socket { io: UdpSocket::from_std(socket)?, beside })
    }

    pub async fn readable(&self) -> io::Result<()> {
        self.io.readable().await
    }

    /// Takes one datagram, if there is one. `None`: one from which nothing can be learnt.
    pub fn try_recv(&self, buffer: &mut [u8]) -> io::Result<Option<(Between, usize)>> {
        self.io.try_io(Interest::READABLE, || self.recv(buffer))
    }

    fn recv(&self, buffer: &mut [u8]) -> io::Result<Option<(Between, usize)>> {
        let mut beside = self.beside.borrow_mut();
        let mut parts = [IoSliceMut::new(buffer)];
        let flags = MsgFlags::empty();
        let fd = self.io.as_raw_fd();
        let message = recvmsg::<SockaddrStorage>(fd, &mut parts, Some(&mut beside), flags)?;
        let client = message.address.as_ref().and_then(addr);
        let local = message.cmsgs()?.find_map(|told| match told {
            ControlMessageOwned::Ipv4PacketInfo(info) => Some(Local {
                ip: Ipv4Addr::from(info.ipi_spec_dst.s_addr.to_ne_bytes()).into(),
                link: 0,
            }),
            ControlMessageOwned::Ipv6PacketInfo(info) => {
                let ip = Ipv6Addr::from(info.ipi6_addr.s6_addr);
                let link = if ip.is_unicast_link_local() { info.ipi6_ifindex } else { 0 };
                Some(Local { ip: ip.into(), link })
            }
            _ => None,
        });
        let bytes = message.bytes;
        Ok(client.zip(local).map(|(client, local)| (Between { client, local }, bytes)))
    }

    /// Sends a datagram back. It waits for nothing: a full socket is an error.
    pub fn send(&self, bytes: &[u8], Between { client, local }: Between) -> io::Result<()> {
        let (v4, v6);
        let from = match local.ip {
            IpAddr::V4(ip) => {
                let address =
                    |ip: Ipv4Addr| libc::in_addr { s_addr: u32::from_ne_bytes(ip.octets()) };
                v4 = libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: address(ip),
                    ipi_addr: address(Ipv4Addr::UNSPECIFIED),
                };
                ControlMessage::Ipv4PacketInfo(&v4)
            }
            IpAddr::V6(ip) => {
                v6 = libc::in6_pktinfo {
                    ipi6_addr: libc::in6_addr { s6_addr: ip.octets() },
                    ipi6_ifindex: local.link,
                };
                ControlMessage::Ipv6PacketInfo(&v6)
            }
        };
        let to = SockaddrStorage::from(client);
        let (fd, parts) = (self.io.as_raw_fd(), [IoSlice::new(bytes)]);
        sendmsg(fd, &parts, &[from], MsgFlags::empty(), Some(&to))?;
        Ok(())
    }
}

fn addr(storage: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = storage.as_sockaddr_in().map(|addr| SocketAddr::from(*addr));
    v4.or_else(|| storage.as_sockaddr_in6().map(|addr| SocketAddr::from(*addr)))
}

#[cfg(test)]
impl Between {
    /// Someone at this port of an example network.
    pub fn test(port: u16) -> Self {
        let local = Local { ip: Ipv4Addr::LOCALHOST.into(), link: 0 };
        Between { client: (Ipv4Addr::new(192, 0, 2, 1), port).into(), local }
    }
}
