//! Where to listen, and what to tell clients.

use anyhow::{Context, bail};

/// A host with or without a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// A name or an address, without brackets.
    pub host: String,
    /// The port.
    pub port: Option<u16>,
}

impl Address {
    /// Reads `HOST`, `HOST:PORT`, `[V6]:PORT`, or one of Kafka's listeners (`PLAINTEXT://HOST:PORT`).
    ///
    /// # Errors
    /// It is none of these; or a port alone, several listeners, or one with TLS or SASL.
    pub fn parse(text: &str) -> anyhow::Result<Address> {
        let text = text.trim();
        if text.contains(',') {
            bail!("one address; the cores follow on the ports above it");
        }
        let address = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("PLAINTEXT") => rest,
            Some((scheme, _)) => bail!("{scheme}:// is not supported, only PLAINTEXT://"),
            None => text,
        };
        if !address.is_empty() && address.bytes().all(|byte| byte.is_ascii_digit()) {
            bail!("it has no host: localhost:{address} for this machine only, 0.0.0.0:{address} for all of its addresses");
        }
        let (host, port) = match address.strip_prefix('[') {
            Some(rest) => {
                let (host, rest) = rest.split_once(']').context("a [ without its ]")?;
                (host, rest.strip_prefix(':'))
            }
            // More than one colon without brackets is an IPv6 address without a port.
            None if address.matches(':').count() > 1 => (address, None),
            None => match address.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (address, None),
            },
        };
        let port = port.map(|port| port.parse().with_context(|| format!("{port:?} is not a port, a number up to 65535"))).transpose()?;
        // Kafka: no host is all of them.
        let host = if host.is_empty() { "0.0.0.0" } else { host };
        Ok(Address { host: host.into(), port })
    }

    /// Whether it means every address of the machine.
    #[must_use]
    pub fn is_wildcard(&self) -> bool {
        self.host.parse().is_ok_and(|address: std::net::IpAddr| address.is_unspecified()) || self.host == "*"
    }
}
