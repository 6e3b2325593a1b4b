//! The answer of `/metrics`, as a test reads it: each series with its value.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{Context, Result, bail, ensure};

use crate::Engine;
use crate::http;
use crate::poll::{SOON, try_poll_until};

/// One exposition in the text format.
#[derive(Clone, Debug)]
pub struct Exposition {
    /// The text as received.
    pub text: String,
    series: BTreeMap<String, f64>,
}

impl Exposition {
    /// Scrapes `/metrics`.
    ///
    /// # Errors
    /// When there is no answer, a line is not a series, or a series is repeated.
    pub fn get(from: SocketAddr) -> Result<Self> {
        Self::parse(http::get(from, "/metrics")?)
    }

    fn parse(text: String) -> Result<Self> {
        let mut series = BTreeMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (name, value) = line.rsplit_once(' ').with_context(|| line.to_owned())?;
            let value = value.parse().with_context(|| line.to_owned())?;
            ensure!(series.insert(name.to_owned(), value).is_none(), "twice: {line}");
        }
        ensure!(!series.is_empty(), "nothing: {text}");
        Ok(Self { text, series })
    }

    /// The value of a series, with its labels in the order printed; `None` if absent.
    pub fn find(&self, series: &str) -> Option<f64> {
        self.series.get(series).copied()
    }

    /// The value of a series that must be present.
    ///
    /// # Errors
    /// When it is absent.
    pub fn value(&self, series: &str) -> Result<f64> {
        self.find(series).with_context(|| format!("no {series} in {}", self.text))
    }

    /// The series of a name, as labels and value.
    pub fn of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
        self.series.iter().filter_map(move |(series, &value)| {
            let labels = series.strip_prefix(name)?;
            (labels.is_empty() || labels.starts_with('{')).then_some((labels, value))
        })
    }
}

impl Engine {
    /// The address where `--metrics` serves, once the daemon has printed it.
    ///
    /// # Errors
    /// When it does not in time.
    pub fn metrics(&self) -> Result<SocketAddr> {
        try_poll_until(SOON, "the address of the metrics", || {
            let stderr = self.stderr()?;
            let line = stderr.lines().find_map(|line| line.strip_prefix("metrics: http://"));
            let address = line.and_then(|line| line.strip_suffix("/metrics"));
            address.map(|address| address.parse().context("an address")).transpose()
        })
    }

    /// The reasons that `/readyz` gives; empty when it is ready.
    ///
    /// # Errors
    /// When the answer says neither ready nor degraded.
    pub fn degraded(&self, at: SocketAddr) -> Result<Vec<String>> {
        let answer = http::ask(at, "GET", "/readyz", &[])?;
        match (answer.status, answer.body.lines().collect::<Vec<_>>().as_slice()) {
            (200, ["ready"]) => Ok(Vec::new()),
            (503, ["degraded", reasons @ ..]) if !reasons.is_empty() => {
                Ok(reasons.iter().map(|&reason| reason.to_owned()).collect())
            }
            _ => bail!("neither ready nor degraded: {answer:?}"),
        }
    }
}
