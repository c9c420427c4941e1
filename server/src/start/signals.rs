//! SIGTERM and SIGINT stop the broker. They are blocked in every thread; one thread of its own waits for them.

use super::host::Event;
use anyhow::bail;
use std::{
    mem::MaybeUninit,
    sync::mpsc::Sender,
    time::{Duration, Instant},
};

/// Within this time of one signal another one is the same order: `timeout` signals its child, and then the child's group.
const SAME_ORDER: Duration = Duration::from_secs(1);

fn stopping() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the set that it is given, sigaddset takes an initialised one; the signals exist.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGTERM);
        libc::sigaddset(set.as_mut_ptr(), libc::SIGINT);
        set.assume_init()
    }
}

/// Blocks the signals in this thread and all that it starts.
///
/// # Errors
/// The kernel's.
pub fn block() -> anyhow::Result<()> {
    let set = stopping();
    // SAFETY: the set is initialised, and no old one is asked for.
    let result = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) };
    if result != 0 {
        bail!("signals can't be blocked: {}", std::io::Error::from_raw_os_error(result));
    }
    Ok(())
}

/// Tells of every signal that comes.
pub fn watch(events: Sender<Event>) {
    let wait = move || {
        let set = stopping();
        let mut last: Option<Instant> = None;
        loop {
            let mut signal = 0;
            // SAFETY: the set is initialised, and `signal` lives through the call.
            if unsafe { libc::sigwait(&set, &mut signal) } != 0 {
                continue;
            }
            if last.replace(Instant::now()).is_some_and(|last| last.elapsed() < SAME_ORDER) {
                continue;
            }
            let name = if signal == libc::SIGTERM { "SIGTERM" } else { "SIGINT" };
            if events.send(Event::Signal(name)).is_err() {
                return;
            }
        }
    };
    let _ = std::thread::Builder::new().name("signals".into()).spawn(wait);
}
