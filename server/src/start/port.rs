//! Who listens on a port, by `/proc`: an operator is told what to stop, and a killed broker's port is told from one that
//! is in use. Its socket lives until the I/O of its rings has ended, and belongs to no process any more.

use std::{fmt, fs, os::unix::fs::MetadataExt, path::Path};

/// The state of a listening socket in `/proc/net/tcp`.
const LISTEN: &str = "0A";

/// What is known of a port's listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A running process.
    Process {
        /// Its id.
        pid: u32,
        /// Its name.
        name: String,
    },
    /// Another user's process, which can't be looked at.
    User(u32),
    /// No process: what is left of one that has ended.
    Nobody,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Owner::Process { pid, name } => write!(f, "process {pid} ({name}) listens on it"),
            Owner::User(uid) => write!(f, "a program of user {uid} listens on it"),
            Owner::Nobody => write!(f, "no process listens on it, but what has ended or an outgoing connection holds it"),
        }
    }
}

/// Who listens on `port`, on any address. [`Owner::Nobody`] also if nobody listens any more.
pub fn owner(port: u16) -> Owner {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| fs::read_to_string(table).unwrap_or_default());
    let own = fs::metadata("/proc/self").map_or(0, |metadata| metadata.uid());
    for (inode, uid) in tables.iter().flat_map(|table| listeners(table, port)) {
        if let Some(pid) = holder(inode) {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned();
            return Owner::Process { pid, name };
        }
        if own != 0 && uid != own {
            return Owner::User(uid);
        }
    }
    Owner::Nobody
}

/// Inode and user of each socket that listens on `port`.
fn listeners(table: &str, port: u16) -> Vec<(u64, u32)> {
    let socket = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let (_, local_port) = columns.get(1)?.rsplit_once(':')?;
        let listens = u16::from_str_radix(local_port, 16) == Ok(port) && columns.get(3) == Some(&LISTEN);
        let (uid, inode) = (columns.get(7)?.parse().ok()?, columns.get(9)?.parse().ok()?);
        listens.then_some((inode, uid))
    };
    table.lines().filter_map(socket).collect()
}

/// The process that has a socket open.
fn holder(inode: u64) -> Option<u32> {
    let socket = format!("socket:[{inode}]");
    let pids = fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let holds = |pid: &u32| {
        let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        open.into_iter().any(|fd| fs::read_link(fd.path()).is_ok_and(|link| link == Path::new(&socket)))
    };
    pids.into_iter().find(holds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn the_listener_of_a_port_is_found_and_a_free_port_has_none() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let Owner::Process { pid, name } = owner(port) else { panic!("we listen on it") };
        assert_eq!(pid, std::process::id());
        assert!(!name.is_empty());
        drop(listener);
        assert_eq!(owner(port), Owner::Nobody);
    }

    #[test]
    fn only_listening_sockets_of_the_port_count() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
                     0: 0100007F:2384 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 123456 1 0\n   \
                     1: 0100007F:2384 0100007F:D431 01 00000000:00000000 00:00000000 00000000  1000        0 123457 1 0\n   \
                     2: 0100007F:2385 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 123458 1 0\n   3: torn";
        assert_eq!(listeners(table, 9092), [(123_456, 1000)]);
    }
}
