//! Owns the look-ups in the kernel's type information (BTF, `include/uapi/linux/btf.h`). Must not know
//! which types memstock asks for.
//!
//! Of the crates, btf-rs is LGPL and, where the kernel's file cannot be mapped, takes 250 ms for what
//! takes 10 ms here; btf takes 350 ms; aya keeps members and enumerators to itself.

use anyhow::{Context as _, Result, bail, ensure};

const MAGIC: u16 = 0xeb9f;
/// `struct btf_type`: name, info, and size or type.
const TYPE: usize = 12;
/// `struct btf_member` and `struct btf_enum64`.
const MEMBER: usize = 12;
/// `struct btf_enum`.
const ENUM: usize = 8;
/// More anonymous structures in each other, or modifiers on a type, than any kernel has.
const DEPTH: usize = 32;

mod kind {
    pub(super) const INT: u32 = 1;
    pub(super) const PTR: u32 = 2;
    pub(super) const ARRAY: u32 = 3;
    pub(super) const STRUCT: u32 = 4;
    pub(super) const UNION: u32 = 5;
    pub(super) const ENUM: u32 = 6;
    pub(super) const FWD: u32 = 7;
    pub(super) const TYPEDEF: u32 = 8;
    pub(super) const VOLATILE: u32 = 9;
    pub(super) const CONST: u32 = 10;
    pub(super) const RESTRICT: u32 = 11;
    pub(super) const FUNC: u32 = 12;
    pub(super) const FUNC_PROTO: u32 = 13;
    pub(super) const VAR: u32 = 14;
    pub(super) const DATASEC: u32 = 15;
    pub(super) const FLOAT: u32 = 16;
    pub(super) const DECL_TAG: u32 = 17;
    pub(super) const TYPE_TAG: u32 = 18;
    pub(super) const ENUM64: u32 = 19;
}

/// The kernel's type information, in its own byte order.
#[derive(Debug)]
pub(super) struct Btf<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    /// Where in `types` each type is; the first has the id 1.
    starts: Vec<usize>,
}

/// One type, as far as all types are alike.
#[derive(Clone, Copy)]
struct Type {
    /// Of its name in the strings; 0 for none.
    name: u32,
    kind: u32,
    /// How many members or enumerators it has.
    count: usize,
    /// Of a structure: members can be bit fields. Of an enumeration: it is signed.
    flag: bool,
    /// A size in bytes, or the id of another type.
    size_or_type: u32,
    /// Where in the types its members or enumerators are.
    rest: usize,
}

