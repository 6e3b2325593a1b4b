//! An artificial recording whose figures, and so the verdicts on it, can be computed by hand.

use std::fs::File as Disk;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use memstock::recording::{
    Access, AccessKind, End, File, Header, Holder, Lru, Moment, Peak, Writer,
};
use memstock_common::record::{BLOCK_PAGES, block_hash, is_followed};

/// Pages in a MiB.
const MIB: u64 = 256;
/// The sampling rate: one page of the file stands for this many.
const ONE_IN: u32 = 256;
/// The key of the hash of the file's blocks.
const KEY: u64 = 0;

/// Writes a recording of twenty seconds: 100 MiB are needed, and 200 MiB for one second from second 5, by `cc1plus`.
/// 40 MiB of `/usr/lib/cc1` are read at second 1 and again at second 9. Reading a page takes 200 µs.
pub fn write(file: &Path) -> Result<()> {
    let at = Duration::from_secs;
    let header = Header {
        version: "0.0.0".into(),
        host: "made-up".into(),
        kernel: "6.18.0".into(),
        lru: Lru::Classic,
        cpus: 2,
        page_size: 4096,
        cgroup: "/made-up".into(),
        command: vec!["make".into(), "-j4".into()],
        ..Header::default()
    };
    let mut to = Writer::new(Disk::create(file)?, &header)?;
    let number = to.file(
        &File { device: 1, inode: 2, path: Some("/usr/lib/cc1".into()), is_program: false },
        KEY,
    )?;
    let moment = |seconds, usage: u64, needed: u64| Moment {
        at: at(seconds),
        usage: usage * MIB,
        needed: needed * MIB,
        file: (usage - needed) * MIB,
        ..Moment::default()
    };
    let followed: Vec<_> = (0_u64..)
        .filter(|&block| is_followed(block_hash(KEY, block), ONE_IN))
        .take(3)
        .map(|block| block * BLOCK_PAGES)
        .collect();
    // 40 pages in three blocks.
    let accesses = |seconds, kind| {
        let runs = followed.iter().zip([16, 16, 8]);
        let access = move |(&index, pages)| Access {
            at: at(seconds),
            file: number,
            index,
            pages,
            one_in: ONE_IN,
            kind,
        };
        runs.map(access).collect::<Vec<_>>()
    };
    to.moment(&moment(0, 100, 100))?;
    for access in [accesses(1, AccessKind::Added), accesses(1, AccessKind::Read)].concat() {
        to.access(&access)?;
    }
    to.moment(&moment(5, 300, 200))?;
    let tasks = vec![Holder { pid: 7, comm: "cc1plus".into(), badness: 1, anon: 90 * MIB }];
    to.peak(&Peak { at: at(5), needed: 200 * MIB, tasks })?;
    to.moment(&moment(6, 140, 100))?;
    for access in accesses(9, AccessKind::Read) {
        to.access(&access)?;
    }
    to.end(&End { at: at(20), code: Some(0), read_ns_per_page: Some(200_000), ..End::default() })?;
    Ok(())
}
