//! Cuts text by the columns that it takes on a terminal, and formats numbers briefly.

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// Shown for an unknown value.
pub const UNKNOWN: &str = "-";

/// Columns that `text` takes.
pub fn width(text: &str) -> usize {
    text.width()
}

/// `text` in at most `columns` columns; its end is cut off, and replaced by `…`.
pub fn cut(text: &str, columns: usize) -> String {
    if text.width() <= columns {
        return text.to_owned();
    }
    let Some(room) = columns.checked_sub(1) else { return String::new() };
    let mut taken = 0;
    let fits = |c: &char| {
        taken += c.width().unwrap_or(0);
        taken <= room
    };
    let mut out: String = text.chars().take_while(fits).collect();
    out.push('…');
    out
}

/// `text` in at most `columns` columns; its beginning is cut off, and replaced by `…`.
pub fn cut_front(text: &str, columns: usize) -> String {
    if text.width() <= columns {
        return text.to_owned();
    }
    let Some(room) = columns.checked_sub(1) else { return String::new() };
    let mut taken = 0;
    let fits = |(_, c): &(usize, char)| {
        taken += c.width().unwrap_or(0);
        taken <= room
    };
    let start = text.char_indices().rev().take_while(fits).last().map_or(text.len(), |(at, _)| at);
    format!("…{}", &text[start..])
}

/// A rate or count in at most six columns: `0`, `9999`, `12.3k`, `4.5M`.
pub fn short(value: f64) -> String {
    const UNITS: [&str; 5] = ["k", "M", "G", "T", "P"];
    if value < 9999.5 {
        return format!("{value:.0}");
    }
    let mut scaled = value / 1e3;
    let mut unit = 0;
    while scaled >= 999.95 && unit + 1 < UNITS.len() {
        scaled /= 1e3;
        unit += 1;
    }
    format!("{scaled:.1}{}", UNITS[unit])
}

/// A part of a whole as a percentage with one decimal.
pub fn percent(part: f64) -> String {
    format!("{:.1}", 100.0 * part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cutting_is_by_columns() {
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("abcd", 3), "ab…");
        assert_eq!(cut("abcd", 1), "…");
        assert_eq!(cut("abcd", 0), "");
        // Two columns each: a character that would be cut in half is left out.
        assert_eq!(cut("日本語", 6), "日本語");
        assert_eq!(cut("日本語", 5), "日本…");
        assert_eq!(cut("日本語", 4), "日…");
        assert_eq!(cut_front("/a/bcd", 4), "…bcd");
        assert_eq!((cut_front("/a", 2), cut_front("/ab", 1)), ("/a".into(), "…".into()));
        assert_eq!((cut_front("日本語", 4), cut_front("日本語", 0)), ("…語".into(), String::new()));
        for columns in 0..12 {
            for cut in [cut, cut_front] {
                assert!(width(&cut("e\u{301}日本\u{200b}語x", columns)) <= columns, "{columns}");
            }
        }
    }

    #[test]
    fn numbers_are_short() {
        for (value, expected) in [
            (0.0, "0"),
            (0.6, "1"),
            (9999.4, "9999"),
            (9999.6, "10.0k"),
            (12_345.0, "12.3k"),
            (999_949.0, "999.9k"),
            (999_960.0, "1.0M"),
            (4.56e6, "4.6M"),
            (1e18, "1000.0P"),
        ] {
            assert_eq!(short(value), expected, "{value}");
        }
        assert_eq!(percent(0.96875), "96.9");
    }
}
