//! A FUSE file system with one file, `file`, in a mount namespace of its own, as a pod with an rclone or s3fs sidecar
//! has. It can be set to answer no read, like a dead NFS server.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEntry, ReplyOpen, Request,
    Session,
};
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::lines::send;
use crate::PAGE;

/// Pages of the file.
const PAGES: u64 = 256;
/// The kernel caches nothing and asks the server each time.
const NOT_KEPT: Duration = Duration::ZERO;

struct OneFile {
    /// Keeps reads that are never answered; `None` to answer them.
    unanswered: Option<Mutex<Vec<ReplyData>>>,
}

fn attributes(ino: INodeNo) -> FileAttr {
    let is_root = ino == INodeNo::ROOT;
    let (kind, perm) =
        if is_root { (FileType::Directory, 0o755) } else { (FileType::RegularFile, 0o644) };
    let size = if is_root { 0 } else { PAGES * PAGE };
    let time = UNIX_EPOCH;
    FileAttr {
        ino,
        size,
        blocks: size / 512,
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
        kind,
        perm,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        flags: 0,
        blksize: PAGE as u32,
    }
}

impl Filesystem for OneFile {
    fn lookup(&self, _: &Request, _parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name == "file" {
            reply.entry(&NOT_KEPT, &attributes(INodeNo(2)), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&NOT_KEPT, &attributes(ino));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // A direct read waits for the server itself, and no signal ends that.
        let flags = if self.unanswered.is_some() {
            FopenFlags::FOPEN_DIRECT_IO
        } else {
            FopenFlags::empty()
        };
        reply.opened(FileHandle(0), flags);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match &self.unanswered {
            // Dropping the reply would answer it.
            Some(unanswered) => unanswered.lock().map_or((), |mut kept| kept.push(reply)),
            None => {
                let left = (PAGES * PAGE).saturating_sub(offset).min(size.into());
                reply.data(&vec![1; left as usize]);
            }
        }
    }
}

/// Mounts it at `dir`, prints `ready`, and serves until it is killed. If `silent`, it never answers reads.
///
/// # Errors
/// When there is no FUSE, or it may not mount.
pub fn serve(dir: &Path, silent: bool) -> Result<()> {
    // SAFETY: nothing of this process refers to its mounts yet.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.context("a mount namespace")?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).context("private mounts")?;
    let mut config = Config::default();
    config.mount_options.push(MountOption::FSName("memstock-test".into()));
    let unanswered = silent.then(Mutex::default);
    let session = Session::new(OneFile { unanswered }, dir, &config).context("mounting FUSE")?;
    let serving = session.spawn().context("serving")?;
    send(b"ready\n")?;
    serving.join().context("serving")
}
