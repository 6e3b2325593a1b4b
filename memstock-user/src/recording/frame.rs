//! The frames of a recording: kind, length, payload, and check sums of both parts, so that a file that was cut or has a
//! flipped bit is recognised. Does not know the contents.

use std::io::{self, Write};

/// What a frame contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Header = 1,
    Entries = 2,
    End = 3,
}

impl Kind {
    fn of(number: u32) -> Option<Self> {
        [Self::Header, Self::Entries, Self::End].into_iter().find(|&kind| kind as u32 == number)
    }
}

/// The most bytes of entries in one frame: several times what the writer puts into one.
const MOST_ENTRIES: usize = 64 << 10;
/// Entries repeat each other so much that the fastest level makes a third of them.
const LEVEL: u8 = 1;

/// Size of kind, length, and their check sum.
const HEAD: usize = 12;
/// Size of the check sum after the payload.
const TAIL: usize = 4;

/// Writes a frame in one piece.
pub(super) fn write(to: &mut impl Write, kind: Kind, payload: &[u8]) -> io::Result<()> {
    let len = u32::try_from(payload.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut frame = Vec::with_capacity(HEAD + payload.len() + TAIL);
    frame.extend((kind as u32).to_le_bytes());
    frame.extend(len.to_le_bytes());
    frame.extend(crc32fast::hash(&frame).to_le_bytes());
    frame.extend(payload);
    frame.extend(crc32fast::hash(payload).to_le_bytes());
    to.write_all(&frame)
}

/// The payload for these entries.
pub(super) fn pack(entries: &[u8]) -> Vec<u8> {
    miniz_oxide::deflate::compress_to_vec(entries, LEVEL)
}

/// The entries in a payload; none if nobody packed it, or if they have more than `most` bytes.
pub(super) fn unpack(payload: &[u8], most: usize) -> Option<Vec<u8>> {
    miniz_oxide::inflate::decompress_to_vec_with_limit(payload, most.min(MOST_ENTRIES)).ok()
}

/// What the next bytes are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next<'a> {
    /// A frame: kind, payload, and the bytes after the frame.
    Frame(Kind, &'a [u8], &'a [u8]),
    /// The file ends here, perhaps within a frame.
    Cut,
    /// The bytes are not a frame that was written.
    Damaged,
}

/// Reads the next frame.
pub(super) fn next(bytes: &[u8]) -> Next<'_> {
    // When the host crashes, a file system may leave zeroes for what it had no time to write.
    if bytes.iter().all(|&byte| byte == 0) {
        return Next::Cut;
    }
    let Some((head, rest)) = bytes.split_first_chunk::<HEAD>() else { return Next::Cut };
    let (about, sum) = head.split_at(HEAD - TAIL);
    if !is_sum(about, sum) {
        return Next::Damaged;
    }
    let number =
        |at: usize| about[at..at + 4].iter().rev().fold(0, |all, &byte| all << 8 | u32::from(byte));
    let Some(kind) = Kind::of(number(0)) else { return Next::Damaged };
    let Some((payload, rest)) = rest.split_at_checked(number(4) as usize) else { return Next::Cut };
    let Some((sum, rest)) = rest.split_at_checked(TAIL) else { return Next::Cut };
    if is_sum(payload, sum) { Next::Frame(kind, payload, rest) } else { Next::Damaged }
}

fn is_sum(bytes: &[u8], sum: &[u8]) -> bool {
    crc32fast::hash(bytes).to_le_bytes() == sum
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A few bytes can be compressed from any number of entries.
    #[test]
    fn a_frame_is_not_unpacked_without_end() {
        let few = [0; 1 << 10];
        assert_eq!(unpack(&pack(&few), few.len()).as_deref(), Some(&few[..]));
        let many = pack(&vec![0; 64 << 20]);
        assert!(many.len() < 1 << 20, "{}", many.len());
        assert_eq!(unpack(&many, usize::MAX), None);
        assert_eq!(unpack(&pack(&few), few.len() - 1), None);
        assert_eq!(unpack(b"not packed", usize::MAX), None);
    }
}
