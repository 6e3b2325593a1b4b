//! Reads types made by hand.

use super::*;

const STRINGS: &[u8] = b"\0page\0a\0kn\0BIT\0BIG\0NEGATIVE\0bits\0.data\0bytes\0one\0";
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
        // 9: a union of the same name is not a struct.
        vec![name("page"), info(kind::UNION, 0), 99],
        // 10 to 14: u8, void *, and arrays of seven
        vec![name("a"), info(kind::INT, 0), 1, 8],
        vec![0, info(kind::PTR, 0), 0],
        vec![0, info(kind::ARRAY, 0), 0, 10, 1, 7],
        vec![0, info(kind::ARRAY, 0), 0, 11, 1, 7],
        vec![name("bytes"), info(kind::STRUCT, 3), 80, name("a"), 12, 8],
        vec![name("kn"), 13, 64, name("one"), 4, 512],
        // 15 to 17: variables, and where they are
        vec![name("one"), info(kind::VAR, 0), 14, 1],
        vec![name("page"), info(kind::VAR, 0), 1, 1],
        vec![name(".data"), info(kind::DATASEC, 2), 0, 15, 64, 80, 16, 144, 4],
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
fn arrays_and_variables_are_found() {
    let bytes = file(&types());
    let btf = Btf::parse(&bytes).unwrap();
    let seven = |offset, size, is_pointer| Elements { offset, count: 7, size, is_pointer };
    assert_eq!(btf.elements("bytes", "a"), Some(seven(1, 1, false)));
    assert_eq!(btf.elements("bytes", "kn"), Some(seven(8, 8, true)));
    let one = Elements { offset: 0, count: 1, size: 4, is_pointer: false };
    assert_eq!(btf.elements("page", "a"), Some(one));
    // A member of unknown type, and a member that does not exist.
    assert_eq!((btf.elements("bytes", "one"), btf.elements("bytes", "bits")), (None, None));
    assert_eq!(btf.variable_offset(".data", "one"), Some(64));
    assert_eq!(btf.variable_offset(".data", "page"), Some(144));
    assert_eq!(btf.variable_offset(".data", "a"), None);
    assert_eq!(btf.variable_offset(".bss", "one"), None);
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
    // More members than the file has: the type is found, the missing members are not.
    let bytes = file(&[name("page"), info(kind::STRUCT, 9), 8, name("a"), 1, 0]);
    let btf = Btf::parse(&bytes).unwrap();
    assert_eq!(btf.member_offset("page", "a"), Some(0));
    assert_eq!(btf.member_offset("page", "kn"), None);
}
