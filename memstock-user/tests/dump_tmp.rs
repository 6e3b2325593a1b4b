//! Temporary.
use std::collections::BTreeMap;
#[test]
fn dump() {
    let path = std::env::var("DUMP").unwrap();
    let r = memstock::recording::read(path.as_ref()).unwrap();
    println!("{:#?}", r.header);
    println!(
        "moments {} peaks {} tasks {} accesses {} files {} end {:?}",
        r.moments.len(),
        r.peaks.len(),
        r.tasks.len(),
        r.accesses.len(),
        r.files.len(),
        r.end
    );
    println!(
        "max usage {:?} needed {:?}",
        r.moments.iter().map(|m| m.usage).max(),
        r.moments.iter().map(|m| m.needed).max()
    );
    println!("last {:?}", r.moments.last());
    for p in r.peaks.iter().rev().take(2) {
        println!("{p:?}");
    }
    for t in r.tasks.iter().take(12) {
        println!("{t:?}");
    }
    let mut by = BTreeMap::<_, (u64, u64)>::new();
    for a in &r.accesses {
        let e = by.entry((a.file, format!("{:?}", a.kind))).or_default();
        e.0 += 1;
        e.1 += u64::from(a.pages);
    }
    println!("one_in {:?}", r.accesses.first().map(|a| a.one_in));
    let mut all: Vec<_> = by.into_iter().collect();
    all.sort_by_key(|(_, e)| std::cmp::Reverse(e.1));
    for ((f, k), (n, p)) in all.into_iter().take(14) {
        println!("{k} {n} events {p} pages {:?}", r.files[f as usize]);
    }
    println!("no path: {}", r.files.iter().filter(|f| f.path.is_none()).count());
}
