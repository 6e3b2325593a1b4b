//! The programs, all from Debian, and what each stresses. They run in a folder with their inputs and write into
//! `out`; see `place`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::inputs::Input;
use crate::place::PATH;

/// gcc's own programs, in subfolders by machine and version.
const GCC: &str = "/usr/lib/gcc";

/// A program to rehearse.
pub struct Program {
    pub name: &'static str,
    /// What it stresses.
    pub about: &'static str,
    /// The programs that it starts.
    pub starts: &'static [&'static str],
    pub inputs: &'static [Input],
    /// Another input and the script that makes it, once, outside the measured runs.
    pub prepare: Option<(&'static str, &'static str)>,
    /// The script for `sh`.
    pub script: &'static str,
    /// Whether the smoke test runs it: it is fast and installed everywhere.
    pub is_smoke: bool,
}

impl Program {
    /// A program that it needs and this host lacks.
    pub fn missing(&self) -> Option<&'static str> {
        self.starts.iter().find(|name| find(name).is_none()).copied()
    }

    /// The paths of the programs that it starts.
    pub fn files(&self) -> impl Iterator<Item = PathBuf> {
        self.starts.iter().filter_map(|name| find(name))
    }
}

/// The path of a program in [`PATH`] or among gcc's own.
fn find(name: &str) -> Option<PathBuf> {
    let below = |dir: &Path| {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    let compilers = below(Path::new(GCC)).into_iter().flat_map(|target| below(&target));
    let dirs = PATH.iter().map(PathBuf::from).chain(compilers);
    dirs.map(|dir| dir.join(name)).find(|path| path.is_file())
}

/// All programs. Each needs 1 to 270 MiB, and takes at most some seconds.
pub const ALL: [Program; 20] = [
    Program {
        name: "xz",
        about: "compressor: a dictionary and its tables in private memory",
        starts: &["xz"],
        inputs: &[Input::Text],
        prepare: Some(("part", "head -c 8M text >part")),
        script: "xz -T1 --lzma2=preset=0,dict=64MiB,nice=8 -c part >out/xz",
        is_smoke: false,
    },
    Program {
        name: "zstd",
        about: "compressor: a window of 128 MiB over files that are read and written once",
        starts: &["zstd"],
        inputs: &[Input::Text],
        prepare: None,
        script: "zstd -q -1 --long=27 -T1 -c text >out/zst",
        is_smoke: false,
    },
    Program {
        name: "unzstd",
        about: "decompressor: the same window, and a stream that is written faster",
        starts: &["zstd"],
        inputs: &[Input::Text],
        prepare: Some(("text.zst", "zstd -q -1 --long=27 -T1 -f text -o text.zst")),
        script: "zstd -q -d --long=27 -c text.zst >out/text",
        is_smoke: false,
    },
    Program {
        name: "two xz",
        about: "two at once: each has its own dictionary, and one ends before the other",
        starts: &["xz"],
        inputs: &[Input::Text],
        prepare: Some((
            "parts",
            "mkdir -p parts && head -c 6M text >parts/1 && head -c 3M text >parts/2",
        )),
        script: "for n in 1 2; do xz -T1 --lzma2=preset=0,dict=32MiB,nice=8 -c parts/$n >out/$n & done; wait",
        is_smoke: false,
    },
    Program {
        name: "g++",
        about: "compiler: a heap that grows beside 35 MiB of mapped text",
        starts: &["g++", "cc1plus", "as"],
        inputs: &[Input::Templates],
        prepare: None,
        script: "g++ -O1 -c templates.cpp -o out/o",
        is_smoke: false,
    },
    Program {
        name: "gcc",
        about: "compiler: less heap than mapped text",
        starts: &["gcc", "cc1", "as"],
        inputs: &[Input::Functions],
        prepare: None,
        script: "gcc -O1 -c functions.c -o out/o",
        is_smoke: false,
    },
    Program {
        name: "python",
        about: "interpreter: many small objects, and a copy of them to sort",
        starts: &["python3"],
        inputs: &[],
        prepare: None,
        script: r#"python3 -c '
d = {i: [str(i), i * 2] for i in range(400000)}
print(len(sorted(d.values(), key=lambda x: x[0])))'"#,
        is_smoke: true,
    },
    Program {
        name: "perl",
        about: "interpreter: a hash, and its keys in order",
        starts: &["perl"],
        inputs: &[],
        prepare: None,
        script: r#"perl -e 'my %h; $h{$_ * 7} = "v$_" for 1..250000; my @k = sort keys %h; print scalar @k'"#,
        is_smoke: false,
    },
    Program {
        name: "awk",
        about: "interpreter: counts of what it reads from a file",
        starts: &["awk"],
        inputs: &[Input::Text],
        prepare: None,
        script: r#"awk '{ for (i = 1; i < NF; i++) c[$i " " $(i + 1)]++ } NR > 60000 { exit }
END { for (k in c) n++; print n }' text"#,
        is_smoke: false,
    },
    Program {
        name: "sort",
        about: "file tool: 40 MiB of buffer, the rest in temporary files that are merged",
        starts: &["sort"],
        inputs: &[Input::Text],
        prepare: None,
        script: "sort -S 40M --parallel=1 -T out text >out/sorted",
        is_smoke: false,
    },
    Program {
        name: "sqlite",
        about: "database: rows and two indexes, a cache of 40 MB of its own beside the kernel's",
        starts: &["sqlite3"],
        inputs: &[],
        prepare: None,
        script: r"sqlite3 out/db '
pragma cache_size = -40000;
create table t (a integer primary key, b text, c integer);
with recursive n (i) as (select 1 union all select i + 1 from n where i < 300000)
insert into t select i, hex(i * 7919) || i, i * 31 % 1000003 from n;
create index x on t (b);
create index y on t (c, b);
select count(*) from t where b like 1;'",
        is_smoke: false,
    },
    Program {
        name: "tar | gzip",
        about: "stream: 3,000 files through a pipe; little but page cache, and the kernel's own of each file",
        starts: &["tar", "gzip"],
        inputs: &[Input::Tree],
        prepare: None,
        script: "tar -cf - tree | gzip -1 >out/gz",
        is_smoke: false,
    },
    Program {
        name: "cp -r",
        about: "file tool: 3,000 new files: inodes, entries of folders, dirty cache",
        starts: &["cp"],
        inputs: &[Input::Tree],
        prepare: None,
        script: "cp -r tree out/tree",
        is_smoke: false,
    },
    Program {
        name: "cp",
        about: "file tool: 400 MiB of dirty cache, written to the disk in the end",
        starts: &["cp", "sync"],
        inputs: &[Input::Text],
        prepare: None,
        // Syncs, since without a limit the disk could write it after the end, and times would not be comparable.
        script: "cp text out/1 && cp out/1 out/2 && sync out/1 out/2",
        is_smoke: false,
    },
    Program {
        name: "grep",
        about: "file tool: a file that is read twice; all of it clean cache",
        starts: &["grep"],
        inputs: &[Input::Text],
        prepare: None,
        script: "grep -c qzx text; grep -c zzq text; true",
        is_smoke: true,
    },
    Program {
        name: "sha256sum",
        about: "file tool: a file that is read once; its cache is worth nothing",
        starts: &["sha256sum"],
        inputs: &[Input::Text],
        prepare: None,
        script: "sha256sum text",
        is_smoke: false,
    },
    Program {
        name: "fork",
        about: "copy-on-write: a child writes half of what its parent has",
        starts: &["python3"],
        inputs: &[],
        prepare: None,
        script: r"python3 -c '
import os
b = bytearray(80 << 20)
for i in range(0, len(b), 4096): b[i] = 1
if os.fork() == 0:
    for i in range(0, len(b) // 2, 4096): b[i] = 2
    os._exit(0)
assert os.wait()[1] == 0'",
        is_smoke: false,
    },
    Program {
        name: "tmpfs",
        about: "files in memory: 120 MiB that no process has mapped, beside a file on disk",
        starts: &["unshare", "mount", "head"],
        inputs: &[Input::Text],
        prepare: None,
        // The mount ends with its namespace.
        script: "unshare -m sh -ec 'mount -t tmpfs none out; head -c 120M text >out/a; cat text >/dev/null'",
        is_smoke: false,
    },
    Program {
        name: "git",
        about: "version control: deltas among large objects, mapped and in private memory",
        starts: &["git", "split"],
        inputs: &[Input::Text],
        prepare: Some((
            "repo",
            "git init -q repo && cd repo && head -c 24M ../text | split -b 3M - && git add . && \
             git -c user.name=n -c user.email=e -c gc.auto=0 commit -qm all",
        )),
        script: "git -C repo pack-objects -q --all --threads=1 --window=4 --stdout </dev/null >out/pack",
        is_smoke: false,
    },
    Program {
        name: "mmap",
        about: "a mapped file that is read twice by page, then private memory",
        starts: &["python3"],
        inputs: &[Input::Text],
        prepare: None,
        script: r#"python3 -c '
import mmap
with open("text", "rb") as f: m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)
print(sum(m[i] for _ in range(2) for i in range(0, len(m), 4096)))
b = bytearray(60 << 20)
for i in range(0, len(b), 4096): b[i] = 1'"#,
        is_smoke: true,
    },
];
