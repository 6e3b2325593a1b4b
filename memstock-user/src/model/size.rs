//! Reads and formats sizes. A limit is read as the kernel reads `memory.max` (`page_counter_memparse`), so that a value
//! can be moved between the two. Does not know what a size is for.

/// A text that is not a size, or a size that no counter can hold.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SizeError {
    /// Not a number with an optional suffix, nor "max".
    #[error(
        "{0:?} is not a size: give a number of bytes with an optional suffix K, M, G, T, P or E, \
         or \"max\""
    )]
    NotASize(String),
    /// More bytes than 64 bits can count.
    #[error("{0:?} is too large: 64 bits count less than 16E bytes; give \"max\" for no limit")]
    TooLarge(String),
}

/// Converts bytes to whole pages, rounded down; `None` means no limit.
///
/// Takes decimal, `0x` hexadecimal and `0` octal numbers, as the kernel's `memparse` does; and sizes as memstock prints
/// them and Kubernetes writes them: `46.7MiB`, `512Mi`. The kernel also takes an empty text and a lone suffix as 0, and
/// wraps around silently; those are errors here. "-1" is what v1 wrote for "max". A limit that the kernel's counter
/// would clamp is no limit either.
///
/// # Errors
///
/// When `text` is anything else, or overflows.
pub fn parse_size(text: &str) -> Result<Option<u64>, SizeError> {
    // The kernel strips white space from limits, too.
    let size = text.trim_ascii();
    if matches!(size, "max" | "-1") {
        return Ok(None);
    }
    let not_a_size = || SizeError::NotASize(text.into());
    let (number, shift) = split(size).ok_or_else(not_a_size)?;
    let bytes = match number.split_once('.') {
        Some((whole, tenth)) => {
            // With a leading 0, a number is octal.
            let is_octal = whole.len() > 1 && whole.starts_with('0');
            let is_tenth = tenth.len() == 1 && shift > 0 && !is_octal;
            let [whole, tenth] = [whole, tenth].map(str::parse::<u64>);
            let (Ok(whole), Ok(tenth), true) = (whole, tenth, is_tenth) else {
                return Err(not_a_size());
            };
            u64::try_from((u128::from(whole) * 10 + u128::from(tenth)) * (1 << shift) / 10).ok()
        }
        None => {
            let (digits, radix) = radix_of(number);
            if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(radix)) {
                return Err(not_a_size());
            }
            // Only digits are left, so the only possible error is overflow.
            let number = u64::from_str_radix(digits, radix).ok();
            number.and_then(|number| number.checked_mul(1 << shift))
        }
    };
    let bytes = bytes.ok_or_else(|| SizeError::TooLarge(text.into()))?;

    let page = rustix::param::page_size() as u64;
    // PAGE_COUNTER_MAX: the kernel shows "max" for it.
    let unlimited = i64::MAX as u64 / page;
    Ok(Some(bytes / page).filter(|&nr_pages| nr_pages < unlimited))
}

/// The number, and by how many bits its suffix shifts it.
fn split(size: &str) -> Option<(&str, u32)> {
    // In hexadecimal an E is a digit, not a suffix, as in the kernel.
    let is_hex = size.starts_with("0x") || size.starts_with("0X");
    let is_digit = |c: char| {
        c.is_ascii_digit() || c == '.' || is_hex && (c.is_ascii_hexdigit() || "xX".contains(c))
    };
    let end = size.find(|c| !is_digit(c)).unwrap_or(size.len());
    let (number, suffix) = size.split_at(end);
    Some((number, shift_of(suffix)?))
}

/// The digits without their prefix, and the base. "08" is octal and thus not a number.
fn radix_of(size: &str) -> (&str, u32) {
    match size.strip_prefix("0x").or_else(|| size.strip_prefix("0X")) {
        Some(hex) => (hex, 16),
        None if size.starts_with('0') => (size, 8),
        None => (size, 10),
    }
}

fn shift_of(suffix: &str) -> Option<u32> {
    let letter = suffix.strip_suffix("iB").or_else(|| suffix.strip_suffix('i'));
    Some(match letter.filter(|letter| !letter.is_empty()).unwrap_or(suffix) {
        "" => 0,
        "K" | "k" => 10,
        "M" | "m" => 20,
        "G" | "g" => 30,
        "T" | "t" => 40,
        "P" | "p" => 50,
        "E" | "e" => 60,
        _ => return None,
    })
}

/// Formats bytes with a unit, to one decimal: `0B`, `4.0KiB`, `1.5GiB`.
pub fn human(bytes: u64) -> String {
    rounded(bytes, |scale| scale / 2)
}

