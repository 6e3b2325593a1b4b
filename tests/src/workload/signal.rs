//! SIGINT and SIGTERM as a flag.

use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

static STOP: AtomicBool = AtomicBool::new(false);

extern "C" fn on_signal(_signal: libc::c_int) {
    STOP.store(true, Relaxed);
}

/// Makes SIGINT and SIGTERM set the flag instead of ending the process.
///
/// # Errors
/// When the kernel refuses.
pub fn catch() -> io::Result<()> {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let handler: extern "C" fn(libc::c_int) = on_signal;
        // SAFETY: an all-zero sigaction is valid: no flags, an empty mask. The handler
        // does one atomic store, which is async-signal-safe.
        let result = unsafe {
            let mut action = MaybeUninit::<libc::sigaction>::zeroed().assume_init();
            action.sa_sigaction = handler as libc::sighandler_t;
            libc::sigaction(signal, &action, ptr::null_mut())
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Whether one has come.
pub fn caught() -> bool {
    STOP.load(Relaxed)
}
