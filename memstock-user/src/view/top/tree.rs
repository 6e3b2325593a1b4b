//! The cgroup tree of a sample as rows: sorted, folded and filtered. Pure.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};

use memstock_common::stat::{CgroupStat, MemoryStat, PageCounterStat};

use super::column::{Column, Figures};
use super::rates::{Rates, failcnt};
use super::source::Pressures;
use crate::exit::printable;
use crate::forecast::headroom::headrooms;
use crate::host::cgroup::display;
use crate::host::workload::Kind;
use crate::model::{Cgroup, Name, Sample};
use crate::view::show::table::{label, place};

/// How rows are sorted, folded and filtered.
#[derive(Clone, Debug)]
pub struct Order {
    /// Sort siblings by this column.
    pub sort: Column,
    /// Whether the order is reversed.
    pub reverse: bool,
    /// Ids of cgroups whose children are hidden.
    pub folded: HashSet<u64>,
    /// Show only cgroups with this in their name or path, regardless of case, and their ancestors.
    pub filter: String,
}

impl Default for Order {
    fn default() -> Self {
        let (folded, filter) = Default::default();
        Self { sort: Column::Usage, reverse: false, folded, filter }
    }
}

/// What is below a row in the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Below {
    /// Nothing.
    Nothing,
    /// Its children, as rows.
    Shown,
    /// So many hidden cgroups, whose work is added to this row's.
    Folded(usize),
}

/// A cgroup as shown.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// cgroup v2 id.
    pub id: u64,
    /// Its place in the sample.
    place: usize,
    /// The place of the nearest row above it that has a path.
    above: Option<usize>,
    /// How deep it is in the tree.
    pub depth: usize,
    /// What is below it.
    pub below: Below,
    /// Whether it matches the filter itself, and not only a descendant.
    pub matches: bool,
    /// Its numbers.
    pub figures: Figures,
}

/// The text of a row is made where it is shown: of many rows, few are.
impl Row {
    /// Its workload name, or its path relative to its parent row; escaped. `sample` is that of [`rows`].
    pub fn name(&self, sample: &Sample) -> String {
        let Some(cgroup) = sample.cgroups.get(self.place) else { return String::new() };
        let above = self.above.and_then(|above| sample.cgroups.get(above));
        let shown = short(&cgroup.name, above.map(|above| &above.name));
        if cgroup.is_dying { shown + " (dying)" } else { shown }
    }

    /// Its whole path, or its id if it was removed; escaped.
    pub fn path(&self, sample: &Sample) -> String {
        sample.cgroups.get(self.place).map(|cgroup| place(&cgroup.name)).unwrap_or_default()
    }
}

/// A cgroup with the indices of its children.
struct Node<'a> {
    cgroup: &'a Cgroup,
    figures: Figures,
    children: Vec<usize>,
}

/// The rows of a sample.
pub fn rows(sample: &Sample, rates: &Rates, pressures: &Pressures, order: &Order) -> Vec<Row> {
    let (nodes, tops) = nodes(sample, rates, pressures);
    let mut walk = Walk { nodes: &nodes, order, filter: order.filter.to_lowercase(), rows: vec![] };
    walk.all(&tops, None, 0);
    walk.rows
}

fn nodes<'a>(
    sample: &'a Sample,
    rates: &Rates,
    pressures: &Pressures,
) -> (Vec<Node<'a>>, Vec<usize>) {
    let place: HashMap<_, _> =
        sample.cgroups.iter().enumerate().map(|(n, cgroup)| (cgroup.name.id, n)).collect();
    let headrooms = headrooms(sample, |cgroup| &cgroup.memory);
    let binding = headrooms.iter().filter(|headroom| headroom.is_binding);
    let left: HashMap<_, _> = binding.map(|h| (h.cgroup.name.id, h.nr_pages)).collect();
    let node = |cgroup: &'a Cgroup| {
        let headroom = left.get(&cgroup.name.id).copied();
        let pressure = pressures.get(&cgroup.name.id).map(|it| it.some.avg10);
        let figures = Figures { headroom, pressure, ..figures(cgroup, rates) };
        Node { cgroup, figures, children: Vec::new() }
    };
    let mut nodes: Vec<_> = sample.cgroups.iter().map(node).collect();
    let mut tops = Vec::new();
    for (n, cgroup) in sample.cgroups.iter().enumerate() {
        // A cgroup whose parent is gone is shown at the top, rather than not at all.
        match cgroup.parent_id.and_then(|id| place.get(&id)).filter(|&&parent| parent != n) {
            Some(&parent) => nodes[parent].children.push(n),
            None => tops.push(n),
        }
    }
    (nodes, tops)
}

