//! Chooses the text format by a client's `Accept` header (RFC 9110, 12.5.1).

use crate::view::metrics::text::Format;

/// The version of OpenMetrics that we write.
const VERSION: &str = "1.0.0";

/// OpenMetrics if the client wants it at least as much as plain text; otherwise the Prometheus format, which every
/// scraper reads.
pub(super) fn format(accept: &str) -> Format {
    let ranges: Vec<Range> = accept.split(',').filter_map(Range::parse).collect();
    let best = |fits: &dyn Fn(&Range) -> bool| {
        ranges.iter().filter(|range| fits(range)).map(|range| range.thousandths).max().unwrap_or(0)
    };
    let open = best(&|range| {
        range.kind == "application/openmetrics-text" && range.version.is_none_or(|v| v == VERSION)
    });
    let plain = best(&|range| range.kind == "text/plain");
    if open > 0 && open >= plain { Format::OpenMetrics } else { Format::Prometheus }
}

/// One of the alternatives in the header.
struct Range<'a> {
    kind: &'a str,
    version: Option<&'a str>,
    /// Its quality value (`q`).
    thousandths: u16,
}

impl<'a> Range<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let mut range = Self { kind: parts.next()?, version: None, thousandths: 1000 };
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            if name.eq_ignore_ascii_case("version") {
                range.version = Some(value.trim_matches('"'));
            } else if name.eq_ignore_ascii_case("q") {
                let wanted: f32 = value.parse().ok().filter(|q| (0.0..=1.0).contains(q))?;
                range.thousandths = (wanted * 1000.0) as u16;
            }
        }
        Some(range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_prefers_openmetrics_gets_it() {
        for (accept, open) in [
            // Prometheus 2.42, and 3.
            (
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;\
                 version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                true,
            ),
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                 text/plain;version=0.0.4;q=0.4,*/*;q=0.1",
                true,
            ),
            (
                "text/plain;version=0.0.4;q=0.5,application/openmetrics-text; version=1.0.0;q=0.4",
                false,
            ),
            ("application/openmetrics-text", true),
            ("application/openmetrics-text;version=0.0.1", false),
            ("application/openmetrics-text;q=0", false),
            ("application/openmetrics-text;q=2", false),
            ("*/*", false),
            ("", false),
            (";;,,=;q=", false),
        ] {
            assert_eq!(format(accept) == Format::OpenMetrics, open, "{accept}");
        }
    }
}
