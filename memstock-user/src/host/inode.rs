//! Opens files by inode number, even if nobody has them open or their names are unknown.
//!
//! Only on file systems on a disk of this host: any other may depend on a server, or on a process of the very cgroup
//! that is at its limit. `/proc/self/mountinfo` says which those are, and depends on nobody.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd as _, FromRawFd as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::PathBuf;

use anyhow::Result;
use rustix::io::{ReadWriteFlags, preadv2};

use super::mountinfo::{self, Mount};

/// A file, by its inode.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Inode {
    /// The device, as the kernel numbers it.
    pub(crate) device: u32,
    /// The inode number.
    pub(crate) number: u64,
    /// The generation of that inode number.
    pub(crate) generation: u32,
}

/// File systems on disks, and the layout of their file handles.
const LOCAL: [(&str, Handles); 5] = [
    ("ext2", Handles::Short),
    ("ext3", Handles::Short),
    ("ext4", Handles::Short),
    ("f2fs", Handles::Short),
    ("xfs", Handles::Xfs),
];

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Handles {
    /// `FILEID_INO32_GEN`: the number, the generation.
    Short,
    /// The same with `XFS_FILEID_TYPE_64FLAG`: the number has 64 bits.
    Xfs,
}

/// The file systems of this host on which files can be opened.
pub(crate) struct FileSystems(BTreeMap<u32, (File, Handles)>);

impl FileSystems {
    pub(crate) fn find() -> Result<Self> {
        let mounts = mountinfo::read()?;
        let mut found = BTreeMap::new();
        for (device, handles, point) in local(&mounts) {
            if let Ok(dir) = File::open(point) {
                found.entry(device).or_insert((dir, handles));
            }
        }
        Ok(Self(found))
    }

    /// Opens a file for advice on its pages; `None` if it is gone, or cannot be opened this way.
    pub(crate) fn open(&self, inode: Inode) -> Option<File> {
        let found = self.find_inode(inode)?;
        let open = |flags| {
            let mut options = File::options();
            options.read(true).custom_flags(libc::O_NONBLOCK | flags).open(link_to(&found))
        };
        // Without CAP_FOWNER, only of one's own files.
        open(libc::O_NOATIME).or_else(|_| open(0)).ok()
    }

    /// Whether it is a program or a library (`ET_EXEC`, `ET_DYN`); false if that cannot be seen. Waits for no disk:
    /// of what is executed, the kernel has read the beginning.
    pub(crate) fn is_program(&self, inode: Inode) -> bool {
        let mut head = [0; 18];
        let read = |file: File| {
            preadv2(file, &mut [IoSliceMut::new(&mut head)], 0, ReadWriteFlags::NOWAIT).ok()
        };
        if self.open(inode).and_then(read) != Some(head.len()) || !head.starts_with(b"\x7fELF") {
            return false;
        }
        let kind = [head[16], head[17]];
        let is_little = head[5] == 1;
        let kind = if is_little { u16::from_le_bytes(kind) } else { u16::from_be_bytes(kind) };
        matches!(kind, 2 | 3)
    }

    /// The path of a file, as long as the kernel remembers it; for a removed file, its last path.
    pub(crate) fn path(&self, inode: Inode) -> Option<PathBuf> {
        let found = self.find_inode(inode)?;
        let path = fs::read_link(link_to(&found)).ok()?;
        if found.metadata().ok()?.nlink() > 0 {
            let there = fs::symlink_metadata(&path).ok()?;
            return (there.ino() == inode.number).then_some(path);
        }
        let was = path.as_os_str().as_bytes().strip_suffix(b" (deleted)")?;
        Some(OsStr::from_bytes(was).into())
    }

    /// A descriptor that only names a regular file (`O_PATH`).
    fn find_inode(&self, inode: Inode) -> Option<File> {
        let Inode { device, number, generation } = inode;
        let (dir, handles) = self.0.get(&device)?;
        let mut handle = match handles {
            Handles::Short => {
                Handle { bytes: 8, kind: 1, id: [u32::try_from(number).ok()?, generation, 0] }
            }
            Handles::Xfs => {
                let [low, high] = [number as u32, (number >> 32) as u32];
                Handle { bytes: 12, kind: 0x81, id: [low, high, generation] }
            }
        };
        let flags = libc::O_PATH | libc::O_CLOEXEC;
        // SAFETY: the kernel reads a handle of `bytes` bytes, which it has; it is of the layout of `struct file_handle`.
        let fd = unsafe {
            libc::syscall(libc::SYS_open_by_handle_at, dir.as_raw_fd(), &raw mut handle, flags)
        };
        let fd = i32::try_from(fd).ok().filter(|&fd| fd >= 0)?;
        // SAFETY: the descriptor is new, and nobody else's.
        let found = unsafe { File::from_raw_fd(fd) };
        // Opening anything but a regular file may have side effects.
        found.metadata().is_ok_and(|metadata| metadata.is_file()).then_some(found)
    }
}

