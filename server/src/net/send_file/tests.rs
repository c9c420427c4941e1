use super::{Residency, TURN_BYTES_MAX, is_resident, send_range};
use crate::{
    api::Part,
    net::{Socket, run},
};
use bytes::Bytes;
use std::{
    cell::{Cell, RefCell},
    fs::File,
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    os::fd::{AsRawFd, OwnedFd},
    thread::{JoinHandle, spawn},
    time::Duration,
};

/// A connection over loopback with buffers as small as the kernel makes them: every send is partial.
fn narrow_pair() -> (Socket, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    socket2::SockRef::from(&listener).set_recv_buffer_size(1).unwrap();
    let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    socket2::SockRef::from(&ours).set_send_buffer_size(1).unwrap();
    ours.set_nonblocking(true).unwrap();
    let (theirs, _) = listener.accept().unwrap();
    (Socket::new(OwnedFd::from(ours)), theirs)
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|index| ((index / 7) ^ (index / 4099)) as u8).collect()
}

fn file_of(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

/// Reads until the end, pausing now and then.
fn slow_reader(mut stream: TcpStream) -> JoinHandle<Vec<u8>> {
    spawn(move || {
        let mut all = Vec::new();
        let mut part = [0; 9973];
        loop {
            match stream.read(&mut part).unwrap() {
                0 => return all,
                length => all.extend_from_slice(&part[..length]),
            }
            if all.len() % 7 == 0 {
                std::thread::sleep(Duration::from_micros(200));
            }
        }
    })
}

#[derive(Default)]
struct Fake {
    /// Ranges become resident when they have been waited for; never otherwise.
    arrives: bool,
    beside_producers: bool,
    resident: Cell<bool>,
    asked: RefCell<Vec<(u64, usize)>>,
    waited: Cell<usize>,
}

impl Residency for Fake {
    type Place<'a> = ();
    async fn place(&self) -> Option<()> {
        self.beside_producers.then_some(())
    }
    fn resident(&self, _position: u64, _len: usize) -> bool {
        self.resident.get()
    }
    async fn ask(&self, position: u64, len: usize) {
        self.asked.borrow_mut().push((position, len));
    }
    async fn arrive(&self, _position: u64, _len: usize) {
        self.waited.set(self.waited.get() + 1);
        self.resident.set(self.arrives);
        tokio::time::sleep(Duration::from_micros(100)).await;
    }
}

fn resident() -> Fake {
    Fake { resident: Cell::new(true), ..Fake::default() }
}

#[test]
fn a_range_arrives_whole_whatever_the_socket_takes_at_once() {
    let content = pattern(3 * TURN_BYTES_MAX + 4321);
    let file = file_of(&content);
    let (socket, theirs) = narrow_pair();
    let reader = slow_reader(theirs);
    let steps = Cell::new(0);
    run(async {
        let cache = resident();
        send_range(&socket, file.as_raw_fd(), 123, content.len() - 123, &cache, |sent| steps.set(steps.get() + sent)).await.unwrap();
        assert!(cache.asked.borrow().is_empty(), "what is resident is not asked for");
        socket.shutdown(Shutdown::Write);
    })
    .unwrap();
    assert_eq!(steps.get(), content.len() - 123);
    assert!(reader.join().unwrap() == content[123..], "the bytes of the range, in order");
}

#[test]
fn memory_and_files_keep_their_order() {
    let content = pattern(600_000);
    let file = file_of(&content);
    let (socket, theirs) = narrow_pair();
    let reader = slow_reader(theirs);
    run(async {
        let parts = |range: std::ops::Range<usize>| {
            content[range].chunks(1009).map(|part| Part::Bytes(Bytes::copy_from_slice(part))).chain([Part::Bytes(Bytes::new())]).collect()
        };
        socket.send(parts(0..200_000), true, |_| {}).await.unwrap();
        send_range(&socket, file.as_raw_fd(), 200_000, 300_000, &resident(), |_| {}).await.unwrap();
        socket.send(parts(500_000..600_000), false, |_| {}).await.unwrap();
        socket.send(Vec::new(), false, |_| {}).await.unwrap();
        socket.shutdown(Shutdown::Write);
    })
    .unwrap();
    assert!(reader.join().unwrap() == content, "one ordered stream");
}

#[test]
fn what_is_not_resident_is_asked_for_once_and_waited_for() {
    let content = pattern(100_000);
    let file = file_of(&content);
    let (socket, theirs) = narrow_pair();
    let reader = slow_reader(theirs);
    run(async {
        let cache = Fake { arrives: true, ..Fake::default() };
        send_range(&socket, file.as_raw_fd(), 0, content.len(), &cache, |_| {}).await.unwrap();
        assert_eq!((cache.asked.borrow().as_slice(), cache.waited.get()), (&[(0, content.len())][..], 1));
        socket.shutdown(Shutdown::Write);
    })
    .unwrap();
    assert!(reader.join().unwrap() == content);
}

#[test]
fn beside_producers_no_more_than_a_turn_is_asked_for_at_once() {
    let content = pattern(3 * TURN_BYTES_MAX);
    let file = file_of(&content);
    let (socket, theirs) = narrow_pair();
    let reader = slow_reader(theirs);
    run(async {
        let cache = Fake { beside_producers: true, ..Fake::default() };
        send_range(&socket, file.as_raw_fd(), 0, content.len(), &cache, |_| {}).await.unwrap();
        assert!(cache.asked.borrow().iter().all(|(_, length)| *length <= TURN_BYTES_MAX));
        socket.shutdown(Shutdown::Write);
    })
    .unwrap();
    assert!(reader.join().unwrap() == content);
}

#[test]
fn what_never_becomes_resident_is_sent_all_the_same() {
    let content = pattern(TURN_BYTES_MAX + 1);
    let file = file_of(&content);
    let (socket, theirs) = narrow_pair();
    let reader = slow_reader(theirs);
    run(async {
        let cache = Fake::default();
        send_range(&socket, file.as_raw_fd(), 0, content.len(), &cache, |_| {}).await.unwrap();
        assert!(cache.waited.get() > 0);
        socket.shutdown(Shutdown::Write);
    })
    .unwrap();
    assert!(reader.join().unwrap() == content);
}

#[test]
fn a_file_that_is_shorter_than_it_should_be_is_an_error() {
    let file = file_of(&pattern(1000));
    let (socket, theirs) = narrow_pair();
    let reader = slow_reader(theirs);
    let error = run(async {
        let error = send_range(&socket, file.as_raw_fd(), 0, 2000, &resident(), |_| {}).await.unwrap_err();
        socket.shutdown(Shutdown::Both);
        error
    });
    assert_eq!(error.unwrap().kind(), ErrorKind::UnexpectedEof);
    assert_eq!(reader.join().unwrap().len(), 1000);
}

#[test]
fn a_peer_that_dies_in_the_middle_is_an_error() {
    let content = pattern(8 * TURN_BYTES_MAX);
    let file = file_of(&content);
    for memory in [false, true] {
        let (socket, mut theirs) = narrow_pair();
        let reader = spawn(move || {
            theirs.read_exact(&mut [0; 50_000]).unwrap();
            // Unread bytes make this a reset.
        });
        let result = run(async {
            if memory {
                socket.send(vec![Part::Bytes(Bytes::copy_from_slice(&content))], false, |_| {}).await
            } else {
                send_range(&socket, file.as_raw_fd(), 0, content.len(), &resident(), |_| {}).await
            }
        });
        assert!(result.unwrap().is_err());
        reader.join().unwrap();
    }
}

#[test]
fn a_shutdown_ends_a_sending_that_the_peer_does_not_take() {
    let content = pattern(8 * TURN_BYTES_MAX);
    let file = file_of(&content);
    for memory in [false, true] {
        let (socket, theirs) = narrow_pair();
        let result = run(async {
            tokio::task::spawn_local({
                let socket = socket.clone();
                async move {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    socket.shutdown(Shutdown::Both);
                }
            });
            if memory {
                socket.send(vec![Part::Bytes(Bytes::copy_from_slice(&content))], false, |_| {}).await
            } else {
                send_range(&socket, file.as_raw_fd(), 0, content.len(), &resident(), |_| {}).await
            }
        });
        assert!(result.unwrap().is_err());
        drop(theirs);
    }
}

#[test]
fn a_shutdown_ends_a_receive_in_flight_and_a_hangup_is_seen() {
    let (socket, mut theirs) = narrow_pair();
    run(async {
        theirs.write_all(b"abc").unwrap();
        let (result, buffer) = socket.receive(Vec::with_capacity(16), 16, false).await;
        assert_eq!((result.unwrap(), buffer.as_slice()), (3, &b"abc"[..]));
        let watcher = tokio::task::spawn_local({
            let socket = socket.clone();
            async move { socket.hangup().await }
        });
        tokio::task::spawn_local({
            let socket = socket.clone();
            async move {
                tokio::time::sleep(Duration::from_millis(20)).await;
                socket.shutdown(Shutdown::Both);
            }
        });
        let (result, buffer) = socket.receive(buffer, 13, true).await;
        assert_eq!((result.unwrap(), buffer.as_slice()), (0, &b"abc"[..]));
        watcher.await.unwrap().unwrap();
    })
    .unwrap();
}

#[test]
fn residency_is_what_the_kernel_says() {
    let path = tempfile::NamedTempFile::new_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    std::fs::write(path.path(), pattern(1 << 20)).unwrap();
    let file = File::open(path.path()).unwrap();
    file.sync_all().unwrap();
    assert!(is_resident(file.as_raw_fd(), 5, 1_000_000), "just written");
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    assert!(!is_resident(file.as_raw_fd(), 5, 1_000_000), "dropped");
    (&file).read_exact(&mut [0; 4096]).unwrap();
    assert!(is_resident(file.as_raw_fd(), 5, 4000), "read again");
}
