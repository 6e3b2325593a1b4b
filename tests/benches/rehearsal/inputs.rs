//! Generates the programs' inputs, the same each time.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::Path;

use anyhow::Result;

/// How large the inputs are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    Full,
    Small,
}

/// A file, or a folder of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// Lines of words, 200 MiB of them.
    Text,
    /// C++ that instantiates many templates.
    Templates,
    /// C with many functions.
    Functions,
    /// 3,000 files of some KiB in 30 folders.
    Tree,
}

impl Input {
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Templates => "templates.cpp",
            Self::Functions => "functions.c",
            Self::Tree => "tree",
        }
    }

    /// Writes it to `path`.
    pub fn write(self, path: &Path, size: Size) -> Result<()> {
        let small = size == Size::Small;
        match self {
            Self::Text => text(path, if small { 40 << 20 } else { 200 << 20 })?,
            Self::Templates => fs::write(path, templates(if small { 1 } else { 4 }))?,
            Self::Functions => fs::write(path, functions(if small { 100 } else { 400 }))?,
            Self::Tree => tree(path, if small { 5 } else { 30 })?,
        }
        Ok(())
    }
}

/// Pseudo-random numbers: xorshift64*.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % end
    }
}

/// Enough words that two lines are hardly ever the same.
fn words(numbers: &mut Numbers) -> Vec<String> {
    let mut word = || {
        let length = 2 + numbers.below(9);
        (0..length).map(|_| char::from(b'a' + numbers.below(26) as u8)).collect()
    };
    (0..20_000).map(|_| word()).collect()
}

fn text(path: &Path, bytes: usize) -> Result<()> {
    let mut numbers = Numbers(1);
    let words = words(&mut numbers);
    let mut file = BufWriter::new(File::create(path)?);
    let (mut line, mut written) = (String::new(), 0);
    while written < bytes {
        line.clear();
        for n in 0..8 {
            line.push_str(&words[numbers.below(words.len() as u64) as usize]);
            line.push(if n < 7 { ' ' } else { '\n' });
        }
        file.write_all(line.as_bytes())?;
        written += line.len();
    }
    Ok(file.into_inner()?.sync_all()?)
}

fn templates(count: u32) -> String {
    let mut source = String::from(
        "#include <algorithm>\n#include <functional>\n#include <map>\n#include <string>\n#include <vector>\n",
    );
    for n in 0..count {
        let _ = write!(
            source,
            "struct K{n} {{ int a; bool operator<(const K{n} &o) const {{ return a < o.a; }} }};\n\
             long f{n}(int n) {{\n\
               std::map<K{n}, std::vector<std::string>> m;\n\
               for (int i = 0; i < n; i++) m[K{n}{{i % 7}}].push_back(std::to_string(i));\n\
               std::vector<K{n}> v;\n\
               for (auto &p : m) v.push_back(p.first);\n\
               std::sort(v.begin(), v.end());\n\
               long s = 0;\n\
               for (auto &k : v) s += k.a + m[k].size();\n\
               return s;\n\
             }}\n"
        );
    }
    source
}

fn functions(count: u32) -> String {
    let mut source = String::new();
    for n in 0..count {
        let next = if n == 0 { "0".to_owned() } else { format!("g{}(a, n - 1)", n - 1) };
        let _ = writeln!(
            source,
            "int g{n}(int *a, int n) {{ int s = 0; for (int i = 0; i < n; i++) {{ \
             if (a[i] > {n}) s += a[i] * {}; else s ^= a[i] << {}; }} return s + {next}; }}",
            n + 3,
            n % 13
        );
    }
    source
}

fn tree(path: &Path, folders: u32) -> Result<()> {
    let mut numbers = Numbers(2);
    let words = words(&mut numbers);
    for folder in 0..folders {
        let folder = path.join(folder.to_string());
        fs::create_dir_all(&folder)?;
        for file in 0..100 {
            let mut lines = String::new();
            for _ in 0..numbers.below(3000) {
                lines.push_str(&words[numbers.below(words.len() as u64) as usize]);
                lines.push('\n');
            }
            fs::write(folder.join(file.to_string()), lines)?;
        }
    }
    Ok(())
}
