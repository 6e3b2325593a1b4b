//! Asks a Prometheus server what cgroups have used and needed.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Deserialize;
use ureq::Agent;

use crate::exit::Failure;
use crate::forecast::recommend::Advice;
use crate::forecast::verdict::Peaks;
use crate::view::show::fleet::Service;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// The longest answer that is read, in bytes: enough for some 100,000 cgroups.
const LONGEST: u64 = 64 << 20;

/// What is used of an answer of the HTTP API (`/api/v1/query`).
#[derive(Deserialize)]
struct Answer {
    data: Option<Data>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct Data {
    result: Vec<Series>,
}

#[derive(Deserialize)]
struct Series {
    metric: Labels,
    /// Time, and value as text.
    value: (f64, String),
}

#[derive(Deserialize)]
struct Labels {
    cgroup: Option<String>,
}

/// Each cgroup by its path, over all hosts that have one with that path.
///
/// # Errors
/// Nothing answers at `url`, it is not a Prometheus, or it knows no cgroup.
pub fn services(url: &str, window: &str, margin: f64) -> Result<Vec<Service>> {
    // A watermark is the highest since the cgroup was tracked: it includes peaks between two scrapes, and before the
    // window.
    let highest = |metric: &str| {
        format!("max by (cgroup) (max_over_time(memstock_cgroup_memory_{metric}_bytes[{window}]))")
    };
    let needed = query(url, &highest("needed_watermark"))?;
    let peak = query(url, &highest("watermark"))?;
    // The current value: a limit that was lifted does not count.
    let limit = query(url, "min by (cgroup) (memstock_cgroup_memory_limit_bytes)")?;
    // A container that was renamed has several series on one host.
    let hosts = query(
        url,
        &format!(
            "count by (cgroup) (count by (cgroup, instance) \
             (last_over_time(memstock_cgroup_memory_watermark_bytes[{window}])))"
        ),
    )?;
    if needed.is_empty() {
        return Err(Failure::Other.error(format!(
            "{url} has no memstock_cgroup_memory_needed_watermark_bytes for the last {window}: make it scrape \
             \"memstock run --metrics\""
        )));
    }
    let service = |(cgroup, needed): (String, f64)| {
        let usage = peak.get(&cgroup).copied().unwrap_or(needed);
        let peaks = Peaks::of(usage as u64, needed as u64);
        let limit = limit.get(&cgroup).map(|&bytes| bytes as u64);
        let hosts = hosts.get(&cgroup).map_or(1, |&count| count as u64);
        Service { advice: Advice::by_peaks(peaks, margin), peaks, limit, hosts, cgroup }
    };
    Ok(needed.into_iter().map(service).collect())
}

fn query(url: &str, query: &str) -> Result<BTreeMap<String, f64>> {
    let cannot = |why: String| Failure::Other.error(format!("cannot query {url}: {why}"));
    if !url.starts_with("http://") {
        return Err(cannot(
            "memstock speaks http:// only: use \"kubectl port-forward\" or a proxy on this host"
                .into(),
        ));
    }
    let config = Agent::config_builder().timeout_global(Some(PATIENCE)).http_status_as_error(false);
    let agent: Agent = config.build().into();
    let request = agent.get(format!("{}/api/v1/query", url.trim_end_matches('/')));
    let mut response =
        request.query("query", query).call().map_err(|error| cannot(error.to_string()))?;
    let status = response.status();
    let body = response.body_mut().with_config().limit(LONGEST).read_to_string();
    let body = body.map_err(|error| cannot(error.to_string()))?;
    let answer: Answer = serde_json::from_str(&body)
        .map_err(|_| cannot(format!("its answer ({status}) is not that of a Prometheus")))?;
    if let Some(error) = answer.error {
        return Err(cannot(error));
    }
    let data = answer
        .data
        .context("neither data nor an error")
        .map_err(|error| cannot(format!("{error:#}")))?;
    let values = data.result.into_iter().filter_map(|series| {
        let value: f64 = series.value.1.parse().ok()?;
        Some((series.metric.cgroup?, value))
    });
    Ok(values.collect())
}
