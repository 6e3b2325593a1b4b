//! Owns the look-ups in the kernel's type information (BTF, `include/uapi/linux/btf.h`). Must not know
//! which types memstock asks for.
//!
//! Why no crate: btf-rs is LGPL and, where the kernel's file cannot be mapped, takes 250 ms for what takes 10 ms here;
//! btf takes 350 ms; aya does not expose members and enumerators.

use anyhow::{Context as _, Result, bail, ensure};

const MAGIC: u16 = 0xeb9f;
/// `struct btf_type`: name, info, and size or type.
const TYPE: usize = 12;
/// `struct btf_member` and `struct btf_enum64`.
const MEMBER: usize = 12;
/// `struct btf_enum`.
const ENUM: usize = 8;
/// Limit of nested anonymous structures, and of modifiers on a type; no kernel has as many.
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
    /// The offset of each type in `types`; the first has the id 1.
    starts: Vec<usize>,
}

/// The elements of an array.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Elements {
    /// Offset of the first one, in bytes.
    pub(super) offset: u32,
    pub(super) count: u32,
    /// Size of each, in bytes.
    pub(super) size: u32,
    /// Whether they are pointers instead of numbers.
    pub(super) is_pointer: bool,
}

/// What all types have in common.
#[derive(Clone, Copy)]
struct Type {
    /// Offset of its name in the strings; 0 for none.
    name: u32,
    kind: u32,
    /// How many members or enumerators it has.
    count: usize,
    /// For a structure: members can be bit fields. For an enumeration: it is signed.
    flag: bool,
    /// A size in bytes, or the id of another type.
    size_or_type: u32,
    /// Offset of its members or enumerators in the types.
    rest: usize,
}

impl<'a> Btf<'a> {
    /// Finds the offset of each type.
    ///
    /// # Errors
    ///
    /// When it is truncated, or has an unknown kind of type, which cannot be skipped.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self> {
        let magic = bytes.first_chunk().map(|magic| u16::from_ne_bytes(*magic));
        ensure!(magic == Some(MAGIC), "the magic number of BTF is missing");
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

    /// `offsetof(struct name, member)` in bytes; the member can be in anonymous structures or unions in it. `None` for
    /// a bit field as well.
    pub(super) fn member_offset(&self, name: &str, member: &str) -> Option<u32> {
        self.structs(name).find_map(|ty| {
            let (bits, _) = self.member_bits(ty, member, 0)?;
            bits.is_multiple_of(8).then_some(bits / 8)
        })
    }

    /// The elements of `member` of `struct name`, which is an array, or a single number or pointer.
    pub(super) fn elements(&self, name: &str, member: &str) -> Option<Elements> {
        let offset = self.member_offset(name, member)?;
        let (_, id) = self.structs(name).find_map(|ty| self.member_bits(ty, member, 0))?;
        let (count, ty) = match self.resolve(id)? {
            // `struct btf_array`: type, type of the index, number of elements.
            array if array.kind == kind::ARRAY => {
                let ty = self.resolve(word(self.types, array.rest)?)?;
                (word(self.types, array.rest + 8)?, ty)
            }
            one => (1, one),
        };
        let is_pointer = ty.kind == kind::PTR;
        let size = match ty.kind {
            kind::PTR => size_of::<u64>() as u32,
            kind::INT => ty.size_or_type,
            _ => return None,
        };
        Some(Elements { offset, count, size, is_pointer })
    }

    /// The offset of a variable in its section, in bytes.
    pub(super) fn variable_offset(&self, section: &str, name: &str) -> Option<u32> {
        let is_section = |ty: &Type| ty.kind == kind::DATASEC && self.is_named(ty.name, section);
        self.all().filter(is_section).find_map(|ty| {
            // `struct btf_var_secinfo`: type, offset, size.
            let found = (0..ty.count).map(|index| ty.rest + 12 * index).find(|&at| {
                let variable = word(self.types, at).and_then(|id| self.resolve(id));
                variable.is_some_and(|ty| ty.kind == kind::VAR && self.is_named(ty.name, name))
            })?;
            word(self.types, found + 4)
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

    /// The offset of a member in bits, and the id of its type.
    fn member_bits(&self, ty: Type, name: &str, depth: usize) -> Option<(u32, u32)> {
        (0..ty.count).find_map(|index| {
            let at = ty.rest + index * MEMBER;
            let (text, id) = (word(self.types, at)?, word(self.types, at + 4)?);
            let offset = word(self.types, at + 8)?;
            // `BTF_MEMBER_BITFIELD_SIZE` and `BTF_MEMBER_BIT_OFFSET`.
            let (width, bits) =
                if ty.flag { (offset >> 24, offset & 0xff_ffff) } else { (0, offset) };
            if self.is_named(text, name) {
                return (width == 0).then_some((bits, id));
            }
            if !self.is_named(text, "") || depth == DEPTH {
                return None;
            }
            let inner = self.resolve(id)?;
            let is_nest = matches!(inner.kind, kind::STRUCT | kind::UNION);
            let (inside, id) = is_nest.then(|| self.member_bits(inner, name, depth + 1))??;
            Some((inside.checked_add(bits)?, id))
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
            // Kinds have 5 bits and counts 16; the bits above them are 0 so far, and each could grow only into these.
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
mod tests;
