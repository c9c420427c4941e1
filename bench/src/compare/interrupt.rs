//! Ctrl-C and SIGTERM end a comparison as a failure does: what it started ends, and its data and topics are removed. A second
//! one ends it at once.

use anyhow::{Result, ensure};
use std::sync::atomic::{AtomicBool, Ordering};

static CAME: AtomicBool = AtomicBool::new(false);

extern "C" fn note(_signal: libc::c_int) {
    CAME.store(true, Ordering::Relaxed);
}

/// From now on a signal is noted, once.
pub fn watch() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: all zeros are a valid sigaction: an empty mask and no flags. The handler has the signature of one without
        // SA_SIGINFO, and only stores an atomic, which a handler may do. Programs that are started don't inherit handlers.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = note as extern "C" fn(libc::c_int) as libc::sighandler_t;
            action.sa_flags = libc::SA_RESETHAND | libc::SA_RESTART;
            libc::sigaction(signal, &action, std::ptr::null_mut());
        }
    }
}

/// To be asked wherever something is waited for.
///
/// # Errors
/// A signal came.
pub fn check() -> Result<()> {
    ensure!(!CAME.load(Ordering::Relaxed), "interrupted");
    Ok(())
}