fn link_to(file: &File) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

/// `struct file_handle`.
#[repr(C)]
struct Handle {
    bytes: u32,
    kind: i32,
    id: [u32; 3],
}

/// The local file systems among `mounts`, by device, with a mount point of each. Not below a mount of another kind: a
/// path through that may depend on a server.
fn local(mounts: &[Mount]) -> impl Iterator<Item = (u32, Handles, &PathBuf)> {
    let handles = |mount: &Mount| {
        let known = LOCAL.iter().find(|(name, _)| *name == mount.fs_type);
        known.map(|&(_, handles)| handles)
    };
    mounts.iter().filter_map(move |mount| {
        let is_on_way = |above: &&Mount| mount.point.starts_with(&above.point);
        let is_local = mounts.iter().filter(is_on_way).all(|above| {
            handles(above).is_some() || ["tmpfs", "devtmpfs", "rootfs"].contains(&&*above.fs_type)
        });
        let handles = handles(mount).filter(|_| is_local)?;
        Some((mount.device, handles, &mount.point))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_that_asks_others_is_not_gone() {
        let mount = |device, point: &str, fs_type: &str| Mount {
            device,
            root: "/".into(),
            point: point.into(),
            fs_type: fs_type.into(),
            source: Vec::new(),
        };
        let mounts = [
            mount(1, "/", "ext4"),
            mount(2, "/mnt", "fuse.sshfs"),
            mount(3, "/mnt/disk", "xfs"),
            mount(4, "/run/disk", "xfs"),
            mount(5, "/run", "tmpfs"),
            mount(6, "/mntx", "ext4"),
        ];
        let found: Vec<_> = local(&mounts).map(|(device, handles, _)| (device, handles)).collect();
        assert_eq!(found, [(1, Handles::Short), (4, Handles::Xfs), (6, Handles::Short)]);
    }

    /// Needs the tests to run on such a file system.
    #[test]
    fn a_file_is_opened_by_its_number() {
        let mut file = tempfile::NamedTempFile::new_in("/var/tmp").unwrap();
        std::io::Write::write_all(&mut file, b"here").unwrap();
        let (metadata, Ok(found)) = (file.as_file().metadata().unwrap(), FileSystems::find())
        else {
            return;
        };
        let dev = metadata.dev();
        let device = (libc::major(dev) << 20) | libc::minor(dev);
        let Some(generation) = generation(file.as_file()) else { return };
        let inode = Inode { device, number: metadata.ino(), generation };
        if memstock_tests::live::is_refused() || !found.0.contains_key(&device) {
            return;
        }
        let opened = found.open(inode).expect("it is there");
        assert_eq!(opened.metadata().unwrap().ino(), metadata.ino());
        let head = |kind| [b"\x7fELF\x02\x01\x01", &[0; 9][..], &[kind, 0, 62, 0]].concat();
        for (bytes, is_program) in
            [(b"here".into(), false), (head(1), false), (head(2), true), (head(3), true)]
        {
            file.as_file().set_len(0).unwrap();
            std::io::Seek::rewind(&mut file).unwrap();
            std::io::Write::write_all(&mut file, &bytes).unwrap();
            assert_eq!(found.is_program(inode), is_program, "{bytes:x?}");
        }
        assert!(found.open(Inode { generation: generation ^ 1, ..inode }).is_none());
        assert!(found.open(Inode { device: u32::MAX, ..inode }).is_none());
    }

    /// `FS_IOC_GETVERSION`.
    fn generation(file: &File) -> Option<u32> {
        let mut generation = 0_u32;
        // SAFETY: the kernel writes an int there.
        let done = unsafe { libc::ioctl(file.as_raw_fd(), 0x8008_7601, &raw mut generation) };
        (done == 0).then_some(generation)
    }
}