impl<'a> Btf<'a> {
    /// Finds where each type is.
    ///
    /// # Errors
    ///
    /// When it is cut short, or has a kind of type that is not known here and cannot be skipped.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self> {
        let magic = bytes.first_chunk().map(|magic| u16::from_ne_bytes(*magic));
        ensure!(magic == Some(MAGIC), "it has not the magic number of BTF");
        // `struct btf_header`; the sections' offsets count from its end.
        let header = |offset| word(bytes, offset).context("the header is cut short");
        let body = bytes.get(header(4)? as usize..).context("the header is cut short")?;
        let section = |offset| {
            let (start, len) = (header(offset)? as usize, header(offset + 4)? as usize);
            body.get(start..).and_then(|rest| rest.get(..len)).context("a section is cut short")
        };
        let mut btf = Self { types: section(8)?, strings: section(16)?, starts: Vec::new() };
        let mut at = 0;
        while at < btf.types.len() {
            let ty = btf.type_at(at).context("a type is cut short")?;
            btf.starts.push(at);
            at = ty.rest
                + match ty.kind {
                    kind::PTR | kind::FWD | kind::TYPEDEF | kind::VOLATILE | kind::CONST => 0,
                    kind::RESTRICT | kind::FUNC | kind::FLOAT | kind::TYPE_TAG => 0,
                    kind::INT | kind::VAR | kind::DECL_TAG => 4,
                    kind::ARRAY => 12,
                    kind::STRUCT | kind::UNION | kind::ENUM64 => MEMBER * ty.count,
                    kind::DATASEC => 12 * ty.count,
                    kind::ENUM | kind::FUNC_PROTO => ENUM * ty.count,
                    other => bail!("types of kind {other} are not known"),
                };
        }
        Ok(btf)
    }

    /// `sizeof(struct name)` in bytes.
    pub(super) fn struct_size(&self, name: &str) -> Option<u32> {
        self.structs(name).map(|ty| ty.size_or_type).next()
    }

    /// `offsetof(struct name, member)` in bytes; the member can be in anonymous structures or unions
    /// in it. `None`, too, for a bit field.
    pub(super) fn member_offset(&self, name: &str, member: &str) -> Option<u32> {
        self.structs(name).find_map(|ty| {
            let bits = self.member_bits(ty, member, 0)?;
            bits.is_multiple_of(8).then_some(bits / 8)
        })
    }

    /// Whether there is a typedef of this name.
    pub(super) fn has_typedef(&self, name: &str) -> bool {
        self.all().any(|ty| ty.kind == kind::TYPEDEF && self.is_named(ty.name, name))
    }

    /// The value of an enumerator, whatever enumeration it is in.
    pub(super) fn enumerator(&self, name: &str) -> Option<u64> {
        self.all().find_map(|ty| {
            let step = match ty.kind {
                kind::ENUM => ENUM,
                kind::ENUM64 => MEMBER,
                _ => return None,
            };
            let found = (0..ty.count)
                .map(|index| ty.rest + index * step)
                .find(|&at| word(self.types, at).is_some_and(|text| self.is_named(text, name)))?;
            let low = word(self.types, found + 4)?;
            Some(match ty.kind {
                kind::ENUM64 => u64::from(word(self.types, found + 8)?) << 32 | u64::from(low),
                _ if ty.flag => i64::from(low.cast_signed()).cast_unsigned(),
                _ => u64::from(low),
            })
        })
    }

    fn member_bits(&self, ty: Type, name: &str, depth: usize) -> Option<u32> {
        (0..ty.count).find_map(|index| {
            let at = ty.rest + index * MEMBER;
            let (text, offset) = (word(self.types, at)?, word(self.types, at + 8)?);
            // `BTF_MEMBER_BITFIELD_SIZE` and `BTF_MEMBER_BIT_OFFSET`.
            let (width, bits) =
                if ty.flag { (offset >> 24, offset & 0xff_ffff) } else { (0, offset) };
            if self.is_named(text, name) {
                return (width == 0).then_some(bits);
            }
            if !self.is_named(text, "") || depth == DEPTH {
                return None;
            }
            let inner = self.resolve(word(self.types, at + 4)?)?;
            let is_nest = matches!(inner.kind, kind::STRUCT | kind::UNION);
            is_nest.then(|| self.member_bits(inner, name, depth + 1))??.checked_add(bits)
        })
    }

    /// The type with this id, without its modifiers.
    fn resolve(&self, id: u32) -> Option<Type> {
        let mut id = id;
        for _ in 0..DEPTH {
            let ty = self.type_at(*self.starts.get((id as usize).checked_sub(1)?)?)?;
            match ty.kind {
                kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG => {
                    id = ty.size_or_type;
                }
                _ => return Some(ty),
            }
        }
        None
    }

    fn all(&self) -> impl Iterator<Item = Type> {
        self.starts.iter().filter_map(|&start| self.type_at(start))
    }

    fn structs(&self, name: &str) -> impl Iterator<Item = Type> {
        self.all().filter(move |ty| ty.kind == kind::STRUCT && self.is_named(ty.name, name))
    }

    fn type_at(&self, at: usize) -> Option<Type> {
        let info = word(self.types, at + 4)?;
        Some(Type {
            name: word(self.types, at)?,
            // Kinds have 5 bits and counts 16; those above them are 0 so far, and the only ones into
            // which either can grow.
            kind: info >> 24 & 0x7f,
            count: (info & 0xff_ffff) as usize,
            flag: info >> 31 == 1,
            size_or_type: word(self.types, at + 8)?,
            rest: at + TYPE,
        })
    }

    fn is_named(&self, offset: u32, name: &str) -> bool {
        self.strings
            .get(offset as usize..)
            .and_then(|text| text.strip_prefix(name.as_bytes()))
            .is_some_and(|rest| rest.first() == Some(&0))
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|word| u32::from_ne_bytes(*word))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRINGS: &[u8] = b"\0page\0a\0kn\0BIT\0BIG\0NEGATIVE\0bits\0";
    const FLAG: u32 = 1 << 31;

    fn name(name: &str) -> u32 {
        let text = format!("\0{name}\0");
        let at = STRINGS.windows(text.len()).position(|window| window == text.as_bytes());
        u32::try_from(at.unwrap() + 1).unwrap()
    }

    fn info(kind: u32, count: u32) -> u32 {
        kind << 24 | count
    }

    /// `struct page { int a; bits:3; const union { struct { int; int kn; }; }; }` and three enumerations.
    fn types() -> Vec<u32> {
        [
            // 1: int
            vec![0, info(kind::INT, 0), 4, 32],
            // 2: struct { <nameless int>; int kn; }
            vec![0, info(kind::STRUCT, 2), 8, 0, 1, 0, name("kn"), 1, 32],
            // 3: union { <2>; }
            vec![0, info(kind::UNION, 1), 8, 0, 2, 0],
            // 4: const <3>
            vec![0, info(kind::CONST, 0), 3],
            // 5
            vec![name("page"), info(kind::STRUCT, 3) | FLAG, 16, name("a"), 1, 0],
            vec![name("bits"), 1, 3 << 24 | 32, 0, 4, 64],
            // 6 to 8
            vec![0, info(kind::ENUM, 1), 4, name("BIT"), 3],
            vec![0, info(kind::ENUM, 1) | FLAG, 4, name("NEGATIVE"), u32::MAX],
            vec![0, info(kind::ENUM64, 1), 8, name("BIG"), 1, 2],
            // 9: a union of the same name is no struct.
            vec![name("page"), info(kind::UNION, 0), 99],
        ]
        .concat()
    }

    fn file(types: &[u32]) -> Vec<u8> {
        let types: Vec<u8> = types.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let len = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap();
        let header = [24, 0, len(&types), len(&types), len(STRINGS)];
        let mut bytes = [&MAGIC.to_ne_bytes()[..], &[1, 0]].concat();
        bytes.extend(header.iter().flat_map(|word| word.to_ne_bytes()));
        [bytes, types, STRINGS.to_vec()].concat()
    }

    #[test]
    fn members_are_found_in_anonymous_ones() {
        let bytes = file(&types());
        let btf = Btf::parse(&bytes).unwrap();
        assert_eq!(btf.struct_size("page"), Some(16));
        assert_eq!(btf.member_offset("page", "a"), Some(0));
        assert_eq!(btf.member_offset("page", "kn"), Some(12));
        assert_eq!(btf.member_offset("page", "bits"), None);
        assert_eq!(btf.member_offset("page", "none"), None);
        assert_eq!(btf.struct_size("pag"), None);
        assert_eq!(btf.enumerator("BIT"), Some(3));
        assert_eq!(btf.enumerator("BIG"), Some(2 << 32 | 1));
        assert_eq!(btf.enumerator("NEGATIVE"), Some(u64::MAX));
        assert_eq!(btf.enumerator("BI"), None);
    }

    #[test]
    fn a_loop_of_types_ends() {
        let looping = [
            vec![name("page"), info(kind::STRUCT, 1), 8, 0, 1, 0],
            vec![name("a"), info(kind::STRUCT, 1), 8, 0, 3, 0],
            vec![0, info(kind::CONST, 0), 3],
        ]
        .concat();
        let bytes = file(&looping);
        let btf = Btf::parse(&bytes).unwrap();
        assert_eq!(btf.member_offset("page", "kn"), None);
        assert_eq!(btf.member_offset("a", "kn"), None);
    }

    #[test]
    fn broken_files_are_errors_or_nothing() {
        let bytes = file(&types());
        for len in 0..bytes.len() {
            assert!(Btf::parse(&bytes[..len]).is_err(), "{len}");
        }
        let error = Btf::parse(&file(&[0, info(20, 0), 0])).unwrap_err();
        assert_eq!(error.to_string(), "types of kind 20 are not known");
        // More members than the file has: the last type is found, its members are not.
        let bytes = file(&[name("page"), info(kind::STRUCT, 9), 8, name("a"), 1, 0]);
        let btf = Btf::parse(&bytes).unwrap();
        assert_eq!(btf.member_offset("page", "a"), Some(0));
        assert_eq!(btf.member_offset("page", "kn"), None);
    }
}
