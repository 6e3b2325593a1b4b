//! Which blocks of page cache are recorded, and what is recorded of each.

use memstock_common::record::{BLOCK_PAGES, Recent, block_hash, is_followed, pages_in, pages_of};

#[test]
fn one_in_so_many_blocks_is_followed_and_those_nest() {
    // Like addresses of mappings in the kernel: far apart and aligned.
    let files = (0..64_u64).map(|n| 0xffff_8880_0000_0000 + n * 0x478);
    let hashes: Vec<_> =
        files.flat_map(|file| (0..1024).map(move |block| block_hash(file, block))).collect();
    let mut before = hashes.len();
    for one_in in [1, 2, 16, 256] {
        let followed = hashes.iter().filter(|&&hash| is_followed(hash, one_in)).count();
        let expected = hashes.len() / one_in as usize;
        // Four standard deviations.
        let off = 4.0 * (expected as f64).sqrt();
        assert!((followed as f64 - expected as f64).abs() <= off, "1 in {one_in}: {followed}");
        assert!(followed <= before);
        before = followed;
    }
    assert!(hashes.iter().all(|&hash| !is_followed(hash, 16) || is_followed(hash, 8)));
}

#[test]
fn pages_of_a_range_are_told_block_by_block() {
    for (first, last) in [(0, 0), (0, 15), (3, 15), (3, 16), (15, 40), (31, 32), (17, 17)] {
        let told: Vec<_> = (first / BLOCK_PAGES..=last / BLOCK_PAGES)
            .flat_map(|block| {
                let pages = pages_in(block, first, last);
                (0..BLOCK_PAGES)
                    .filter(move |page| pages >> page & 1 == 1)
                    .map(move |page| block * BLOCK_PAGES + page)
            })
            .collect();
        assert_eq!(told, (first..=last).collect::<Vec<_>>(), "{first}..={last}");
    }
}

#[test]
fn a_file_has_pages_up_to_its_size() {
    for (size, pages) in [(0, 0), (1, 1), (4096, 1), (4097, 3), (65_536, 0xffff), (65_537, 0xffff)]
    {
        assert_eq!(pages_of(0, size, 12), pages, "{size}");
    }
    assert_eq!([pages_of(1, 65_536, 12), pages_of(1, 65_537, 12)], [0, 1]);
}

#[test]
fn what_was_told_in_this_window_is_not_told_again() {
    let (told, recent) = Recent::default().add(7, 3, 0b0110);
    assert_eq!((told, recent.is_of(7), recent.is_of(8)), (0b0110, true, false));
    let (told, recent) = recent.add(7, 3, 0b1100);
    assert_eq!(told, 0b1000);
    assert_eq!(recent.add(7, 3, 0b1110).0, 0);
    assert_eq!(recent.add(7, 4, 0b1110).0, 0b1110, "a later window");
    assert_eq!(recent.add(9, 3, 0b1110).0, 0b1110, "another block");
}