fn figures(cgroup: &Cgroup, rates: &Rates) -> Figures {
    let rates = rates.cgroup(cgroup.name.id);
    Figures {
        usage: cgroup.memory.get(PageCounterStat::Usage).unwrap_or(0),
        needed: cgroup.part(MemoryStat::Needed),
        peak: cgroup.part(MemoryStat::NeededWatermark),
        limit: cgroup.memory.get(PageCounterStat::Limit),
        stocked: cgroup.get(CgroupStat::Stocked).unwrap_or(0),
        faults: rates.get(CgroupStat::Faults),
        charged: rates.get(CgroupStat::Charged),
        from_stock: rates.get(CgroupStat::FromStock),
        failcnt: failcnt(cgroup),
        failing: rates.failcnt,
        // Filled in by `nodes`, which knows all cgroups.
        headroom: None,
        pressure: None,
    }
}

struct Walk<'a> {
    nodes: &'a [Node<'a>],
    order: &'a Order,
    filter: String,
    rows: Vec<Row>,
}

impl Walk<'_> {
    /// Adds siblings with their descendants; returns whether any was shown.
    fn all(&mut self, siblings: &[usize], above: Option<usize>, depth: usize) -> bool {
        let mut sorted = siblings.to_vec();
        sorted.sort_by(|&a, &b| self.compare(a, b));
        // `count`, not `any`: every sibling must be visited.
        let shown = sorted.iter().filter(|&&n| self.one(n, above, depth)).count();
        shown > 0
    }

    fn one(&mut self, n: usize, above: Option<usize>, depth: usize) -> bool {
        let node = &self.nodes[n];
        let name = &node.cgroup.name;
        let has_it = |text: String| text.to_lowercase().contains(&self.filter);
        let matches = self.filter.is_empty() || has_it(place(name)) || has_it(label(name));
        let mut row = Row {
            id: name.id,
            place: n,
            above,
            depth,
            below: Below::Nothing,
            matches,
            figures: node.figures,
        };
        // With a filter, matches are shown even in folded rows.
        if self.filter.is_empty()
            && !node.children.is_empty()
            && self.order.folded.contains(&name.id)
        {
            row.below = Below::Folded(self.fold(&node.children, &mut row.figures));
            self.rows.push(row);
            return true;
        }
        let here = self.rows.len();
        self.rows.push(row);
        let above = if name.path.is_some() { Some(n) } else { above };
        if self.all(&node.children, above, depth + 1) {
            self.rows[here].below = Below::Shown;
        } else if !matches {
            self.rows.truncate(here);
            return false;
        }
        true
    }

    /// Adds the work of a subtree (usage already includes it); returns its number of cgroups.
    fn fold(&self, children: &[usize], sum: &mut Figures) -> usize {
        let add = |a: Option<f64>, b: Option<f64>| match (a, b) {
            (Some(a), Some(b)) => Some(a + b),
            (a, b) => a.or(b),
        };
        let mut nr = 0;
        for node in children.iter().map(|&n| &self.nodes[n]) {
            sum.stocked += node.figures.stocked;
            sum.faults = add(sum.faults, node.figures.faults);
            sum.charged = add(sum.charged, node.figures.charged);
            sum.from_stock = add(sum.from_stock, node.figures.from_stock);
            nr += 1 + self.fold(&node.children, sum);
        }
        nr
    }

    fn compare(&self, a: usize, b: usize) -> Ordering {
        let (a, b) = (&self.nodes[a], &self.nodes[b]);
        let by_column = self.order.sort.compare(&a.figures, &b.figures);
        // Samples are sorted by path, and the sort is stable.
        let by_column = match self.order.sort {
            Column::Name => a.cgroup.name.path.cmp(&b.cgroup.name.path),
            _ => by_column,
        };
        if self.order.reverse { by_column.reverse() } else { by_column }
    }
}

