//! Two processes that share their memory, as between a vfork(2) and the exec, also when systemd starts a service. This
//! one owns the memory; the other one touches it on command:
//!
//! | command | what it does | reply |
//! |---|---|---|
//! | | starts the other | its process id |
//! | `touch` | the other writes to the pages | `ok` |
//! | `end` | the other ends | `ok` |

use std::io;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::lines::{Lines, send};
use super::pages::Mapping;

/// Commands to the other process and its replies, in the shared memory.
static STEP: AtomicU32 = AtomicU32::new(WAIT);
const WAIT: u32 = 0;
const TOUCH: u32 = 1;
const TOUCHED: u32 = 2;
const END: u32 = 3;

const POLL: Duration = Duration::from_millis(2);
const STACK_BYTES: usize = 64 << 10;

/// # Errors
/// When the other process cannot be started, or a pipe breaks.
pub fn run(nr_pages: usize) -> Result<()> {
    // Both are leaked: without `end`, the other process uses them until this one is gone.
    let mapping: &Mapping = Box::leak(Box::new(Mapping::new(nr_pages).context("mapping memory")?));
    let stack = Box::leak(Box::new([MaybeUninit::<u8>::uninit(); STACK_BYTES]));
    // Touched here, so that its pages are charged to this process.
    stack.fill(MaybeUninit::new(0));
    let top = stack.as_mut_ptr_range().end;
    // SAFETY: only the other process uses the stack, which like the mapping is never freed. `other` neither allocates
    // nor locks.
    let pid = unsafe {
        let flags = libc::CLONE_VM | libc::SIGCHLD;
        libc::clone(other, top.cast(), flags, std::ptr::from_ref(mapping).cast_mut().cast())
    };
    ensure!(pid > 0, "clone: {}", io::Error::last_os_error());
    send(format!("{pid}\n").as_bytes())?;
    let mut lines = Lines::new();
    while let Some(line) = lines.next()? {
        match line {
            "touch" => {
                STEP.store(TOUCH, SeqCst);
                while STEP.load(SeqCst) != TOUCHED {
                    sleep(POLL);
                }
            }
            "end" => {
                STEP.store(END, SeqCst);
                // SAFETY: waitpid writes nothing to a null pointer.
                let ended = unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
                ensure!(ended == pid, "waitpid: {}", io::Error::last_os_error());
            }
            _ => bail!("no such command: {line}"),
        }
        send(b"ok\n")?;
    }
    Ok(())
}

/// The other process. Ends with its parent at the latest.
extern "C" fn other(mapping: *mut libc::c_void) -> libc::c_int {
    // SAFETY: the mapping is the parent's, which waits meanwhile; the calls take numbers.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        loop {
            match STEP.load(SeqCst) {
                TOUCH => {
                    (*mapping.cast::<Mapping>()).touch();
                    STEP.store(TOUCHED, SeqCst);
                }
                END => return 0,
                _ => {
                    libc::usleep(2000);
                }
            }
        }
    }
}
