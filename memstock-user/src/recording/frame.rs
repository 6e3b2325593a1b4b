//! Owns the frames of a recording: a kind, a length, a payload, and check sums of both, so that neither a file that was
//! cut nor one with a bit flipped passes for another. Must not know what is in them.

use std::io::{self, Write};

/// What a frame has in it.
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

/// Kind, length, and the check sum of these two.
const HEAD: usize = 12;
/// The check sum of the payload, behind it.
const TAIL: usize = 4;

/// Writes a frame, as a whole if the file takes it.
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

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next<'a> {
    /// A frame, and what is behind it.
    Frame(Kind, &'a [u8], &'a [u8]),
    /// The file ends here, maybe within a frame.
    Cut,
    /// What is here was never written so.
    Damaged,
}

/// Reads a frame.
pub(super) fn next(bytes: &[u8]) -> Next<'_> {
    // Where the host went down, a file system may have left zeroes for what it had no time to write.
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