/// The name of a cgroup below the one `above` it.
fn short(name: &Name, above: Option<&Name>) -> String {
    if let Some(workload) = &name.workload {
        let pod = above.and_then(|above| above.workload.as_ref());
        let is_in = pod.is_some_and(|it| it.kind == Kind::Pod && it.pod == workload.pod);
        return match &workload.container {
            Some(container) if is_in => printable(container),
            None if is_in => "(sandbox)".into(),
            _ => workload.to_string(),
        };
    }
    let above = above.and_then(|above| above.path.as_deref());
    let short =
        above.zip(name.path.as_deref()).and_then(|(above, path)| path.strip_prefix(above).ok());
    short.map_or_else(|| place(name), display)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::workload::Workload;
    use crate::view::top::fixture::{cgroup, sample};

    fn shown(order: &Order) -> Vec<String> {
        let sample = sample();
        let rows = rows(&sample, &Rates::default(), &Pressures::new(), order);
        rows.iter().map(|row| format!("{}{}", " ".repeat(row.depth), row.name(&sample))).collect()
    }

    #[test]
    fn siblings_are_sorted_and_stay_below_their_parent() {
        let mut order = Order::default();
        assert_eq!(shown(&order), ["/web", " api", " static", "/batch", " nightly (dying)"]);
        order.reverse = true;
        assert_eq!(shown(&order), ["/batch", " nightly (dying)", "/web", " static", " api"]);
        order = Order { sort: Column::Name, ..Order::default() };
        assert_eq!(shown(&order), ["/batch", " nightly (dying)", "/web", " api", " static"]);
        order.sort = Column::Failcnt;
        assert_eq!(shown(&order)[0], "/web");
    }

    #[test]
    fn a_folded_row_stands_for_its_subtree() {
        let sample = sample();
        let open = rows(&sample, &Rates::default(), &Pressures::new(), &Order::default());
        assert_eq!((open[0].below, open[1].below), (Below::Shown, Below::Nothing));
        let order = Order { folded: HashSet::from([1, 2]), ..Order::default() };
        let folded = rows(&sample, &Rates::default(), &Pressures::new(), &order);
        assert_eq!(folded.len(), 2);
        assert_eq!(folded[0].below, Below::Folded(2));
        assert_eq!(folded[0].figures.usage, open[0].figures.usage);
        let stocked: u64 = open[..3].iter().map(|row| row.figures.stocked).sum();
        assert_eq!(folded[0].figures.stocked, stocked);
    }

    #[test]
    fn the_filter_keeps_what_is_above_and_opens_what_is_folded() {
        let mut order = Order { filter: "STAT".into(), ..Order::default() };
        assert_eq!(shown(&order), ["/web", " static"]);
        order.folded.insert(1);
        assert_eq!(shown(&order), ["/web", " static"]);
        let rows = rows(&sample(), &Rates::default(), &Pressures::new(), &order);
        assert_eq!(rows.iter().map(|row| row.matches).collect::<Vec<_>>(), [false, true]);
        order.filter = "nothing like it".into();
        assert_eq!(shown(&order), Vec::<String>::new());
    }

    #[test]
    fn names_stand_for_paths_and_are_found() {
        let mut sample = sample();
        let named = |kind, name: &str, container: Option<&str>| {
            let [pod, namespace] = ["web-0", "shop"].map(|part| Some(part.to_owned()));
            let container = container.map(str::to_owned);
            Some(Box::new(Workload { kind, name: name.into(), pod, namespace, container }))
        };
        sample.cgroups[2].name.workload = named(Kind::Pod, "shop/web-0", None);
        let api = named(Kind::Container, "shop/web-0/api", Some("api"));
        sample.cgroups[3].name.workload = api.clone();
        sample.cgroups[0].name.workload = api;
        let shown = |order: &Order| {
            let rows = rows(&sample, &Rates::default(), &Pressures::new(), order);
            rows.iter().map(|row| row.name(&sample)).collect::<Vec<_>>()
        };
        let all = ["shop/web-0", "api", "static", "shop/web-0/api", "nightly (dying)"];
        assert_eq!(shown(&Order::default()), all);
        for filter in ["WEB-0/API", "/batch"] {
            let order = Order { filter: filter.into(), ..Order::default() };
            assert!(shown(&order).contains(&"shop/web-0/api".to_owned()), "{filter}");
        }
    }

    #[test]
    fn orphans_are_at_the_top() {
        let mut sample = sample();
        sample.cgroups.push(cgroup(77, "/lost/child", Some(999), 1, None));
        sample.cgroups.push(cgroup(78, "/own/parent", Some(78), 1, None));
        let rows = rows(&sample, &Rates::default(), &Pressures::new(), &Order::default());
        assert_eq!(rows.len(), sample.cgroups.len());
        let lost =
            |row: &Row| row.name(&sample) == "/lost/child" && row.path(&sample) == "/lost/child";
        assert!(rows.iter().any(|row| lost(row) && row.depth == 0));
    }
}