/// The same, rounded up: for the smallest limit that is enough.
pub fn human_up(bytes: u64) -> String {
    rounded(bytes, |scale| scale - 1)
}

fn rounded(bytes: u64, more: impl Fn(u128) -> u128) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes}B");
    }
    let mut unit = 0;
    loop {
        // In 128-bit integers: a float would round 1023.99KiB up to "1024.0KiB".
        let scale = 1024_u128 << (10 * unit);
        let tenths = (u128::from(bytes) * 10 + more(scale)) / scale;
        if tenths < 10 * 1024 || unit + 1 == UNITS.len() {
            return format!("{}.{}{}", tenths / 10, tenths % 10, UNITS[unit]);
        }
        unit += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_the_kernel_reads_them() {
        let page = rustix::param::page_size() as u64;
        let pages = |bytes: u64| Some(bytes / page);
        for (text, expected) in [
            ("0", Some(0)),
            ("1", Some(0)),
            ("00", Some(0)),
            ("max", None),
            ("-1", None),
            ("max\n", None),
            (" 64M ", pages(64 << 20)),
            ("65535", pages(65535)),
            ("65536", pages(65536)),
            ("64k", pages(64 << 10)),
            ("64K", pages(64 << 10)),
            ("3m", pages(3 << 20)),
            ("3G", pages(3 << 30)),
            ("2T", pages(2 << 40)),
            ("1p", pages(1 << 50)),
            ("7E", pages(7 << 60)),
            ("0x10000", pages(65536)),
            ("0X40k", pages(65536)),
            // The E is a digit here.
            ("0x1E", Some(0)),
            ("0xfffffK", pages(0xfffff << 10)),
            ("0200000", pages(0o200000)),
            ("0100K", pages(64 << 10)),
            ("0K", Some(0)),
            // Above what the kernel's counter can hold.
            ("9223372036854775807", None),
            ("8E", None),
            ("18446744073709551615", None),
            ("15E", None),
            ("46.7MiB", pages(46 * (1 << 20) + 7 * (1 << 20) / 10)),
            ("0.5G", pages(1 << 29)),
            ("512Mi", pages(512 << 20)),
            ("64kiB", pages(64 << 10)),
            ("15.9EiB", None),
        ] {
            assert_eq!(parse_size(text), Ok(expected), "{text:?}");
        }
        let last = i64::MAX as u64 / page * page - 1;
        assert_eq!(parse_size(&last.to_string()), Ok(pages(last)));
        assert_eq!(parse_size(&(last + 1).to_string()), Ok(None));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "", " ", "K", "x", "0x", "0xK", "0xg", "08", "09K", "12Q", "12KB", "12iB", "12B",
            "1.5", "+1", "-2", "- 1", "MAX", "Max", "maxx", "1 K", "1_000", "1e3", "١", "K1",
            "0b1", "1KK", "1\0", "1\u{a0}", "1.25G", "1.05G", "1.00G", "08.5M", ".5G", "1.G",
            "1..5G", "0x1.5G",
        ] {
            assert_eq!(parse_size(text), Err(SizeError::NotASize(text.into())), "{text:?}");
        }
        for text in [
            "16E",
            "16.0EiB",
            "0x10000000000000000",
            "18446744073709551616",
            "18446744073709551615K",
            "02000000000000000000000",
            "99999999999999999999999999999999999999999999",
        ] {
            assert_eq!(parse_size(text), Err(SizeError::TooLarge(text.into())), "{text:?}");
        }
    }

    #[test]
    fn errors_are_one_line() {
        assert_eq!(
            parse_size("12Q").unwrap_err().to_string(),
            "\"12Q\" is not a size: give a number of bytes with an optional suffix K, M, G, T, P or \
             E, or \"max\""
        );
        assert!(!parse_size("1\n2\x1b").unwrap_err().to_string().contains(['\n', '\x1b']));
    }

    #[test]
    fn bytes_are_shown_with_a_unit() {
        for (bytes, expected) in [
            (0, "0B"),
            (1, "1B"),
            (1023, "1023B"),
            (1024, "1.0KiB"),
            (4096, "4.0KiB"),
            (1536 << 20, "1.5GiB"),
            ((1 << 20) - 52, "1023.9KiB"),
            ((1 << 20) - 1, "1.0MiB"),
            (1 << 20, "1.0MiB"),
            (100 << 20, "100.0MiB"),
            ((1 << 40) - 1, "1.0TiB"),
            (1 << 50, "1.0PiB"),
            (1 << 60, "1.0EiB"),
            (u64::MAX, "16.0EiB"),
        ] {
            assert_eq!(human(bytes), expected, "{bytes}");
        }
    }
}
