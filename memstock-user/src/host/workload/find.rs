//! From names to cgroups: searches the whole hierarchy, as it is now.

use std::path::Path;

use anyhow::Result;

use super::{Kind, Resolver, Workload};
use crate::exit::{Failure, printable};
use crate::host::cgroup::{Cgroup, CgroupMount, display};

/// The most candidates that are listed in a message.
const MOST: usize = 8;

/// A workload by name. A star stands for any text without a slash.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Wanted {
    /// `web`, `web-0/api`, `shop/web-0/api`.
    Container(String),
    /// `web-0`, `shop/web-0`.
    Pod(String),
    /// `nginx.service`, `nginx`.
    Unit(String),
}

impl Wanted {
    /// Whether `of` matches.
    pub fn is(&self, of: &Workload) -> bool {
        match (self, of.kind) {
            (Self::Container(name), Kind::Container | Kind::Machine)
            | (Self::Pod(name), Kind::Pod) => ends_like(&of.name, name),
            (Self::Unit(name), Kind::Unit) => {
                matches(name, &of.name) || matches(&format!("{name}.service"), &of.name)
            }
            _ => false,
        }
    }

    /// Its kind and its name, as given.
    fn words(&self) -> (&'static str, &str) {
        match self {
            Self::Container(name) => ("container", name),
            Self::Pod(name) => ("pod", name),
            Self::Unit(name) => ("unit", name),
        }
    }

    fn is_kind(&self, of: &Workload) -> bool {
        match self {
            Self::Container(_) => matches!(of.kind, Kind::Container | Kind::Machine),
            Self::Pod(_) => of.kind == Kind::Pod,
            Self::Unit(_) => of.kind == Kind::Unit,
        }
    }
}

/// Whether `pattern` is the whole name, or its last parts.
fn ends_like(name: &str, pattern: &str) -> bool {
    let parts = name.split('/').count();
    let wanted = pattern.split('/').count();
    let tail = parts.checked_sub(wanted).map(|skip| name.split('/').skip(skip));
    tail.is_some_and(|tail| tail.zip(pattern.split('/')).all(|(own, wanted)| matches(wanted, own)))
}

/// Whether `text` matches `pattern`, where a star is any text.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(first) else { return false };
    let mut rest = rest.split('*');
    let Some(last) = rest.next_back() else { return true };
    for middle in rest {
        let Some(at) = text.find(middle) else { return false };
        text = &text[at + middle.len()..];
    }
    text.ends_with(last)
}

/// All cgroups that have a name, by path.
///
/// # Errors
/// The hierarchy cannot be read.
pub fn named(mount: &CgroupMount, resolver: &mut Resolver) -> Result<Vec<(Cgroup, Workload)>> {
    let mut all = vec![mount.root()];
    let mut next = 0;
    while let Some(cgroup) = all.get(next) {
        // A cgroup that is removed meanwhile has nothing below it.
        let below = mount.children(cgroup)?;
        all.extend(below);
        next += 1;
    }
    let names = resolver.names(mount.dir(), all.iter().map(|cgroup| &*cgroup.path));
    let mut named: Vec<_> = all
        .iter()
        .filter_map(|cgroup| Some((cgroup.clone(), names.get(&*cgroup.path)?.clone())))
        .collect();
    named.sort_by(|(a, _), (b, _)| a.path.cmp(&b.path));
    Ok(named)
}

/// The one cgroup with this name.
///
/// # Errors
/// [`Failure::Cgroup`]: there is none, or more than one; lists the candidates.
pub fn find(mount: &CgroupMount, wanted: &Wanted) -> Result<Cgroup> {
    let mut resolver = Resolver::default();
    let named = named(mount, &mut resolver)?;
    for warning in resolver.warnings() {
        log::warn!("{warning}");
    }
    one(named, wanted).map_err(|why| Failure::Cgroup.error(why))
}

