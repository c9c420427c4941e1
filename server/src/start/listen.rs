//! The ports of the cores. All are bound before anything else, and listened on when the logs are open: a client that
//! connects earlier is refused and tries again, instead of hanging.

use super::port::{self, Owner};
use crate::{config::Metrics, lock::SAY_AFTER, net::Listener};
use anyhow::{Context, anyhow, bail};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs},
    thread,
    time::{Duration, Instant},
};

/// How long a start waits for a port that no process holds: a killed broker's sockets live until the I/O of its rings has
/// ended, which takes milliseconds, and on a disk that is slow to flush as long as the flush.
const PORT_WAIT: Duration = Duration::from_secs(30);

/// How long it waits for a port that another broker holds.
const BROKER_WAIT: Duration = Duration::from_secs(5);

/// The name of the broker's process.
const BROKER: &str = "thalweg";

/// How often it looks meanwhile.
const PORT_RETRY: Duration = Duration::from_millis(20);

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// The same, for metrics.
const METRICS_BACKLOG: i32 = 16;

/// The bound sockets of a core.
pub struct Sockets {
    /// Their port.
    pub port: u16,
    sockets: Vec<(SocketAddr, Socket)>,
}

/// Binds the ports of all cores on every address of `host`.
///
/// # Errors
/// The host is unknown, or a port is taken.
pub fn bind(host: &str, ports: &[u16]) -> anyhow::Result<Vec<Sockets>> {
    let addresses = addresses(host)?;
    let until = Instant::now() + PORT_WAIT;
    ports.iter().enumerate().map(|(core, port)| bind_core(host, &addresses, core, *port, until)).collect()
}

/// Listens where metrics are to be served; `None` if they aren't. A taken port is an error only if the operator named it:
/// two brokers on one machine start without further ado.
///
/// # Errors
/// The host is unknown, or its port is taken.
pub fn metrics(wanted: &Metrics) -> anyhow::Result<Option<TcpListener>> {
    let Metrics::At { host, port, named } = wanted else { return Ok(None) };
    let address = SocketAddr::new(*addresses(host)?.first().context("a host has an address")?, *port);
    let until = if *named { Instant::now() + PORT_WAIT } else { Instant::now() };
    let listening = bind_patiently(address, until).and_then(|socket| socket.listen(METRICS_BACKLOG).map(|()| socket));
    match listening {
        Ok(socket) => Ok(Some(socket.into())),
        Err(error) if *named => bail!("metrics can't be served on {address} ({error}): name another --metrics HOST:PORT, or --metrics off"),
        Err(error) => {
            tracing::warn!("no metrics: {address} can't be listened on ({error}); --metrics HOST:PORT names another");
            Ok(None)
        }
    }
}

fn bind_core(host: &str, addresses: &[IpAddr], core: usize, port: u16, until: Instant) -> anyhow::Result<Sockets> {
    let mut bound = Sockets { port, sockets: Vec::new() };
    for address in addresses {
        let address = SocketAddr::new(*address, bound.port);
        match bind_patiently(address, until) {
            Ok(socket) => {
                bound.port = socket.local_addr()?.as_socket().map_or(port, |address| address.port());
                bound.sockets.push((address, socket));
            }
            // A machine without IPv6 still is localhost.
            Err(error) if host == "localhost" && address.is_ipv6() && is_absent(&error) => {}
            Err(error) => return Err(explain(error, address).context(format!("core {core}"))),
        }
    }
    if bound.sockets.is_empty() {
        bail!("no address of {host} can be listened on");
    }
    Ok(bound)
}

fn bind_patiently(address: SocketAddr, until: Instant) -> io::Result<Socket> {
    let (began, mut waits) = (Instant::now(), false);
    loop {
        let taken = match bind_one(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < until => error,
            bound => return bound,
        };
        let owner = port::owner(address.port());
        let is_leaving = match &owner {
            Owner::Nobody => true,
            // One that is being stopped, or was killed and is not gone yet.
            Owner::Process { name, .. } => name == BROKER && began.elapsed() < BROKER_WAIT,
            Owner::User(_) => false,
        };
        if !is_leaving {
            return Err(taken);
        }
        if began.elapsed() > SAY_AFTER && !std::mem::replace(&mut waits, true) {
            tracing::warn!("{address} is taken: {owner}; waiting for it");
        }
        thread::sleep(PORT_RETRY);
    }
}

fn bind_one(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of the last run that linger don't keep the port; another broker does.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

impl Sockets {
    /// Takes connections from now on.
    ///
    /// # Errors
    /// Another process was faster.
    pub fn listen(self) -> anyhow::Result<Vec<Listener>> {
        let listen = |(address, socket): (SocketAddr, Socket)| {
            socket.listen(BACKLOG).map_err(|error| explain(error, address))?;
            Ok(Listener::new(socket.into()))
        };
        self.sockets.into_iter().map(listen).collect()
    }
}

fn addresses(host: &str) -> anyhow::Result<Vec<IpAddr>> {
    if host == "localhost" {
        return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    if host == "*" {
        return Ok(vec![Ipv4Addr::UNSPECIFIED.into()]);
    }
    let found =
        (host, 0).to_socket_addrs().with_context(|| format!("the host {host:?} to listen on is not known: name one of this machine's"))?;
    let mut addresses: Vec<IpAddr> = found.map(|address| address.ip()).collect();
    addresses.sort();
    addresses.dedup();
    Ok(addresses)
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT))
}

fn explain(error: io::Error, address: SocketAddr) -> anyhow::Error {
    let remedy = match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "port {} is taken: {}. Stop it, or choose another port with --listen HOST:PORT; core N takes PORT + N, and --cores 1 \
             needs one port only",
            address.port(),
            port::owner(address.port())
        ),
        io::ErrorKind::PermissionDenied => format!("port {} needs privileges: use one above 1023", address.port()),
        io::ErrorKind::AddrNotAvailable => {
            format!("{} is not an address of this machine: listen on one that is, and --advertise what clients see", address.ip())
        }
        _ => format!("can't listen on {address}"),
    };
    anyhow!("{remedy} ({error})")
}
