//! A core's listening socket.

use super::{operation::submit, socket::Socket};
use io_uring_of_tokio::{opcode, types};
use std::{
    io,
    net::{SocketAddr, TcpListener},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    rc::Rc,
};

/// A listening socket.
#[derive(Clone)]
pub struct Listener {
    inner: Rc<TcpListener>,
}

impl Listener {
    /// Takes over a bound and listening socket.
    #[must_use]
    pub fn new(listener: TcpListener) -> Listener {
        Listener { inner: Rc::new(listener) }
    }

    /// The next connection.
    ///
    /// # Errors
    /// Too many open files, or the listener was closed (`InvalidInput`).
    pub async fn accept(&self) -> io::Result<(Socket, SocketAddr)> {
        let entry = opcode::Accept::new(types::Fd(self.inner.as_raw_fd()), std::ptr::null_mut(), std::ptr::null_mut())
            .flags(libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK)
            .build();
        let (result, _) = submit(Rc::clone(&self.inner), entry).await;
        let fd = i32::try_from(result?).map_err(io::Error::other)?;
        // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let reference = socket2::SockRef::from(&fd);
        reference.set_tcp_nodelay(true)?;
        let peer = reference.peer_addr()?.as_socket().ok_or(io::ErrorKind::Unsupported)?;
        Ok((Socket::new(fd), peer))
    }

    /// Ends listening: an accept in flight fails.
    pub fn close(&self) {
        let _ = socket2::SockRef::from(&*self.inner).shutdown(std::net::Shutdown::Both);
    }
}
