//! Values of flags, and how they are written.

use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{OsStringValueParser, PossibleValuesParser, TypedValueParser};
use memstock_common::{MAX_BATCH, MAX_CGROUPS, MAX_SLOTS};

use crate::engine::kernel_cgroup::KernelCgroup;
use crate::forecast::rehearse::Kernel;
use crate::host::page_size;
use crate::model::size;

/// A value of `--limit`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Only for this cgroup.
    pub cgroup: Option<PathBuf>,
    /// Pages, or none for no limit.
    pub nr_pages: Option<u64>,
}

/// Splits `[CGROUP=]VALUE` at the last `=`: the name of a cgroup is bytes, and may contain `=`.
fn split(text: &OsStr) -> (Option<PathBuf>, &OsStr) {
    let bytes = text.as_bytes();
    match bytes.iter().rposition(|&byte| byte == b'=') {
        Some(at) => {
            let (cgroup, value) = (&bytes[..at], &bytes[at + 1..]);
            (Some(OsStr::from_bytes(cgroup).into()), OsStr::from_bytes(value))
        }
        None => (None, text),
    }
}

/// Reads `[CGROUP=]PATH`.
pub(super) fn kernel_cgroup() -> impl TypedValueParser<Value = KernelCgroup> {
    OsStringValueParser::new().try_map(|text| to_kernel_cgroup(&text))
}

fn to_kernel_cgroup(text: &OsStr) -> Result<KernelCgroup, String> {
    let (cgroup, path) = split(text);
    if path.is_empty() || cgroup.as_ref().is_some_and(|cgroup| cgroup.as_os_str().is_empty()) {
        return Err("an empty path names no cgroup".into());
    }
    Ok(KernelCgroup { cgroup, path: path.into() })
}

/// Pages, or none for no limit. An alias, because clap gives `Option<u64>` another meaning.
pub(super) type Limited = Option<u64>;

pub(super) fn limited(value: &str) -> Result<Limited, String> {
    size::parse_size(value).map_err(|error| error.to_string())
}

/// A limit in bytes.
pub(super) fn bytes(value: &str) -> Result<u64, String> {
    let nr_pages =
        limited(value)?.ok_or("there is nothing to judge without a limit: give a size")?;
    Ok(nr_pages * page_size())
}

/// A value of `--swap`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swap {
    /// As much as the recorded host had.
    Host,
    /// This many bytes.
    Bytes(u64),
}

pub(super) fn swap(value: &str) -> Result<Swap, String> {
    if value == "host" {
        return Ok(Swap::Host);
    }
    let nr_pages =
        limited(value)?.ok_or("no limit is not an amount of swap: give a size, or \"host\"")?;
    Ok(Swap::Bytes(nr_pages * page_size()))
}

pub(super) fn kernel() -> impl TypedValueParser<Value = Kernel> {
    let names = Kernel::VARIANTS.iter().map(|&kernel| <&str>::from(kernel));
    PossibleValuesParser::new(names).try_map(|name| name.parse())
}

/// Reads a percentage; returns a fraction.
pub(super) fn part(value: &str) -> Result<f64, String> {
    match value.strip_suffix('%').unwrap_or(value).parse::<f64>() {
        Ok(percent) if (0.0..=1000.0).contains(&percent) => Ok(percent / 100.0),
        _ => Err("not a percentage in 0..=1000".into()),
    }
}

pub(super) fn batch(value: &str) -> Result<u32, String> {
    match value.parse::<u32>() {
        Ok(pages) if (1..=MAX_BATCH).contains(&pages) => Ok(pages),
        _ => Err(format!("not a number in 1..={MAX_BATCH}")),
    }
}

pub(super) fn slots(value: &str) -> Result<u32, String> {
    match value.parse::<u32>() {
        Ok(slots) if (1..=MAX_SLOTS).contains(&slots) => Ok(slots),
        _ => Err(format!("not a number in 1..={MAX_SLOTS}")),
    }
}

pub(super) fn max_cgroups(value: &str) -> Result<u32, String> {
    match value.parse::<u32>() {
        Ok(cgroups) if (1..=MAX_CGROUPS).contains(&cgroups) => Ok(cgroups),
        _ => Err(format!("not a number in 1..={MAX_CGROUPS}")),
    }
}

/// Reads `[PATH=]SIZE`.
pub(super) fn limit() -> impl TypedValueParser<Value = Limit> {
    OsStringValueParser::new().try_map(|text| to_limit(&text))
}

fn to_limit(text: &OsStr) -> Result<Limit, String> {
    let (cgroup, size) = split(text);
    // If it is not UTF-8, the parser refuses it.
    let nr_pages = size::parse_size(&size.to_string_lossy()).map_err(|error| error.to_string())?;
    Ok(Limit { cgroup, nr_pages })
}

