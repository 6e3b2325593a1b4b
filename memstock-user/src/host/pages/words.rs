//! Owns reading files that are arrays of native 64-bit words. Must not know what the words mean.

use rustix::io::{Errno, pread};
use std::fs::File;
use std::io;

/// Fills `words` from the file's word number `first` on; returns how many words there were: fewer than asked for only
/// at the end of the file.
///
/// # Errors
///
/// Those of pread(2); EINTR is retried.
pub(super) fn read(file: &File, first: u64, words: &mut [u64]) -> io::Result<usize> {
    let size = size_of::<u64>();
    let mut filled = 0;
    while filled < words.len() {
        // The kernel reads whole words only (`kpage_read`, `pagemap_read`).
        let offset = (first + filled as u64).checked_mul(size as u64).ok_or(Errno::OVERFLOW)?;
        match pread(file, bytes_of(&mut words[filled..]), offset) {
            Ok(0) => break,
            Ok(bytes) => filled += bytes / size,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(filled)
}

fn bytes_of(words: &mut [u64]) -> &mut [u8] {
    // SAFETY: the memory is the same, borrowed for as long; bytes need no alignment, every bit
    // pattern is a valid u64, and a slice's size in bytes fits into isize.
    unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), size_of_val(words)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn words_end_with_the_file() {
        let mut file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (1u64..=5).flat_map(u64::to_ne_bytes).collect();
        file.write_all(&bytes).unwrap();
        let mut words = [0; 3];
        assert_eq!((read(&file, 1, &mut words).unwrap(), words), (3, [2, 3, 4]));
        assert_eq!((read(&file, 4, &mut words).unwrap(), words), (1, [5, 3, 4]));
        assert_eq!(read(&file, 5, &mut words).unwrap(), 0);
        assert_eq!(read(&file, 0, &mut []).unwrap(), 0);
        let error = read(&file, u64::MAX / 8 + 1, &mut words).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::OVERFLOW.raw_os_error()));
    }
}
