//! Linked lists of pages in one array, each with its total weight. A page can leave from anywhere.

/// No page.
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Link {
    newer: u32,
    older: u32,
    /// Which list it is in.
    list: Option<u8>,
    weight: u32,
}

#[derive(Clone, Copy, Debug)]
struct List {
    newest: u32,
    oldest: u32,
    weight: u64,
}

/// `N` lists, and the position of each page.
#[derive(Clone, Debug)]
pub struct Lists<const N: usize> {
    links: Vec<Link>,
    lists: [List; N],
}

impl<const N: usize> Lists<N> {
    /// Makes empty lists for `pages` pages.
    pub fn new(pages: usize) -> Self {
        let link = Link { newer: NONE, older: NONE, list: None, weight: 0 };
        let list = List { newest: NONE, oldest: NONE, weight: 0 };
        Self { links: vec![link; pages], lists: [list; N] }
    }

    /// The list that a page is in.
    pub fn list_of(&self, page: u32) -> Option<usize> {
        self.links[page as usize].list.map(usize::from)
    }

    /// How many pages a page stands for; its last weight if it is in no list.
    pub fn weight_of(&self, page: u32) -> u32 {
        self.links[page as usize].weight
    }

    /// The weight of a list.
    pub fn weight(&self, list: usize) -> u64 {
        self.lists[list].weight
    }

    /// The weight of all lists.
    pub fn size(&self) -> u64 {
        self.lists.iter().map(|list| list.weight).sum()
    }

    /// The page that has been in a list longest.
    pub fn oldest(&self, list: usize) -> Option<u32> {
        Some(self.lists[list].oldest).filter(|&page| page != NONE)
    }

    /// Moves a page, from wherever it is, to the newer end of a list.
    pub fn push(&mut self, list: usize, page: u32, weight: u32) {
        self.remove(page);
        let newest = self.lists[list].newest;
        let name = u8::try_from(list).ok();
        self.links[page as usize] = Link { newer: NONE, older: newest, list: name, weight };
        match newest {
            NONE => self.lists[list].oldest = page,
            _ => self.links[newest as usize].newer = page,
        }
        self.lists[list].newest = page;
        self.lists[list].weight += u64::from(weight);
    }

    /// Moves a page, if it is in a list, to the older end of this one.
    pub fn push_oldest(&mut self, list: usize, page: u32) {
        if self.list_of(page).is_none() {
            return;
        }
        let weight = self.weight_of(page);
        self.remove(page);
        let oldest = self.lists[list].oldest;
        let name = u8::try_from(list).ok();
        self.links[page as usize] = Link { newer: oldest, older: NONE, list: name, weight };
        match oldest {
            NONE => self.lists[list].newest = page,
            _ => self.links[oldest as usize].older = page,
        }
        self.lists[list].oldest = page;
        self.lists[list].weight += u64::from(weight);
    }

    /// Removes a page from its list, if it is in one.
    pub fn remove(&mut self, page: u32) {
        let Link { newer, older, list, weight } = self.links[page as usize];
        let Some(list) = list else { return };
        let list = &mut self.lists[usize::from(list)];
        list.weight -= u64::from(weight);
        match newer {
            NONE => list.newest = older,
            _ => self.links[newer as usize].older = older,
        }
        match older {
            NONE => list.oldest = newer,
            _ => self.links[older as usize].newer = newer,
        }
        self.links[page as usize].list = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_leave_from_anywhere() {
        let mut lists = Lists::<2>::new(4);
        for page in 0..4 {
            lists.push(0, page, 10);
        }
        lists.remove(1);
        lists.push(1, 0, 3);
        assert_eq!((lists.oldest(0), lists.oldest(1)), (Some(2), Some(0)));
        assert_eq!((lists.weight(0), lists.weight(1), lists.size()), (20, 3, 23));
        lists.remove(3);
        lists.remove(2);
        lists.remove(2);
        assert_eq!((lists.oldest(0), lists.list_of(0), lists.list_of(2)), (None, Some(1), None));
        assert_eq!((lists.weight(0), lists.weight_of(2)), (0, 10));
    }
}
