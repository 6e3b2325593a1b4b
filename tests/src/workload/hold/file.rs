//! Files that are written, copied and mapped: page cache of a disk or of a tmpfs.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek as _, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rustix::fs::sendfile;
use rustix::mm::{MapFlags, ProtFlags};

use super::Held;
use super::region::{PAGE_SIZE, Region, read_write};

/// The data to write. In the program's read-only data, so that writing needs no memory but the file's.
static ZEROS: [u8; 16 * PAGE_SIZE] = [0; 16 * PAGE_SIZE];

/// The files that a mode makes in a folder. Removed on `Drop` at the latest.
pub(super) struct Files {
    dir: PathBuf,
    made: Vec<(PathBuf, Option<File>)>,
}

impl Files {
    pub(super) fn new(dir: &Path) -> Result<Self> {
        Ok(Self { dir: dir.to_owned(), made: Vec::new() })
    }

    /// Makes a new file, open for reading and writing.
    fn make(&mut self, purpose: &str) -> Result<&File> {
        let path = self.dir.join(format!("memstock-hold-{}-{purpose}", std::process::id()));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .with_context(|| path.display().to_string())?;
        self.made.push((path, Some(file)));
        self.made.last().and_then(|(_, file)| file.as_ref()).context("just made")
    }

    fn close_last(&mut self) {
        if let Some((_, file)) = self.made.last_mut() {
            *file = None;
        }
    }

    /// Unlinks the files, then closes them, so that the closing frees the pages.
    fn remove(mut self) -> Result<()> {
        let made = std::mem::take(&mut self.made);
        made.into_iter().try_for_each(|(path, _)| {
            fs::remove_file(&path).with_context(|| path.display().to_string())
        })
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        for (path, _) in &self.made {
            let _ = fs::remove_file(path);
        }
    }
}

pub(super) fn write(mut files: Files, nr_pages: usize) -> Result<Held> {
    fill(files.make("file")?, nr_pages)?;
    Ok(Held::new(nr_pages, move || files.remove()))
}

/// Copies half by read(2) and write(2), half by sendfile(2). Not by copy_file_range(2): on file systems that share
/// blocks between files, the copy would have no page in the cache.
pub(super) fn copy(mut files: Files, nr_pages: usize) -> Result<Held> {
    let mut source = files.make("source")?.try_clone().context("a second descriptor")?;
    fill(&source, nr_pages)?;
    rustix::fs::seek(&source, rustix::fs::SeekFrom::Start(0)).context("back to the start")?;
    let mut copy = files.make("copy")?;
    {
        let mut buffer = Region::private(16)?;
        let mut left = nr_pages / 2;
        while left > 0 {
            let count = left.min(buffer.nr_pages());
            let bytes = &mut buffer.bytes()[..count * PAGE_SIZE];
            source.read_exact(bytes).context("reading the source")?;
            copy.write_all(bytes).context("writing the copy")?;
            left -= count;
        }
    }
    let mut left = nr_pages.div_ceil(2) * PAGE_SIZE;
    while left > 0 {
        let count = sendfile(copy, &source, None, left).context("sendfile")?;
        ensure!(count > 0, "the source ends {left} bytes too early");
        left -= count;
    }
    drop(source);
    Ok(Held::new(2 * nr_pages, move || files.remove()))
}

/// Leaves clean pages of files that are no longer open.
pub(super) fn read_and_close(mut files: Files, nr_pages: usize) -> Result<Held> {
    const EACH: usize = ZEROS.len() / PAGE_SIZE;
    let mut buffer = Region::private(EACH)?;
    for n in 0..nr_pages.div_ceil(EACH) {
        let mut file = files.make(&n.to_string())?;
        fill(file, EACH)?;
        file.sync_all().context("writing a file to the disk")?;
        rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed).context("fadvise")?;
        file.rewind().context("back to the start")?;
        file.read_exact(&mut buffer.bytes()[..EACH * PAGE_SIZE]).context("reading a file")?;
        files.close_last();
    }
    Ok(Held::new(nr_pages.div_ceil(EACH) * EACH, move || files.remove()))
}

pub(super) fn map_shared(mut files: Files, nr_pages: usize) -> Result<Held> {
    let file = files.make("mapped")?;
    file.set_len((nr_pages * PAGE_SIZE).try_into()?).context("the size of the file")?;
    let region = Region::of_file(file, nr_pages, read_write(), MapFlags::SHARED)?;
    region.write();
    Ok(Held::new(nr_pages, move || {
        region.unmap()?;
        files.remove()
    }))
}

/// Opens the file that another process has brought into the cache.
pub(super) fn cached(path: Option<&Path>, nr_pages: usize) -> Result<File> {
    let path = path.context("which file? Give it with --file")?;
    let file = File::open(path).with_context(|| path.display().to_string())?;
    let size = file.metadata().with_context(|| path.display().to_string())?.len();
    ensure!(size >= (nr_pages * PAGE_SIZE).try_into()?, "{} is too short", path.display());
    Ok(file)
}

/// Its pages are charged to whoever brought them into the cache.
pub(super) fn map_and_read(file: &File, nr_pages: usize) -> Result<Held> {
    let region = Region::of_file(file, nr_pages, ProtFlags::READ, MapFlags::PRIVATE)?;
    region.read();
    Ok(Held::region(0, region))
}

/// The copies are anonymous memory of this process.
pub(super) fn map_private(file: &File, nr_pages: usize) -> Result<Held> {
    let region = Region::of_file(file, nr_pages, read_write(), MapFlags::PRIVATE)?;
    region.write();
    Ok(Held::region(nr_pages, region))
}

/// Writes pages of zeros to the end of a file.
pub(crate) fn fill(mut file: &File, nr_pages: usize) -> Result<()> {
    let mut left = nr_pages * PAGE_SIZE;
    while left > 0 {
        let count = left.min(ZEROS.len());
        file.write_all(&ZEROS[..count]).context("writing a file")?;
        left -= count;
    }
    Ok(())
}
