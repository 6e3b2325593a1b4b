//! Two processes with one memory, as vfork(2) and systemd's way to start services make them until the exec. This one owns
//! the memory; the other touches it, on command:
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

/// What the other one is told, and says: it sees the memory of this one.
static STEP: AtomicU32 = AtomicU32::new(WAIT);
const WAIT: u32 = 0;
const TOUCH: u32 = 1;
const TOUCHED: u32 = 2;
const END: u32 = 3;

const POLL: Duration = Duration::from_millis(2);
const STACK_BYTES: usize = 64 << 10;

/// # Errors
/// When there is no other process, or a pipe breaks.
pub fn run(nr_pages: usize) -> Result<()> {
    // Both stay to the end: without `end`, the other uses them until this process is gone.
    let mapping: &Mapping = Box::leak(Box::new(Mapping::new(nr_pages).context("mapping memory")?));
    let stack = Box::leak(Box::new([MaybeUninit::<u8>::uninit(); STACK_BYTES]));
    // It is to be this one's, whoever uses it.
    stack.fill(MaybeUninit::new(0));
    let top = stack.as_mut_ptr_range().end;
    // SAFETY: the stack is the other's alone, and like the mapping is never freed. `other` does nothing that allocates
    // or locks.
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
                // SAFETY: nothing is written through a null pointer.
                let ended = unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
                ensure!(ended == pid, "waitpid: {}", io::Error::last_os_error());
            }
            _ => bail!("no such command: {line}"),
        }
        send(b"ok\n")?;
    }
    Ok(())
}

/// Ends with its parent at the latest.
extern "C" fn other(mapping: *mut libc::c_void) -> libc::c_int {
    // SAFETY: the mapping of the parent, which waits; the calls take numbers.
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
