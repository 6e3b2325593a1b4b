//! Applies the settings of a configuration that was read again, and reports each change.

use super::super::watch::Watch;
use super::report::Report;
use crate::cli::config::Settings;
use crate::daemon::parts::Part;
use crate::enforce::Policy;
use crate::journal::record::Outcome;

/// Changes what can change of `now` to `wanted`, and returns what is in force then. The next reading tries again what
/// was refused.
pub fn apply(
    watch: &mut Watch<'_>,
    report: &mut Report<'_>,
    now: &Settings,
    wanted: &Settings,
) -> Settings {
    let keys = |of: &Settings| of.changes(wanted).map(|(key, ..)| key).collect::<Vec<_>>();
    let settings = wanted.while_running(now);
    let later = keys(&settings);
    let (settings, why) = switch_policy(watch, settings, now);
    let refused = keys(&settings);
    for (key, from, to) in now.changes(wanted) {
        let (outcome, note) = match (later.contains(&key), refused.contains(&key)) {
            (true, _) => (Outcome::NeedsRestart, None),
            (_, true) => (Outcome::Refused, why.clone()),
            _ => (Outcome::Done, None),
        };
        report.change(None, &key, from, to, outcome, note);
    }
    settings
}

/// Switches from the policy of `old` to that of `new`. If it cannot, returns `new` with the old policy, and why.
fn switch_policy(
    watch: &mut Watch<'_>,
    new: Settings,
    old: &Settings,
) -> (Settings, Option<String>) {
    let policy = |of: &Settings| Policy { observe: of.observe, oom_group: of.oom_group };
    if policy(&new) == policy(old) {
        return (new, None);
    }
    let ordered = watch.enforcer.order(policy(&new));
    let why = ordered.as_ref().err().map(|error| format!("{error:#}"));
    watch.state.parts.outcome(Part::Enforcement, ordered);
    if why.is_some() {
        let (observe, oom_group) = (old.observe, old.oom_group);
        return (Settings { observe, oom_group, ..new }, why);
    }
    watch.policy = policy(&new);
    (new, None)
}