/// `[ADDR:]PORT`; loopback without an address.
pub(super) fn address(value: &str) -> Result<SocketAddr, String> {
    let port = value.strip_prefix(':').unwrap_or(value);
    // `parse` would accept a sign.
    if port.bytes().all(|byte| byte.is_ascii_digit())
        && let Ok(port) = port.parse()
    {
        return Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    }
    let wanted = "PORT, ADDRESS:PORT or [ADDRESS]:PORT with an IP address and a port up to 65535";
    value.parse().map_err(|_| format!("not {wanted}"))
}

/// A duration as Prometheus writes it: whole numbers, each with a unit, such as `14d` or `1h30m`.
pub fn window(text: &str) -> Result<String, String> {
    let mut rest = text;
    while !rest.is_empty() {
        let behind = rest.trim_start_matches(|c: char| c.is_ascii_digit());
        let unit =
            ["ms", "s", "m", "h", "d", "w", "y"].into_iter().find(|unit| behind.starts_with(unit));
        match unit {
            Some(unit) if behind.len() < rest.len() => rest = &behind[unit.len()..],
            _ => return Err("not a duration such as 14d or 1h30m".to_owned()),
        }
    }
    if text.is_empty() { Err("not a duration such as 14d".to_owned()) } else { Ok(text.to_owned()) }
}

/// With a shorter delay, the view would mostly show its own cost; with a longer one, it is not live.
const DELAYS: std::ops::RangeInclusive<f64> = 0.1..=86_400.0;

/// A value of `--delay`.
pub(super) fn delay(value: &str) -> Result<Duration, String> {
    match value.parse() {
        Ok(seconds) if DELAYS.contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err(format!("not a number of seconds in {}..={}", DELAYS.start(), DELAYS.end())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_for_all_or_for_one() {
        assert_eq!(to_limit("1M".as_ref()).unwrap().cgroup, None);
        let one = to_limit("/a=b/c=8K".as_ref()).unwrap();
        assert_eq!(one.cgroup.unwrap(), PathBuf::from("/a=b/c"));
        assert!(to_limit("12Q".as_ref()).is_err());
        assert!(to_limit("/a=".as_ref()).is_err());
        let bytes = to_limit(OsStr::from_bytes(b"/\xff=8K")).unwrap();
        assert_eq!(bytes.cgroup.unwrap().as_os_str().as_bytes(), b"/\xff");
    }

    #[test]
    fn a_kernel_cgroup_is_for_the_first_or_for_one() {
        let first = KernelCgroup { cgroup: None, path: "/x".into() };
        assert_eq!(to_kernel_cgroup("/x".as_ref()), Ok(first));
        let one = KernelCgroup { cgroup: Some("/a=b".into()), path: "/x".into() };
        assert_eq!(to_kernel_cgroup("/a=b=/x".as_ref()), Ok(one));
        for bad in ["", "=", "/a=", "=/x"] {
            assert!(to_kernel_cgroup(bad.as_ref()).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_address_is_loopback_unless_it_is_given() {
        for (value, expected) in [
            ("9464", "127.0.0.1:9464"),
            (":9464", "127.0.0.1:9464"),
            ("0", "127.0.0.1:0"),
            ("0.0.0.0:80", "0.0.0.0:80"),
            ("[::1]:9464", "[::1]:9464"),
        ] {
            assert_eq!(address(value).unwrap().to_string(), expected);
        }
        for bad in ["", ":", "+1", "-1", "65536", "localhost:1", "::1", "1.2.3.4", "1.2.3:4", "x"] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_batch_is_a_number() {
        assert_eq!((batch("1"), batch("1024")), (Ok(1), Ok(1024)));
        for bad in ["0", "1025", "-1", "auto", ""] {
            assert!(batch(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_and_percentages_of_a_forecast() {
        assert_eq!((bytes("512M"), swap("host")), (Ok(512 << 20), Ok(Swap::Host)));
        assert!(bytes("max").is_err() && swap("-1").is_err());
        assert!(swap("max").is_err_and(|error| error.contains("\"host\"")));
        assert_eq!((part("5%"), part("12.5")), (Ok(0.05), Ok(0.125)));
        for bad in ["", "%", "-1", "nan", "inf", "1001", "5 %"] {
            assert!(part(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn slots_are_a_number() {
        assert_eq!((slots("1"), slots("7"), slots("64")), (Ok(1), Ok(7), Ok(64)));
        for bad in ["0", "65", "128", "-1", "x"] {
            assert!(slots(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn delays_have_bounds() {
        assert_eq!(delay("1"), Ok(Duration::from_secs(1)));
        assert_eq!(delay("0.25"), Ok(Duration::from_millis(250)));
        for bad in ["0", "0.09", "-1", "nan", "inf", "1e9", "86401", "", "1s", "1,5"] {
            assert!(delay(bad).is_err(), "{bad}");
        }
    }
}