fn one(named: Vec<(Cgroup, Workload)>, wanted: &Wanted) -> Result<Cgroup, String> {
    let (what, name) = wanted.words();
    let name = printable(name);
    let (mut meant, others): (Vec<_>, Vec<_>) =
        named.into_iter().partition(|(_, workload)| wanted.is(workload));
    match meant.len() {
        1 => Ok(meant.remove(0).0),
        0 => {
            let others = others.iter().filter(|(_, workload)| wanted.is_kind(workload));
            let others = others.map(|(_, workload)| workload.to_string());
            Err(match list(others) {
                Some(there) => format!("no {what} {name}; there are {there}"),
                None => format!("no {what} {name}, nor any other {what} (docs/names.md)"),
            })
        }
        _ => {
            let each = |(cgroup, workload): &(Cgroup, Workload)| at(&cgroup.path, workload);
            let there = list(meant.iter().map(each)).unwrap_or_default();
            Err(format!("more than one {what} is called {name}: name one of {there}"))
        }
    }
}

fn at(path: &Path, workload: &Workload) -> String {
    format!("{workload} ({})", display(path))
}

fn list(all: impl Iterator<Item = String>) -> Option<String> {
    let mut all: Vec<_> = all.collect();
    let more = all.len().saturating_sub(MOST);
    all.truncate(MOST);
    if more > 0 {
        all.push(format!("{more} more"));
    }
    (!all.is_empty()).then(|| all.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(name: &str) -> Wanted {
        Wanted::Container(name.into())
    }

    fn api(pod: &str) -> Workload {
        Workload::in_pod("shop".into(), pod.into(), Some("api".into()))
    }

    #[test]
    fn a_name_is_whole_or_its_end() {
        for name in ["api", "web-0/api", "shop/web-0/api", "shop/*/api", "a*", "*", "*/a*i"] {
            assert!(container(name).is(&api("web-0")), "{name}");
        }
        for name in ["ap", "web-1/api", "b/shop/web-0/api", "0/api", "", "*/*", "x*"] {
            let is = container(name).is(&api("web-0"));
            assert_eq!(is, name == "*/*", "{name}");
        }
        let pod = Workload::pod("shop".into(), "web-0".into());
        assert!(Wanted::Pod("web-0".into()).is(&pod) && Wanted::Pod("shop/web-*".into()).is(&pod));
        assert!(!Wanted::Pod("api".into()).is(&api("web-0")) && !container("web-0").is(&pod));
        let unit = Workload::new(Kind::Unit, "nginx.service");
        assert!(
            Wanted::Unit("nginx".into()).is(&unit) && Wanted::Unit("ng*.service".into()).is(&unit)
        );
        assert!(container("box").is(&Workload::new(Kind::Machine, "box")));
    }

    #[test]
    fn a_star_is_any_text() {
        for (pattern, text, expected) in [
            ("a*c", "abc", true),
            ("a*c", "ac", true),
            ("a*c", "abcd", false),
            ("ab*ba", "aba", false),
            ("*b*", "abc", true),
            ("*b*d", "abcbd", true),
            ("**", "", true),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn one_is_meant_or_the_candidates_are_told() {
        let at = |path: &str, workload| {
            (Cgroup { path: path.into(), dir: path.into(), id: 1 }, workload)
        };
        let all = || vec![at("/a", api("web-0")), at("/b", api("web-1"))];
        assert_eq!(one(all(), &container("web-1/api")).unwrap().path, Path::new("/b"));
        let why = one(all(), &container("api")).unwrap_err();
        assert_eq!(
            why,
            "more than one container is called api: name one of shop/web-0/api (/a), shop/web-1/api (/b)"
        );
        let why = one(all(), &container("x\n")).unwrap_err();
        assert_eq!(why, "no container x\\x0a; there are shop/web-0/api, shop/web-1/api");
        let why = one(all(), &Wanted::Pod("x".into())).unwrap_err();
        assert!(why.contains("nor any other pod"), "{why}");
        let many = (0..20).map(|n| at("/x", api(&format!("p{n}")))).collect();
        assert!(one(many, &Wanted::Container("none".into())).unwrap_err().ends_with("12 more"));
    }
}
